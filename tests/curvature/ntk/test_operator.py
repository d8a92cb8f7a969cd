import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsci.curvature import ntk

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 3))
PARAMS = {"w": jax.random.normal(KEY, (5, 3)), "v": jax.random.normal(KEY, (2, 5))}


def fn(params, x):
    return params["v"] @ jnp.tanh(params["w"] @ x)


def dense_kernel():
    jacobian = jax.vmap(jax.jacrev(fn), (None, 0))(PARAMS, X)
    flat = jnp.concatenate([j.reshape(4, 2, -1) for j in jax.tree.leaves(jacobian)], -1)
    return jnp.einsum("nip,mjp->nimj", flat, flat).reshape(8, 8)


def test_the_operator_multiplies_by_the_kernel():
    operator = ntk.ntk_operator(fn, PARAMS, X)
    v = jax.random.normal(KEY, (4, 2))
    np.testing.assert_allclose(operator.mv(v).ravel(), dense_kernel() @ v.ravel(), rtol=1e-12)
    np.testing.assert_allclose(operator.as_matrix(), dense_kernel(), atol=1e-12)
    assert lx.is_positive_semidefinite(operator)
    assert lx.is_symmetric(operator)


def test_conjugate_gradients_solve_with_a_ridge_inside_jit():
    y = jax.random.normal(jax.random.key(1), (4, 2))

    @jax.jit
    def solve(params, ridge):
        operator = ntk.ntk_operator(fn, params, X, ridge=ridge)
        return lx.linear_solve(operator, y, lx.CG(rtol=1e-10, atol=1e-12)).value

    expected = np.linalg.solve(dense_kernel() + 0.3 * np.eye(8), y.ravel())
    np.testing.assert_allclose(solve(PARAMS, 0.3).ravel(), expected, rtol=1e-7)


def test_float32_stays_float32():
    params, x = jax.tree.map(lambda v: v.astype(jnp.float32), (PARAMS, X))
    assert ntk.ntk_operator(fn, params, x, ridge=0.1).mv(jnp.ones((4, 2), jnp.float32)).dtype == (
        jnp.float32
    )


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`ridge` must be at least zero"):
        ntk.ntk_operator(fn, PARAMS, X, ridge=-1.0)
    with pytest.raises(TypeError, match="must return one array"):
        ntk.ntk_operator(lambda p, x: (fn(p, x),), PARAMS, X)  # pyright: ignore[reportArgumentType]
