from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsci.optim.pruning import apply_mask


def test_dropped_weights_stay_at_zero_under_momentum_and_decay():
    p: Any = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    mask = {"w": p["w"] != 0}
    tx: Any = optax.chain(optax.adamw(0.1), apply_mask(mask))
    state = tx.init(p)
    for _ in range(3):
        u, state = tx.update({"w": jnp.ones((2, 2))}, state, p)
        p = optax.apply_updates(p, u)
    assert np.all(p["w"][0, 0] < 1.0)
    np.testing.assert_array_equal(p["w"] == 0, ~mask["w"])


def test_a_dropped_weight_that_is_not_zero_becomes_zero():
    p = jnp.array([0.3, -0.7])
    tx: Any = apply_mask(jnp.array([False, True]))
    u, _ = tx.update(jnp.ones(2), tx.init(p), p)
    moved: Any = optax.apply_updates(p, u)
    assert moved[0] == 0
    np.testing.assert_allclose(moved[1], 0.3)


def test_without_parameters_the_updates_are_masked():
    tx: Any = apply_mask({"w": jnp.array([False, True])})
    u, _ = tx.update({"w": jnp.ones(2)}, tx.init(None))
    np.testing.assert_array_equal(u["w"], [0.0, 1.0])


def test_it_compiles_and_keeps_float32():
    p = jnp.ones(2, jnp.float32)
    tx: Any = apply_mask(jnp.array([False, True]))
    u, _ = jax.jit(tx.update)(p, tx.init(p), p)
    assert u.dtype == jnp.float32
