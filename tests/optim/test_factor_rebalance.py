"""The rescaling of factors as an optax transform, against `rebalance` and `recover`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci.optim import factor_rebalance, lowrank

N, K, AT, BETA, LR = 12, 3, 40, 0.7, 0.1
Q = np.linalg.qr(np.random.default_rng(0).normal(size=(N, 2)))[0]
M = jnp.asarray(Q * np.array([1.0, 0.6]) @ Q.T)
START = lowrank.init_asymmetric(jax.random.key(1), N, N, K, 0.3)


def loss(p):
    return lowrank.asymmetric_loss(p[0], p[1], lowrank.Identity(), M)


def descend(tx, params, steps, loss=loss):
    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def test_a_chain_with_gradient_descent_is_recover():
    tx = optax.chain(optax.sgd(LR), factor_rebalance(AT, BETA))
    got = descend(tx, START, 101)
    # The change takes a step of its own.
    want = lowrank.recover(
        lowrank.Identity(), M, (N, N), K, "rescaled", LR, 100, 0.3, AT, BETA, init=START
    )
    np.testing.assert_allclose(got[0] @ got[1].T, want.matrix, atol=1e-12)


def test_the_step_of_the_change_keeps_the_product_and_drops_the_gradient():
    tx = factor_rebalance(0, BETA)
    junk = jax.tree.map(jnp.ones_like, START)
    updates, state = tx.update(junk, tx.init(START), START)
    f, g = optax.apply_updates(START, updates)
    np.testing.assert_allclose(f @ g.T, START[0] @ START[1].T, atol=1e-14)
    np.testing.assert_allclose(f.T @ f, BETA**2 * np.eye(K), atol=1e-12)
    later, _ = tx.update(junk, state, START)
    jax.tree.map(np.testing.assert_array_equal, later, junk)


def test_select_finds_the_factors_in_a_larger_model():
    params = {"bias": jnp.ones(2), "inner": {"right": START[1], "left": START[0]}}
    select = lambda p: (p["inner"]["left"], p["inner"]["right"])
    tx = factor_rebalance(0, BETA, select)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["bias"], 1)
    f, _ = select(optax.apply_updates(params, updates))
    np.testing.assert_allclose(f.T @ f, BETA**2 * np.eye(K), atol=1e-12)


def test_its_numbers_can_be_injected():
    tx = optax.inject_hyperparams(factor_rebalance, static_args="select")(at_step=0, beta=BETA)
    updates, _ = jax.jit(tx.update)(START, tx.init(START), START)
    f = START[0] + updates[0]
    np.testing.assert_allclose(f.T @ f, BETA**2 * np.eye(K), atol=1e-12)


def test_single_precision_stays_single():
    params = jax.tree.map(lambda x: x.astype(jnp.float32), START)
    tx = factor_rebalance(0, BETA)
    updates, _ = tx.update(params, tx.init(params), params)
    assert {u.dtype for u in updates} == {jnp.dtype(jnp.float32)}


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`beta` must be positive"):
        factor_rebalance(3, 0.0)
    with pytest.raises(ValueError, match="`at_step` must be at least 0"):
        factor_rebalance(-1, 1.0)
    tx = factor_rebalance(0, 1.0)
    with pytest.raises(ValueError, match="needs `params`"):
        tx.update(START, tx.init(START))
    three = (*START, START[0])
    with pytest.raises(ValueError, match="exactly two arrays"):
        tx.update(three, tx.init(three), three)
