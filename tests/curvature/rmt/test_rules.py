"""Learning-rate rules against simulated descent and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature.rmt import (
    batch_sharpness,
    heavy_ball,
    max_learning_rate,
    mean_square_limit,
    minimal_damping,
    scale_learning_rate,
    spiked_covariance_edge,
)


def test_descent_on_a_noisy_quadratic_diverges_just_above_the_limit_of_its_own_sharpness():
    p, s, batch, noise = 200, 0.6, 5, 5 * 0.36
    rng = np.random.default_rng(0)
    a = rng.normal(size=(p, p))
    h = (a + a.T) * (s / np.sqrt(2 * p))
    # Positive definite, so that the top alone decides.
    h[np.arange(p), np.arange(p)] += 2.0
    h[0, 0] += 3.0
    own = np.linalg.eigvalsh(h)[-1]
    predicted = 2.0 + float(batch_sharpness(3.0, noise, batch))
    np.testing.assert_allclose(own, predicted, rtol=0.04)
    for factor, grows in ((1.01, True), (0.99, False)):
        x = rng.normal(size=p)
        for _ in range(1000):
            x = x - factor * 2 / own * (h @ x)
        assert (np.linalg.norm(x) > 1e3) == grows


def test_the_rules_of_sharpness_are_their_formulas():
    lam, noise, size = 3.0, 8.0, jnp.asarray([1.0, 2.0, 32.0])
    s2 = np.array([8.0, 4.0, 0.25])
    perturbative = batch_sharpness(lam, noise, size, rule="perturbative")
    np.testing.assert_allclose(perturbative, lam + s2 / lam)
    spiked = [lam + s2[0] / lam, lam + s2[1] / lam, lam + s2[2] / lam]
    np.testing.assert_allclose(batch_sharpness(lam, noise, size), spiked)
    np.testing.assert_allclose(batch_sharpness(1.0, noise, 2), 2 * np.sqrt(4.0))
    own = batch_sharpness(lam, noise, size, rule="self-consistent")
    np.testing.assert_allclose(own, lam + s2 / own)


def test_learning_rates_saturate_at_the_limit_of_all_data():
    rates = max_learning_rate(2.0, 5.0, jnp.asarray([1.0, 10.0, 1e9]))
    assert np.all(np.diff(rates) > 0)
    np.testing.assert_allclose(rates[-1], 1.0, rtol=1e-8)
    for rule in ("sgd", "perturbative", "self-consistent"):
        np.testing.assert_allclose(max_learning_rate(2.0, 5.0, 100, 100, rule), 1.0)
    assert max_learning_rate(2.0, 5.0, 100, 100, "adaptive", 0.1) == np.inf
    np.testing.assert_allclose(
        max_learning_rate(2.0, 5.0, 10, 50), 2 / (2.0 + 5.0 * (1 / 10 - 1 / 50) / 2.0)
    )


def test_small_batches_scale_with_the_square_root_or_linearly():
    small = jnp.asarray([1.0, 2.0])
    for rule, ratio in (("sgd", 2**0.5), ("self-consistent", 2**0.5), ("perturbative", 2.0)):
        rates = max_learning_rate(1e-3, 5.0, small, rule=rule)
        np.testing.assert_allclose(rates[1] / rates[0], ratio, rtol=1e-3)
    rates = max_learning_rate(1.0, 4.0, small, rule="adaptive", damping=0.1)
    np.testing.assert_allclose(rates, 0.1 / np.sqrt([4.0, 2.0]))


def test_scaling_rules_carry_a_rate_over():
    np.testing.assert_allclose(scale_learning_rate(0.1, 32, 64), 0.2)
    np.testing.assert_allclose(scale_learning_rate(0.1, 32, 64, rule="sqrt"), 0.1 * 2**0.5)
    got = scale_learning_rate(0.1, 8, 256, lam1=2.0, noise=3.0, rule="spiked", n_data=1000)
    ratio = max_learning_rate(2.0, 3.0, 256, 1000) / max_learning_rate(2.0, 3.0, 8, 1000)
    np.testing.assert_allclose(got, 0.1 * ratio)


def test_a_negative_curvature_limits_nothing_where_that_is_asked_for():
    flat = max_learning_rate(jnp.asarray([-1.0, 0.0, 2.0]), 1.0, 4, allow_nonpositive=True)
    np.testing.assert_allclose(flat, [np.inf, np.inf, 2 / 2.125])
    assert jax.jit(lambda x: max_learning_rate(x, 1.0, 4))(-1.0) == np.inf


def test_the_rules_differentiate_map_and_keep_float32():
    rate = lambda lam, noise, b: max_learning_rate(lam, noise, b, 100, "sgd")
    got = jax.jit(jax.vmap(jax.grad(rate, (0, 1, 2)), (0, None, None)))(
        jnp.asarray([2.0, -1.0, 0.1]), 1.0, 8.0
    )
    assert all(np.all(np.isfinite(g)) for g in got)
    s2 = 1 / 8 - 1 / 100
    np.testing.assert_allclose(got[0][0], -2 / (2 + s2 / 2) ** 2 * (1 - s2 / 4), rtol=1e-12)
    assert rate(jnp.float32(2), jnp.float32(1), jnp.float32(8)).dtype == jnp.float32


def test_damping_keeps_flat_directions_at_the_edge_of_stability():
    alpha, noise, size = 0.3, 4.0, 16.0
    delta = minimal_damping(alpha, noise, size)
    # Preconditioned by 1 / delta, the noise edge 2 s meets the limit alpha 2 s / delta = 2.
    np.testing.assert_allclose(alpha * 2 * np.sqrt(noise / size) / delta, 2.0)
    outlier = minimal_damping(alpha, noise, size, lam=1.5)
    assert alpha * (1.5 + noise / size / 1.5) / (1.5 + outlier) < 2
    np.testing.assert_allclose(minimal_damping(alpha, noise, 4 * size) / delta, 0.5)
    np.testing.assert_allclose(minimal_damping(alpha, noise, 4 * size, lam=1.5) / outlier, 0.25)


def energy_factor(alpha, lam, s2):
    step = np.diag((1 - alpha * lam) ** 2) + alpha**2 * s2 / lam.size
    return np.linalg.eigvalsh(step)[-1]


def test_the_mean_square_limit_is_where_the_energies_stop_shrinking():
    limit = jax.jit(mean_square_limit)
    flat_bulk = np.concatenate([[3.0], np.full(199, 0.02)])
    np.testing.assert_allclose(energy_factor(0.58, flat_bulk, 0.25), 1.06, atol=5e-3)
    for lam, s2 in ((flat_bulk, 0.25), (np.linspace(0.5, 4.0, 200), 3.0), (flat_bulk, 1e-4)):
        np.testing.assert_allclose(energy_factor(float(limit(lam, s2)), lam, s2), 1, atol=1e-9)
    equal = np.full(200, 1.7)
    np.testing.assert_allclose(limit(equal, 0.4), 2 / (1.7 + 0.4 / 1.7), rtol=1e-12)
    np.testing.assert_allclose(limit(flat_bulk, 0.0), 2 / 3.0, rtol=1e-12)
    grad = jax.jit(jax.grad(mean_square_limit, (0, 1)))(jnp.asarray(equal), 0.4)
    want = -2 / (1.7 + 0.4 / 1.7) ** 2
    np.testing.assert_allclose(np.sum(grad[0]), want * (1 - 0.4 / 1.7**2), rtol=1e-9)
    np.testing.assert_allclose(grad[1], want / 1.7, rtol=1e-9)


def test_heavy_ball_shrinks_every_direction_alike():
    rate, rho = heavy_ball(10.0, 0.1)
    np.testing.assert_allclose([rate, rho], [0.33058, 0.66942], atol=5e-6)
    for lam in np.linspace(0.1, 10.0, 25):
        companion = [[1 + rho - rate * lam, -rho], [1, 0]]
        radius = np.max(np.abs(np.linalg.eigvals(companion)))
        np.testing.assert_allclose(radius, np.sqrt(rho), rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(rho), 0.81818, atol=5e-6)


BATCHES = (1, 2, 4, 8, 16, 64)
SPECTRUM = np.concatenate([[8.0], np.full(39, 0.25)])


@pytest.mark.slow
def test_interpolating_least_squares_loses_stability_where_the_spiked_edge_says():
    """Fresh Gaussian rows a ~ N(0, diag): x <- x - lr (1/B) sum a a^T x."""
    measured = np.array([0.083, 0.139, 0.203, 0.247, 0.263, 0.258])
    root = jnp.asarray(np.sqrt(SPECTRUM))

    def exponents(batch, rates, steps, chains):
        def step(x, key):
            a = jax.random.normal(key, (chains, batch, 40)) * root
            # The same rows for every rate.
            moved = jnp.einsum("cbi,cbj,rcj->rci", a, a, x, optimize="optimal") / batch
            x = x - rates[:, None, None] * moved
            norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
            return x / norm, jnp.log(norm[..., 0])

        start = jnp.ones((rates.size, chains, 40)) / 40**0.5
        keys = jax.random.split(jax.random.key(batch), steps)
        logs = jax.lax.scan(step, start, keys)[1][steps // 10 :]
        return jnp.mean(logs, axis=(0, 2))

    for batch, lr in zip(BATCHES, measured, strict=True):
        rates = jnp.asarray([0.97 * lr, 1.03 * lr])
        steps = 4000 if batch < 16 else 1500
        below, above = jax.jit(exponents, static_argnums=(0, 2, 3))(batch, rates, steps, 32)
        assert below < 0 < above, batch
    predicted = 2 / spiked_covariance_edge(8.0, 0.25, 40 / np.array(BATCHES))
    np.testing.assert_allclose(predicted, [0.109, 0.152, 0.189, 0.215, 0.231, 0.245], atol=6e-4)
    np.testing.assert_allclose(predicted[1:], measured[1:], rtol=0.2)


@pytest.mark.bad_input
def test_bad_numbers_are_named():
    for lam in (0.0, -1.0):
        with pytest.raises(ValueError, match=r"`lam1`.*positive"):
            max_learning_rate(lam, 1.0, 8)
    for size in (0, 101):
        with pytest.raises(ValueError, match="`batch_size`"):
            max_learning_rate(1.0, 1.0, size, 100)
    with pytest.raises(ValueError, match=r"`noise`.*at least zero"):
        max_learning_rate(1.0, -1.0, 8)
    with pytest.raises(ValueError, match="`damping`"):
        max_learning_rate(1.0, 1.0, 8, rule="adaptive")
    with pytest.raises(ValueError, match=r"`rule`.*'sgd'"):
        max_learning_rate(1.0, 1.0, 8, rule="adam")
    with pytest.raises(ValueError, match="`lam1` and `noise`"):
        scale_learning_rate(0.1, 8, 16, rule="spiked")
    with pytest.raises(ValueError, match="`to_batch`"):
        scale_learning_rate(0.1, 8, 0)
    with pytest.raises(ValueError, match=r"`eigenvalues`.*positive"):
        mean_square_limit(jnp.asarray([0.0, 1.0]), 1.0)
    with pytest.raises(ValueError, match=r"`mu`.*at most `L`"):
        heavy_ball(1.0, 2.0)
