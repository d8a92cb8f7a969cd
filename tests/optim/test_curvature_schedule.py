"""The controller on quadratics with chosen spectra, and in a training loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci.optim import (
    curvature_schedule,
    estimate_sharpness,
    LearningRateAndMomentum,
    rates_from_sharpness,
    SharpnessEstimate,
)

rng = np.random.default_rng(0)
SPECTRUM = np.array([10.0, 1.0, 0.5, 0.25, 0.25, 0.25])
Q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
N, B = 96, 16
# Each example is a quadratic whose Hessian is H plus noise of mean zero.
_noise = rng.normal(size=(N, 6, 6))
_noise = 0.3 * (_noise + _noise.transpose(0, 2, 1))
H = (Q * SPECTRUM) @ Q.T
DATA = jnp.asarray(H + _noise - _noise.mean(axis=0))
PARAMS = {"a": jnp.ones((2, 2)), "b": jnp.ones(2)}


def loss(params, batch):
    x = jnp.concatenate([params["a"].ravel(), params["b"]])
    return 0.5 * jnp.mean(jnp.einsum("i,nij,j->n", x, batch, x))


@pytest.fixture(scope="module")
def estimates():
    return jax.jit(
        jax.vmap(lambda k: estimate_sharpness(loss, PARAMS, DATA, k, B, num_batches=40))
    )(jax.random.split(jax.random.key(1), 64))


def test_the_estimate_finds_sharpness_noise_and_mean_curvature(estimates):
    np.testing.assert_allclose(estimates.lam1, 10.0, rtol=1e-9)
    along = np.sum(((DATA - H) @ Q[:, 0]) ** 2, axis=1)
    np.testing.assert_allclose(np.mean(estimates.noise), np.mean(along) * N / (N - 1), rtol=0.03)
    # A probe of signs: unbiased for the mean over directions.
    spread = np.std(estimates.mean_abs) / 8
    assert abs(np.mean(estimates.mean_abs) - SPECTRUM.mean()) < 4 * spread


ESTIMATE = SharpnessEstimate(*(jnp.asarray(x) for x in (10.0, 8.0, 2.0)))


def test_the_rates_are_their_formulas_of_the_estimate():
    sharpness = 10 + 8 * (1 / B - 1 / N) / 10
    plain = rates_from_sharpness(ESTIMATE, B, N, momentum=False)
    np.testing.assert_allclose(plain, [0.7 * 2 / sharpness, 0], rtol=1e-12)
    got = rates_from_sharpness(ESTIMATE, B, N)
    a, b = np.sqrt(sharpness), np.sqrt(2)
    want = [0.25 * (2 / (a + b)) ** 2, ((a - b) / (a + b)) ** 2]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert rates_from_sharpness(ESTIMATE, B, smallest=1e-9, max_momentum=0.9).momentum == 0.9
    flat = SharpnessEstimate(jnp.float32(-1.0), jnp.float32(0.0), jnp.float32(1.0))
    floor = rates_from_sharpness(flat, B, momentum=False)
    np.testing.assert_allclose(floor.learning_rate, 1400.0, rtol=1e-6)
    assert floor.learning_rate.dtype == floor.momentum.dtype == jnp.float32


def test_a_refresh_changes_the_learning_rate_by_no_more_than_a_factor():
    free = rates_from_sharpness(ESTIMATE, B, N)
    for before, bound in ((100.0, 50.0), (1e-6, 2e-6)):
        previous = LearningRateAndMomentum(jnp.asarray(before), jnp.asarray(0.5))
        got = rates_from_sharpness(ESTIMATE, B, N, previous=previous)
        np.testing.assert_allclose(got, [bound, free.momentum])


def test_an_estimate_that_is_not_finite_leaves_the_rates_as_they_were():
    broken = SharpnessEstimate(jnp.asarray(jnp.nan), jnp.asarray(1.0), jnp.asarray(jnp.inf))
    previous = LearningRateAndMomentum(jnp.asarray(0.07), jnp.asarray(0.5))
    assert rates_from_sharpness(broken, B, N, previous=previous) == previous
    assert np.all(np.isnan(rates_from_sharpness(broken, B, N)))


def test_full_batch_descent_with_its_rates_solves_a_quadratic():
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.0)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, DATA), state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(key):
        chosen = curvature_schedule(loss, PARAMS, DATA, key, N, scale=1.0, smallest=0.25)
        state = tx.init(PARAMS)
        state.hyperparams.update(chosen._asdict())
        return chosen, jax.lax.scan(step, (PARAMS, state), None, length=120)[0][0]

    chosen, params = train(jax.random.key(0))
    np.testing.assert_allclose(chosen.learning_rate, (2 / (10**0.5 + 0.5)) ** 2, rtol=1e-9)
    assert loss(params, DATA) < 1e-12 * loss(PARAMS, DATA)


@pytest.mark.slow
def test_refreshed_every_epoch_it_trains_a_network_without_tuning():
    x = jnp.asarray(rng.normal(size=(1024, 8)), jnp.float32)
    y = jnp.argmax(jnp.tanh(x @ jnp.asarray(rng.normal(size=(8, 5)), jnp.float32)), axis=1)
    params = {
        "w": jnp.asarray(rng.normal(size=(8, 24)) / 8**0.5, jnp.float32),
        "v": jnp.asarray(rng.normal(size=(24, 5)) / 24**0.5, jnp.float32),
    }

    def loss_fn(p, batch):
        logits = jnp.tanh(batch[0] @ p["w"]) @ p["v"]
        ce = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return jnp.mean(ce) + 2.5e-4 * sum(jnp.sum(q**2) for q in p.values())

    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.0)

    @jax.jit
    def epoch(params, state, key):
        def step(carry, indices):
            params, state = carry
            grads = jax.grad(loss_fn)(params, (x[indices], y[indices]))
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        order = jax.random.permutation(key, 1024).reshape(-1, 64)
        return jax.lax.scan(step, (params, state), order)[0]

    refresh = jax.jit(lambda p, k, r: curvature_schedule(loss_fn, p, (x, y), k, 64, previous=r))
    first, state, chosen = loss_fn(params, (x, y)), tx.init(params), None
    for i in range(15):
        key = jax.random.fold_in(jax.random.key(0), i)
        chosen = refresh(params, key, chosen)
        assert chosen.learning_rate.dtype == jnp.float32
        state.hyperparams.update(chosen._asdict())
        params, state = epoch(params, state, key)
    assert loss_fn(params, (x, y)) < 0.35 * first


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    call = partial(curvature_schedule, loss, PARAMS, DATA, jax.random.key(0))
    with pytest.raises(ValueError, match=r"`batch_size`.*at most the number of examples"):
        call(N + 1)
    with pytest.raises(ValueError, match=r"`batch_size`.*at least 1"):
        call(0)
    with pytest.raises(ValueError, match="`num_steps`"):
        call(B, num_steps=0)
    for name, value in (("max_momentum", 1.0), ("scale", -1.0), ("max_change", 0.5)):
        with pytest.raises(ValueError, match=f"`{name}`"):
            rates_from_sharpness(ESTIMATE, B, **{name: value})
    with pytest.raises(ValueError, match=r"`rule`.*'spiked'"):
        rates_from_sharpness(ESTIMATE, B, rule="linear")
