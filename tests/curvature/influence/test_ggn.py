import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsci.curvature.influence import exact_ggn


def model(params, x):
    return params["w2"] @ jnp.tanh(params["w1"] @ x + params["b1"])


@functools.cache
def problem(dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "w1": jax.random.normal(keys[0], (4, 3), dtype),
        "b1": jax.random.normal(keys[1], (4,), dtype),
        "w2": jax.random.normal(keys[2], (3, 4), dtype),
        "unused": None,
    }
    x = jax.random.normal(keys[3], (11, 3), dtype)
    labels = jax.random.randint(keys[4], (11,), 0, 3)
    return params, x, labels


@functools.cache
def jacobians():
    params, x, _ = problem()
    flat, unravel = ravel_pytree(params)
    f = lambda p, xi: model(unravel(p), xi)
    both = jax.jit(jax.vmap(lambda xi: (jax.jacrev(f)(flat, xi), f(flat, xi))))
    return jax.tree.map(np.asarray, both(x))


def dense(loss_hessian):
    """1/N sum_i J_i^T H_i J_i from Jacobians and a formula for the output Hessian."""
    return np.mean([j.T @ loss_hessian(f) @ j for j, f in zip(*jacobians(), strict=True)], axis=0)


def softmax_hessian(logits):
    p = np.exp(logits) / np.exp(logits).sum()
    return np.diag(p) - np.outer(p, p)


def test_softmax_matrix_is_the_mean_of_j_h_j_plus_damping():
    params, x, labels = problem()
    ours = exact_ggn(model, "softmax", params, (x, labels), 0.3).as_matrix()
    np.testing.assert_allclose(ours, dense(softmax_hessian) + 0.3 * np.eye(len(ours)), atol=1e-12)


@pytest.mark.parametrize("loss", ["mse", lambda f, y: jnp.sum((f - y) ** 2) / 2])
def test_squared_error_matrix_is_the_mean_of_j_j(loss):
    params, x, _ = problem()
    ours = exact_ggn(model, loss, params, (x, jnp.ones((11, 3)))).as_matrix()
    np.testing.assert_allclose(ours, dense(lambda f: np.eye(len(f))), atol=1e-12)


def test_batched_products_equal_the_one_pass_product():
    params, x, labels = problem()
    whole = exact_ggn(model, "softmax", params, (x, labels), 0.1)
    parts = exact_ggn(model, "softmax", params, (x, labels), 0.1, batch_size=4)
    v = jax.tree.map(jnp.ones_like, params)
    products = jax.jit(lambda v: (whole.mv(v), parts.mv(v)))(v)
    for a, b in zip(*map(jax.tree.leaves, products), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    assert lx.is_positive_semidefinite(whole)


def test_products_keep_float32():
    params, x, labels = problem(jnp.float32)
    operator = exact_ggn(model, "softmax", params, (x, labels), jnp.asarray(0.1, jnp.float64))
    product = jax.jit(lambda v: operator.mv(v))(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(product)} == {jnp.dtype(jnp.float32)}


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    params, x, labels = problem()
    with pytest.raises(ValueError, match="damping"):
        exact_ggn(model, "softmax", params, (x, labels), -1.0)
    with pytest.raises(ValueError, match="leading axes"):
        exact_ggn(model, "softmax", params, (x, labels[:3]))
    with pytest.raises(ValueError, match="loss"):
        exact_ggn(model, "hinge", params, (x, labels))
    with pytest.raises(ValueError, match="batch_size"):
        exact_ggn(model, "softmax", params, (x, labels), batch_size=0)
