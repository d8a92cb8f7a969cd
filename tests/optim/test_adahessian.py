from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci.curvature import (
    CompositeObjective,
    EmpiricalFisherDiagonal,
    GaussNewtonDiagonal,
    Hutchinson,
    MeanObjective,
    rademacher_like,
)
from jaxsci.optim import adahessian, BlockAxes, scale_by_adahessian

H = jnp.asarray([1.0, 10.0, 100.0, -5.0])
C = jnp.asarray([0.5, 0.0, -0.1, 0.2])
X0 = jnp.asarray([1.0, -2.0, 0.3, 0.7])


def quartic(x):
    return jnp.sum(0.5 * H * x**2 + C * x**4)


def quadratic(x):
    return jnp.sum(0.5 * H * x**2)


def run(tx, obj_fn, params, steps, **extra):
    """The parameters after every step, `(steps, ...)` a leaf."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(obj_fn)(params), state, params, obj_fn=obj_fn, **extra)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    (_, state), path = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps))(params)
    return path, state


def first_update(tx: Any, obj_fn, params, **extra):
    """The updates and the state of one compiled step from the start."""

    def step(p):
        return tx.update(jax.grad(obj_fn)(p), tx.init(p), p, obj_fn=obj_fn, **extra)

    return jax.jit(step)(params)


def test_the_trajectory_on_a_diagonal_hessian_is_the_reference_one():
    path, _ = run(adahessian(), quartic, X0, 5)
    first = (0.9357152040685133, -1.7000029999700004, 0.2549676100512453, 0.8265238879736408)
    fifth = (0.6954218693058516, -0.7312245965523209, 0.10959749461865227, 1.5589084719120496)
    np.testing.assert_allclose(path[0], first, rtol=2e-15)
    np.testing.assert_allclose(path[4], fifth, rtol=1e-14)


@pytest.mark.parametrize("power", [1.0, 0.6, 0.0])
def test_the_trajectory_follows_the_formulas_with_decay_blocks_and_any_power(power):
    b1, b2, eps, lr, wd = 0.8, 0.95, 1e-2, 0.05, 0.3
    tx: Any = adahessian(
        lr, b1, b2, eps, wd, hessian_power=power, block_axes=BlockAxes.equinox_fan_in
    )
    x0 = X0.reshape(2, 2)
    h, c = np.asarray(H).reshape(2, 2), np.asarray(C).reshape(2, 2)
    path, _ = run(tx, lambda x: quartic(x.ravel()), x0, 6)
    x, m, v = np.asarray(x0), np.zeros((2, 2)), np.zeros((2, 2))
    for t in range(1, 7):
        g, d = h * x + 4 * c * x**3, h + 12 * c * x**2
        d = np.abs(d).mean(1, keepdims=True)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * d**2
        u = m / (1 - b1**t) / ((v / (1 - b2**t)) ** (power / 2) + eps)
        x = x - lr * (u + wd * x)
    np.testing.assert_allclose(path[-1], x, rtol=1e-12)


def test_power_zero_is_bias_corrected_momentum():
    eps, lr = 1e-2, 0.01
    path, _ = run(adahessian(lr, eps=eps, hessian_power=0.0), quartic, X0, 10)
    momentum = optax.chain(optax.ema(0.9), optax.scale(-lr / (1 + eps)))
    expected, _ = run(optax.with_extra_args_support(momentum), quartic, X0, 10)
    np.testing.assert_allclose(path, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 7.0])
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_scaling_the_objective_scales_the_update_by_its_power(scale, power):
    tx: Any = scale_by_adahessian(eps=0.0, hessian_power=power)
    scaled, _ = first_update(tx, lambda x: scale * quartic(x), X0)
    ratio = scaled / first_update(tx, quartic, X0)[0]
    np.testing.assert_allclose(ratio, scale ** (1 - power), rtol=1e-12)


def test_scaling_the_objective_leaves_the_whole_trajectory_unchanged():
    coupled = lambda x: quartic(x) + jnp.sin(jnp.sum(x))
    tx: Any = adahessian(eps=0.0)
    path, _ = run(tx, coupled, X0, 20)
    scaled, _ = run(tx, lambda x: 1e4 * coupled(x), X0, 20)
    np.testing.assert_allclose(scaled, path, rtol=1e-10)


@pytest.fixture(scope="module")
def every_step():
    return run(adahessian(), quadratic, X0, 30)[0]


@pytest.mark.parametrize(("interval", "warmup"), [(2, 0), (5, 3), (7, 0)])
def test_on_a_diagonal_quadratic_every_interval_gives_the_same_trajectory(
    interval, warmup, every_step
):
    lazy, state = run(
        adahessian(update_interval=interval, refresh_warmup=warmup), quadratic, X0, 30
    )
    np.testing.assert_allclose(lazy, every_step, rtol=1e-12)
    assert state[0].n == len([t for t in range(30) if t < warmup or t % interval == 0])
    assert state[0].count == 30


def test_a_skipped_refresh_does_not_evaluate_the_objective_under_jit():
    evaluated = []

    @jax.custom_jvp
    def cosh_sum(x):
        return jnp.sum(jnp.cosh(x))

    @cosh_sum.defjvp
    def cosh_sum_jvp(primals, tangents):
        (x,), (t,) = primals, tangents
        jax.debug.callback(lambda: evaluated.append(1))
        return cosh_sum(x), jnp.sum(jnp.sinh(x) * t)

    tx: Any = scale_by_adahessian(update_interval=4, refresh_warmup=2)
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, obj_fn=cosh_sum))
    state, calls = tx.init(X0), []
    for _ in range(9):
        evaluated.clear()
        _, state = update(jnp.sinh(X0), state, X0)
        jax.effects_barrier()
        calls.append(bool(evaluated))
    assert calls == [t in (0, 1, 4, 8) for t in range(9)]


def test_nu_is_constant_along_the_averaged_axes_only():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 5)))
    f = lambda k: jnp.sum(jnp.cosh(k)) + 0.01 * jnp.sum(k) ** 2
    tx: Any = scale_by_adahessian(block_axes=BlockAxes.flax)
    _, state = first_update(tx, f, kernel)
    nu = np.asarray(state.nu)
    assert np.ptp(nu, axis=(0, 1)).max() <= 1e-14 * nu.max()
    assert np.ptp(nu, axis=2).min() > 1e-3 * nu.max()
    assert np.ptp(nu, axis=3).min() > 1e-3 * nu.max()


def test_with_the_gradient_as_the_diagonal_it_is_adam():
    f = lambda x: quartic(x) + jnp.sin(jnp.sum(x))
    ours: Any = adahessian(0.01, eps=1e-8)
    adam: Any = optax.adam(0.01, eps=1e-8)
    x: Any = X0
    y: Any = X0
    s, t = ours.init(x), adam.init(y)
    for _ in range(20):
        g = jax.grad(f)(x)
        u, s = ours.update(g, s, x, hessian_diag=jnp.sqrt(g**2))
        x = optax.apply_updates(x, u)
        u, t = adam.update(jax.grad(f)(y), t)
        y = optax.apply_updates(y, u)
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_at_a_fixed_point_nu_tends_to_the_squared_row_norms_of_the_hessian():
    matrix = jnp.asarray([[3.0, 1.0, 0.0], [1.0, 2.0, -1.0], [0.0, -1.0, 0.5]])
    f = lambda x: 0.5 * x @ matrix @ x
    n = 4
    for probes in (1, n):
        tx: Any = scale_by_adahessian(b2=0.9995, estimator=Hutchinson(probes))

        def step(state, _, tx=tx):
            return tx.update(jnp.zeros(3), state, jnp.zeros(3), obj_fn=f)[1], None

        state, _ = jax.jit(lambda s: jax.lax.scan(step, s, length=6000))(tx.init(jnp.zeros(3)))
        squares = jnp.diag(matrix) ** 2
        expected = squares + (jnp.sum(matrix**2, 1) - squares) / probes
        np.testing.assert_allclose(state.nu / (1 - 0.9995**6000), expected, rtol=0.06, atol=0.02)


def test_the_probe_of_a_step_comes_from_the_seed_and_the_step_alone():
    matrix = jnp.asarray([[1.0, 2.0, 3.0], [2.0, -1.0, 0.5], [3.0, 0.5, 2.0]])
    f = lambda x: 0.5 * x @ matrix @ x
    x = jnp.ones(3)
    tx: Any = scale_by_adahessian(b2=0.0, seed=11)
    state = tx.init(x)
    for count in range(3):
        _, state = tx.update(x, state, x, obj_fn=f)
        (key,) = jax.random.split(jax.random.fold_in(jax.random.key(11), count), 1)
        product = matrix @ rademacher_like(key, x)
        np.testing.assert_allclose(state.nu, product**2, rtol=1e-13)
    nus = {
        seed: [
            scale_by_adahessian(b2=0.0, seed=seed)
            .update(x, tx.init(x)._replace(count=jnp.int32(count)), x, obj_fn=f)[1]
            .nu  # pyright: ignore[reportAttributeAccessIssue]
            for count in range(4)
        ]
        for seed in (11, 12)
    }
    assert not np.allclose(nus[11], nus[12])


@pytest.mark.parametrize(
    ("estimator", "objective"),
    [
        (
            GaussNewtonDiagonal(),
            CompositeObjective(lambda x: jnp.sqrt(H**2) * x, lambda y: jnp.sum(y**2)),
        ),
        (EmpiricalFisherDiagonal(), MeanObjective(lambda x: H * x)),
    ],
    ids=["gauss_newton", "empirical_fisher"],
)
def test_other_estimators_take_the_place_of_hutchinson(estimator, objective):
    # Both matrices are diagonal: 2 H^2, and H^2 / 4.
    tx: Any = scale_by_adahessian(b2=0.0, estimator=estimator)
    _, state = tx.update(X0, tx.init(X0), X0, obj_fn=objective)
    factor = 2 if isinstance(estimator, GaussNewtonDiagonal) else 0.25
    np.testing.assert_allclose(state.nu, (factor * H**2) ** 2, rtol=1e-13)


def test_a_non_finite_estimate_keeps_the_last_average_and_is_not_counted():
    tx: Any = scale_by_adahessian()
    g = jnp.ones(4)
    state = tx.init(g)
    nan = jnp.asarray([1.0, jnp.nan, 1.0, jnp.inf])
    u, before = tx.update(g, state, g, hessian_diag=nan)
    assert jnp.array_equal(u, jnp.zeros(4))
    assert (before.n, before.count) == (0, 1)
    _, good = tx.update(g, before, g, hessian_diag=2 * g)
    u, after = tx.update(g, good, g, hessian_diag=nan)
    assert after.n == good.n == 1
    assert jnp.array_equal(after.nu, good.nu)
    np.testing.assert_allclose(u, 1 / (2 + 1e-4), rtol=1e-12)


def test_an_estimate_whose_square_overflows_counts_as_non_finite():
    g = jnp.ones(2, jnp.float32)
    tx: Any = scale_by_adahessian()
    _, state = tx.update(g, tx.init(g), g, hessian_diag=jnp.asarray([1.0, 1e30], jnp.float32))
    assert state.n == 0
    assert jnp.array_equal(state.nu, jnp.zeros(2))


def test_min_diag_bounds_the_step_of_a_leaf_without_curvature():
    f = lambda p: jnp.sum(3 * p["linear"]) + jnp.sum(p["curved"] ** 2)
    p = {"linear": jnp.ones(2), "curved": jnp.ones(2)}
    for floor, expected in ((0.0, 3 / 1e-4), (0.5, 3 / (0.5 + 1e-4))):
        tx: Any = scale_by_adahessian(min_diag=floor)
        u, _ = first_update(tx, f, p)
        np.testing.assert_allclose(u["linear"], expected, rtol=1e-12)
        np.testing.assert_allclose(u["curved"], 2 / (2 + 1e-4), rtol=1e-12)


def test_bias_correction_keeps_its_digits_in_float32():
    # With constant g and d every bias-corrected ratio is exactly g / (d + eps).
    g, d = jnp.full(3, 0.7, jnp.float32), jnp.full(3, 1.3, jnp.float32)
    tx: Any = scale_by_adahessian(b1=0.999, b2=0.9999)
    state = tx.init(g)
    for _ in range(5):
        u, state = tx.update(g, state, g, hessian_diag=d)
        np.testing.assert_allclose(u, 0.7 / (1.3 + 1e-4), rtol=1e-6)
        assert u.dtype == jnp.float32


def test_rates_of_zero_mean_no_memory():
    f = quartic
    tx: Any = scale_by_adahessian(b1=0.0, b2=0.0)
    _, state = tx.update(jax.grad(f)(2 * X0), tx.init(X0), 2 * X0, obj_fn=f)
    u, _ = tx.update(jax.grad(f)(X0), state, X0, obj_fn=f)
    np.testing.assert_allclose(
        u, jax.grad(f)(X0) / (jnp.abs(H + 12 * C * X0**2) + 1e-4), rtol=1e-13
    )


def test_a_step_can_be_differentiated_where_the_curvature_is_zero():
    tx: Any = scale_by_adahessian()

    def after(g, d):
        return jnp.sum(tx.update(g, tx.init(g), g, hessian_diag=d)[0])

    by_g, by_d = jax.grad(after, argnums=(0, 1))(jnp.ones(2), jnp.asarray([0.0, 2.0]))
    np.testing.assert_allclose(by_g, [1 / 1e-4, 1 / (2 + 1e-4)], rtol=1e-12)
    np.testing.assert_allclose(by_d, [0, -1 / (2 + 1e-4) ** 2], rtol=1e-12)


def test_the_final_loss_can_be_differentiated_by_the_learning_rate():
    def final(lr):
        path, _ = run(adahessian(lr, update_interval=2, refresh_warmup=1), quartic, X0, 4)
        return quartic(path[-1])

    value_and_slope = jax.jit(jax.value_and_grad(final))
    slope = value_and_slope(0.05)[1]
    difference = (value_and_slope(0.05 + 1e-6)[0] - value_and_slope(0.05 - 1e-6)[0]) / 2e-6
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_a_vmapped_ensemble_equals_its_members_run_alone():
    starts = jnp.stack([X0, 0.5 * X0])
    tx: Any = adahessian(update_interval=3, refresh_warmup=1)
    f = lambda x: quartic(x) + jnp.sin(jnp.sum(x))
    together = jax.vmap(lambda x: run(tx, f, x, 5)[0])(starts)
    for i in range(2):
        np.testing.assert_allclose(together[i], run(tx, f, starts[i], 5)[0], rtol=1e-12)


def test_schedules_and_a_decay_mask_go_through_the_alias():
    tx: Any = adahessian(
        optax.linear_schedule(0.1, 0.0, 10),
        weight_decay=optax.constant_schedule(0.2),
        weight_decay_mask=lambda p: {"decays": True, "stays": False},
    )
    p = {"decays": jnp.ones(2), "stays": jnp.ones(2)}
    u, _ = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p, hessian_diag=p)
    np.testing.assert_allclose(u["decays"], -0.1 * 0.2, rtol=1e-6)
    np.testing.assert_array_equal(u["stays"], 0)


def test_the_fit_convention_is_accepted():
    tx: Any = optax.with_extra_args_support(optax.chain(optax.clip(1e9), adahessian()))
    value, grad = jax.value_and_grad(quartic)(X0)
    fit = {"value": value, "grad": grad, "value_fn": quartic, "obj_fn": quartic}
    u, _ = tx.update(grad, tx.init(X0), X0, **fit)
    first = (0.9357152040685133, -1.7000029999700004, 0.2549676100512453, 0.8265238879736408)
    np.testing.assert_allclose(X0 + u, first, rtol=1e-14)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("b1", 1.0, r"in \[0.0, 1.0\)"),
        ("b1", -0.1, r"in \[0.0, 1.0\)"),
        ("b2", 1.5, r"in \[0.0, 1.0\)"),
        ("b2", float("nan"), r"in \[0.0, 1.0\)"),
        ("hessian_power", 1.1, r"in \[0.0, 1.0\]"),
        ("eps", -1e-8, "at least zero"),
        ("update_interval", 0, "at least 1"),
        ("min_diag", -1.0, "at least zero"),
        ("refresh_warmup", -1, "at least 0"),
    ],
)
def test_an_argument_out_of_range_is_named(argument, value, allowed):
    for factory in (adahessian, scale_by_adahessian):
        with pytest.raises(ValueError, match=f"`{argument}` must be {allowed}, got"):
            factory(**{argument: value})


def test_the_compiled_step_shares_the_gradient_between_the_caller_and_the_product():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(128, 32)), jnp.float32)
    p = [jnp.asarray(rng.normal(size=(m, 64)), jnp.float32) for m in (32, 64)]
    f = lambda p: jnp.mean(jnp.tanh(jnp.tanh(x @ p[0]) @ p[1]) ** 2)
    tx: Any = scale_by_adahessian()

    def step(p, s):
        return tx.update(jax.grad(f)(p), s, p, obj_fn=f)

    def flops(f, *args):
        return (jax.jit(f).lower(*args).compile().cost_analysis() or {})["flops"]

    # Gradient 1, product about 2; a second gradient would make it 4.
    assert flops(step, p, tx.init(p)) < 3.3 * flops(jax.grad(f), p)


def test_python_scalars_are_parameters_too():
    f = lambda p: 2 * p["a"] ** 2 + p["b"] ** 4
    p = {"a": 1.5, "b": -1.0}
    tx: Any = adahessian(1.0, eps=0.0)
    u, _ = tx.update(jax.grad(f)(p), tx.init(p), p, obj_fn=f)
    np.testing.assert_allclose([u["a"], u["b"]], [-1.5, 4 / 12], rtol=1e-12)


def test_traced_arguments_are_not_checked_and_work():
    def first_step(b1, power, interval):
        tx: Any = adahessian(b1=b1, hessian_power=power, update_interval=interval)
        return X0 + tx.update(jax.grad(quartic)(X0), tx.init(X0), X0, obj_fn=quartic)[0]

    expected = first_step(0.9, 1.0, 1)
    np.testing.assert_allclose(jax.jit(first_step)(0.9, 1.0, 1), expected, rtol=1e-12)


@pytest.mark.bad_input
def test_an_estimator_or_blocks_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="`estimator` must be an instance of `AbstractDiagonalEst"):
        adahessian(estimator=Hutchinson)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`block_axes` must be an instance of `BlockAxes`, got 'fl"):
        adahessian(block_axes="flax")  # pyright: ignore[reportArgumentType]
