"""Starts and the rescaling of factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.optim.lowrank import init_asymmetric, init_symmetric, rebalance

RNG = np.random.default_rng(0)
LEFT, RIGHT = (jnp.asarray(0.1 * RNG.normal(size=(n, 4))) for n in (12, 9))


def test_rescaling_keeps_the_product_and_makes_the_columns_orthogonal():
    left, right = rebalance(LEFT, RIGHT, 0.7)
    np.testing.assert_allclose(left @ right.T, LEFT @ RIGHT.T, atol=1e-14)
    np.testing.assert_allclose(left.T @ left, 0.49 * np.eye(4), atol=1e-12)


def test_rescaling_moves_the_singular_values_of_the_left_factor_to_the_right_one():
    u, s, vt = np.linalg.svd(np.asarray(LEFT), full_matrices=False)
    left, right = rebalance(LEFT, RIGHT, 0.7)
    np.testing.assert_allclose(left @ left.T, 0.49 * u @ u.T, atol=1e-13)
    np.testing.assert_allclose(right.T @ right, (w := RIGHT @ vt.T * s / 0.7).T @ w, atol=1e-13)


def test_rescaling_is_differentiable():
    def f(left):
        new_left, new_right = rebalance(left, RIGHT, 0.7)
        return jnp.sum((new_left.T @ new_left) ** 2) + jnp.sum(jnp.cos(new_left @ new_right.T))

    # The first term is constant and the product is kept: only F G^T depends on F.
    want = -np.sin(LEFT @ RIGHT.T) @ RIGHT
    np.testing.assert_allclose(jax.jit(jax.grad(f))(LEFT), want, atol=1e-10)


def test_rescaling_maps_over_a_batch():
    stack = jnp.stack([LEFT, 2 * LEFT])
    left, right = jax.jit(jax.vmap(rebalance, in_axes=(0, None, None)))(stack, RIGHT, 0.5)
    want = stack @ RIGHT.T
    np.testing.assert_allclose(left @ jnp.swapaxes(right, 1, 2), want, atol=1e-14)


def test_starts_are_independent_normal_with_the_stated_scales():
    x = np.asarray(init_symmetric(jax.random.key(1), 400, 50, 0.2))
    np.testing.assert_allclose(np.std(x), 0.2 / 20, rtol=0.02)
    left, right = (np.asarray(z) for z in init_asymmetric(jax.random.key(1), 400, 400, 50, 0.2))
    np.testing.assert_allclose(np.std(left), 0.2 / 20, rtol=0.02)
    np.testing.assert_allclose(np.std(right), 0.2 / 60, rtol=0.02)
    assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 0.03


def test_single_precision_stays_single():
    start = init_asymmetric(jax.random.key(0), 12, 9, 4, 0.3, dtype=jnp.float32)
    left, right = rebalance(*start, 0.7)
    assert {x.dtype for x in (*start, left, right)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(left.T @ left, 0.49 * np.eye(4), atol=1e-6)


@pytest.mark.bad_input
def test_bad_factors_and_scales_are_refused():
    with pytest.raises(ValueError, match="`beta` must be positive"):
        rebalance(LEFT, RIGHT, 0.0)
    with pytest.raises(ValueError, match="`F` must have full column rank"):
        rebalance(LEFT.at[:, 1].set(LEFT[:, 0]), RIGHT, 1.0)
    with pytest.raises(ValueError, match="`F` must have full column rank"):
        rebalance(0 * LEFT, RIGHT, 1.0)
    with pytest.raises(ValueError, match="same number of columns"):
        rebalance(LEFT, RIGHT[:, :3], 1.0)
    with pytest.raises(ValueError, match="`scale` must be positive"):
        init_symmetric(jax.random.key(0), 4, 2, 0.0)
    with pytest.raises(ValueError, match="`scale` must be positive"):
        init_asymmetric(jax.random.key(0), 4, 4, 2, -1.0)
    with pytest.raises(ValueError, match="`ratio` must be positive"):
        init_asymmetric(jax.random.key(0), 4, 4, 2, 1.0, ratio=0.0)
