"""Rates of gradient descent on factors, against their exact laws and a NumPy loop."""

import functools
import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.optim.lowrank import (
    EntrySampling,
    GaussianSensing,
    Identity,
    init_asymmetric,
    init_symmetric,
    recover,
)

N, K, LR, BASE = 20, 4, 0.1, (1.0, 0.6)
SHAPE = (N, N)
Q = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
M = jnp.asarray(Q[:, :2] * np.array(BASE) @ Q[:, :2].T)
FULL = Identity()


@functools.cache
def symmetric(k, num_steps):
    return recover(
        FULL, M, SHAPE, k, "symmetric", LR, num_steps, 0.1, truth=M, key=jax.random.key(1),
        record_every=100,
    )  # fmt: skip


@functools.cache
def asymmetric(scale, num_steps=8000):
    return recover(
        FULL, M, SHAPE, K, "asymmetric", LR, num_steps, scale, truth=M, key=jax.random.key(1)
    )


@functools.cache
def rescaled(scale, beta, at=300):
    return recover(
        FULL, M, SHAPE, K, "rescaled", LR, 2000, scale, at, beta, truth=M, key=jax.random.key(1)
    )


def rate_between(errors, high, low):
    """Mean decrease of log error a step while the error falls from `high` to `low`."""
    i, j = int(np.argmax(errors < high)), int(np.argmax(errors < low))
    assert 0 < i < j
    return float(np.log(errors[i] / errors[j]) / (j - i))


def test_symmetric_errors_follow_the_scalar_recursion_from_an_exact_signal():
    c = np.array([0.3, 0.2])
    start = np.concatenate([Q[:, :2] * np.sqrt(BASE), Q[:, 2:4] * c], axis=1)
    out = recover(
        FULL, M, SHAPE, K, "symmetric", LR, 1000, init=jnp.asarray(start), truth=M, record_every=100
    )
    a, want = c**2, []
    for t in range(1001):
        if t % 100 == 0:
            want.append(np.linalg.norm(a))
        a = a * (1 - LR * a) ** 2
    np.testing.assert_allclose(out.history.error, want, atol=1e-12)
    np.testing.assert_allclose(out.history.error[-1], 0.006483750210843, atol=1e-12)
    asymptotic = np.linalg.norm(1 / (2 * LR * 1000 + 1 / c**2))
    np.testing.assert_allclose(asymptotic, 0.006495, atol=5e-7)


@pytest.mark.parametrize("k", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_symmetric_with_spare_columns_decays_like_one_over_t(k):
    errors = np.asarray(symmetric(k, 40000).history.error)
    ts = np.array([1000, 4000, 10000, 40000])
    scaled = errors[ts // 100] * 2 * LR * ts / np.sqrt(k - 2)
    assert np.all(np.diff(scaled) > 0)
    assert 0.4 < scaled[0] < 0.97 < scaled[-1] < 1
    slope = np.log(errors[400] / errors[100]) / np.log(4)
    assert -1 <= slope <= -0.9


def test_symmetric_of_the_exact_rank_is_linear():
    assert symmetric(2, 1000).history.error[-1] < 1e-12


@pytest.mark.parametrize("scale", [0.2, 0.4])
def test_asymmetric_rate_is_that_of_the_least_singular_value_of_the_left_factor(scale):
    out = asymmetric(scale)
    sigma = np.linalg.svd(np.asarray(out.factors[0]), compute_uv=False)[-1]
    rate = rate_between(np.asarray(out.history.error), 1e-8, 1e-10)
    np.testing.assert_allclose(rate, -np.log1p(-LR * sigma**2), rtol=1e-3)


def test_doubling_the_scale_multiplies_the_asymmetric_rate_by_four():
    slow, fast = (
        rate_between(np.asarray(asymmetric(s).history.error), 1e-8, 1e-10) for s in (0.2, 0.4)
    )
    np.testing.assert_allclose(fast / slow, 4, rtol=0.1)


@pytest.mark.parametrize("scale", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("beta", [0.5, 0.7, 0.6**0.5, 1.0])
def test_after_rescaling_the_rate_depends_on_beta_alone(beta, scale):
    errors = np.asarray(rescaled(scale, beta).history.error)
    # beta = 1 has a fast phase first.
    high, low = (1e-11, 1e-13) if beta == 1.0 else (1e-9, 1e-12)
    want = -np.log1p(-LR * min(beta**2, BASE[1] ** 2 / beta**2))
    np.testing.assert_allclose(rate_between(errors, high, low), want, rtol=1e-2)


@pytest.mark.parametrize("scale", [0.05, 0.2, 0.4])
def test_rescaled_reaches_nine_digits_within_a_thousand_steps(scale):
    assert np.min(rescaled(scale, 0.7).history.error[:1001]) < 1e-9


@pytest.mark.slow
def test_rescaling_at_the_rank_of_the_iterate_finds_the_best_beta():
    out = recover(
        FULL, M, SHAPE, K, "rescaled", LR, 1200, 0.2, 300, true_rank=2, truth=M,
        key=jax.random.key(1),
    )  # fmt: skip
    rate = rate_between(np.asarray(out.history.error), 1e-9, 1e-12)
    np.testing.assert_allclose(rate, -np.log1p(-LR * BASE[1]), rtol=1e-2)


def test_rescaling_rescues_a_symmetric_start():
    x = init_symmetric(jax.random.key(1), N, K, 0.1)
    with pytest.warns(UserWarning, match="two factors of `init` are equal"):
        out = recover(FULL, M, SHAPE, K, "rescaled", LR, 2000, 0.1, 300, 0.7, init=(x, x), truth=M)
    rate = rate_between(np.asarray(out.history.error), 1e-9, 1e-12)
    np.testing.assert_allclose(rate, 0.0502, rtol=1e-2)


def test_equal_factors_make_the_symmetric_iteration():
    x = init_symmetric(jax.random.key(1), N, K, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = recover(FULL, M, SHAPE, K, "asymmetric", LR, 1000, init=(x, x), truth=M)
    one = recover(FULL, M, SHAPE, K, "symmetric", LR, 1000, init=x, truth=M)
    np.testing.assert_allclose(pair.history.error, one.history.error, atol=1e-12)
    np.testing.assert_allclose(pair.factors[0], one.factors[0], atol=1e-12)


def imbalance(f, g):
    return f.T @ f - g.T @ g


@pytest.mark.slow
def test_the_imbalance_of_the_factors_drifts_by_the_square_of_the_step():
    start = init_asymmetric(jax.random.key(1), N, N, K, 0.3)
    drift = []
    for lr, steps in ((0.02, 1000), (0.01, 2000)):
        out = recover(FULL, M, SHAPE, K, "asymmetric", lr, steps, init=start)
        drift.append(np.linalg.norm(imbalance(*out.factors) - imbalance(*start)))
    # One step changes it by lr^2, and a time is reached in 1/lr steps.
    np.testing.assert_allclose(drift[0] / drift[1], 2, rtol=0.1)
    assert drift[0] < 0.02


@pytest.mark.slow
def test_gradient_flow_conserves_the_imbalance():
    start = init_asymmetric(jax.random.key(1), N, N, K, 0.3)

    def field(t, y, args):
        f, g = y
        d = f @ g.T - M
        return -d @ g, -d.T @ f

    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 20.0, 0.01, start, max_steps=4096,
        stepsize_controller=diffrax.PIDController(1e-9, 1e-9),
    )  # fmt: skip
    f, g = (x[0] for x in sol.ys)
    assert jnp.linalg.norm(f @ g.T - M) < 0.05 * jnp.linalg.norm(M)
    np.testing.assert_allclose(imbalance(f, g), imbalance(*start), atol=1e-6)


def numpy_loop(matrices, y, f, g, lr, steps, rebalance_at=None, beta=None):
    for t in range(steps):
        if t == rebalance_at:
            u, s, vt = np.linalg.svd(f, full_matrices=False)
            f, g = beta * u, g @ vt.T * s / beta
        r = np.einsum("mij,ij->m", matrices, f @ g.T) - y
        d = np.einsum("mij,m->ij", matrices, r)
        f, g = f - lr * d @ g, g - lr * d.T @ f
    return f @ g.T


@pytest.fixture(scope="module")
def sensed():
    op = GaussianSensing(jax.random.key(3), 10 * N * K, SHAPE)
    return op, op.mv(M)


@pytest.mark.parametrize("options", [{}, {"rebalance_at": 60, "beta": 0.8}])
def test_it_equals_a_numpy_loop(sensed, options):
    op, y = sensed
    start = init_asymmetric(jax.random.key(1), N, N, K, 0.3)
    method = "rescaled" if options else "asymmetric"
    got = recover(op, y, SHAPE, K, method, LR, 200, init=start, **options).matrix
    want = numpy_loop(*(np.asarray(x) for x in (op.matrices, y, *start)), LR, 200, **options)
    np.testing.assert_allclose(got, want, atol=1e-10)


@pytest.mark.slow
def test_sensed_matrices_are_recovered_at_the_rates_of_full_observation(sensed):
    op, y = sensed
    run = functools.partial(
        recover, op, y, SHAPE, K, lr=LR, num_steps=4000, truth=M, key=jax.random.key(1),
        record_every=100,
    )  # fmt: skip
    at = lambda out, *ts: np.asarray(out.history.error)[np.array(ts) // 100]
    slow = at(run(method="symmetric", scale=0.1), 1000, 2000, 4000)
    np.testing.assert_allclose(slow, [5e-3, 3e-3, 1.7e-3], rtol=0.3)
    linear = at(run(method="asymmetric", scale=0.4), 4000)
    assert linear[0] < 1e-6 * slow[-1]
    changed = at(run(method="rescaled", scale=0.1, rebalance_at=300, beta=1.0), 300, 400, 600, 1000)
    np.testing.assert_allclose(changed[0], 1.4e-2, rtol=0.5)
    assert np.all(changed[1:] < [5e-4, 1e-5, 3e-9])


@pytest.mark.parametrize("method", ["precgd", pytest.param("scaledgd", marks=pytest.mark.slow)])
def test_preconditioned_descent_is_fast_for_an_ill_conditioned_matrix(method):
    m = jnp.asarray(Q[:, :2] * np.array([1.0, 0.01]) @ Q[:, :2].T)
    run = functools.partial(recover, FULL, m, SHAPE, K, num_steps=300, scale=0.1, truth=m)
    plain = run("symmetric", lr=0.3).history.error[-1]
    assert run(method, lr=0.3).history.error[-1] < 1e-10 < 1e-3 < plain


def test_a_step_of_scaled_descent_divides_by_the_gram_matrices():
    f, g = init_asymmetric(jax.random.key(1), N, N, K, 1.0)
    got = recover(FULL, M, SHAPE, K, "scaledgd", 0.2, 1, init=(f, g), damping=0.3).factors
    d = f @ g.T - M
    eye = 0.3 * np.eye(K)
    np.testing.assert_allclose(got[0], f - 0.2 * d @ g @ np.linalg.inv(g.T @ g + eye), atol=1e-12)
    np.testing.assert_allclose(got[1], g - 0.2 * d.T @ f @ np.linalg.inv(f.T @ f + eye), atol=1e-12)


@pytest.mark.slow
def test_a_rectangular_matrix_is_completed_from_its_entries():
    rng = np.random.default_rng(4)
    m = jnp.asarray(rng.normal(size=(24, 2)) @ rng.normal(size=(2, 18)) / 20)
    mask = rng.random((24, 18)) < 0.6
    op = EntrySampling(mask, scale=mask.mean() ** -0.5)
    out = recover(op, op.mv(m), (24, 18), 2, "asymmetric", 0.3, 2000, 0.3, truth=m)
    assert out.history.error[-1] < 1e-8


def test_seeds_run_side_by_side_under_vmap():
    keys = jax.random.split(jax.random.key(7), 3)
    run = lambda key: recover(FULL, M, SHAPE, K, "rescaled", LR, 60, 0.2, 30, 0.7, key=key, truth=M)
    many = jax.vmap(run)(keys)
    assert many.history.error.shape == (3, 61)
    np.testing.assert_allclose(many.matrix[1], run(keys[1]).matrix, atol=1e-12)
    np.testing.assert_array_equal(many.diverged_at, -1)


def test_history_starts_at_the_start_and_ends_at_the_result():
    start = init_asymmetric(jax.random.key(1), N, N, K, 0.3)
    out = recover(FULL, M, SHAPE, K, lr=LR, num_steps=40, init=start, truth=M, record_every=20)
    first = jnp.linalg.norm(start[0] @ start[1].T - M)
    np.testing.assert_allclose(out.history.error[0], first, rtol=1e-13)
    np.testing.assert_allclose(out.history.error[-1], jnp.linalg.norm(out.matrix - M), rtol=1e-13)
    np.testing.assert_allclose(out.history.loss, out.history.error**2 / 2, rtol=1e-12)


def test_divergence_is_reported_with_its_step():
    with pytest.raises(RuntimeError, match="diverged at step"):
        recover(FULL, M, SHAPE, K, lr=10.0, num_steps=100, scale=1.0)
    out = recover(FULL, M, SHAPE, K, lr=10.0, num_steps=100, scale=1.0, throw=False)
    t = int(out.diverged_at)
    assert np.isfinite(out.history.loss[t - 1])
    assert not np.isfinite(out.history.loss[t])


@pytest.mark.slow
def test_the_result_is_differentiable_in_the_measurements():
    y = M

    def f(y):
        return jnp.sum(recover(FULL, y, SHAPE, 2, lr=0.5, num_steps=30, scale=0.5).matrix ** 2)

    direction = jnp.asarray(Q)
    slope = jnp.vdot(jax.grad(f)(y), direction)
    h = 1e-5
    np.testing.assert_allclose(
        slope, (f(y + h * direction) - f(y - h * direction)) / (2 * h), rtol=1e-6
    )


def test_single_precision_stays_single():
    out = recover(
        FULL, M.astype(jnp.float32), SHAPE, 2, "symmetric", LR, 1000, truth=M, record_every=100
    )
    assert {x.dtype for x in jax.tree.leaves((out.matrix, out.factors, out.history))} == {
        jnp.dtype(jnp.float32)
    }
    assert out.history.error[-1] < 1e-5


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    def run(*args, match, y=M, shape=SHAPE, rank=K, **options):
        with pytest.raises(ValueError, match=match):
            recover(FULL, y, shape, rank, *args, num_steps=10, **options)

    run("newton", match="`method` must be one of")
    run(match="`rank` must be at least `true_rank`", true_rank=5)
    run(match="`rank` must be at least 1", rank=0)
    run(match="`scale` must be positive", scale=0.0)
    run(match="`lr` must be positive", lr=-0.1)
    run("rescaled", match="`beta` must be positive", beta=-1.0)
    run("rescaled", match="needs `beta`, or `true_rank`")
    run(match="`rebalance_at` belongs to", rebalance_at=3)
    run("symmetric", match="`shape` must be square", shape=(20, 19))
    run("symmetric", match="`y` must be symmetric", y=jnp.triu(M))
    run("symmetric", match="`truth` must be symmetric", truth=jnp.triu(M))
    run(match="`y` must have the shape", y=M[:, :5])
    run(match="`truth` must have the shape", truth=M[:5])
    run(match="`init` must hold factors", init=(M, M))
    run(match="`record_every` must divide", record_every=3)
    run("scaledgd", match="`damping` must be at least zero", damping=-1.0)
