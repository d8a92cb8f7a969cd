"""Dual of an arbitrary smooth activation by Gauss-Hermite quadrature.

With (u, v) centred Gaussian of variances q, q' and covariance c,

    K = E[s(u) s(v)],    K' = E[s'(u) s'(v)],

u = sqrt(q) x and v = sqrt(q') (r x + sqrt(1 - r^2) y) with x, y independent standard normal and
r = c / sqrt(q q'). The derivative of an expectation E[f(u) g(v)] is taken by Price's theorem,

    d/dc = E[f' g'],    d/dq = E[f'' g] / 2,    d/dq' = E[f g''] / 2,

and not through the square roots, whose slope is infinite at r = 1 (Price 1958, "A useful theorem
for nonlinear devices having Gaussian inputs").
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from ..._base import check_at_least

Dual = Callable[[Array, Array, Array], tuple[Array, Array]]


def _normal_rule(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes and weights for the standard normal law (Golub and Welsch 1969)."""
    beside = np.sqrt(np.arange(1.0, num_nodes))
    nodes, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    weights = vectors[0] ** 2
    return nodes, weights / weights.sum()


def expectation(f: Callable, g: Callable, num_nodes: int) -> Callable[..., Array]:
    """`(q, q', c) -> E[f(u) g(v)]`, elementwise, differentiable to every order."""
    nodes, weights = _normal_rule(num_nodes)

    @jax.custom_jvp
    def mean(q: Array, q2: Array, c: Array) -> Array:
        dtype = jnp.result_type(q, q2, c)
        x, w = jnp.asarray(nodes, dtype), jnp.asarray(weights, dtype)
        root, root2 = jnp.sqrt(q), jnp.sqrt(q2)
        # v = along * x + across * y; a vanishing q has c = 0, and then any direction will do.
        along = jnp.where(q > 0, c / jnp.where(root > 0, root, 1), 0)
        across = jnp.sqrt(jnp.maximum(q2 - along**2, 0))
        # Rounding must not lift |along| over the standard deviation of v.
        along = jnp.clip(along, -root2, root2)

        def add(total, node):
            xi, wi = node
            inner = jnp.vectorize(g)(along[..., None] * xi + across[..., None] * x) @ w
            return total + wi * jnp.vectorize(f)(root * xi) * inner, None

        shape = jnp.broadcast_shapes(jnp.shape(q), jnp.shape(q2), jnp.shape(c))
        return jax.lax.scan(add, jnp.zeros(shape, dtype), (x, w))[0]

    def derivative(primals, tangents):
        df, dg = jax.grad(f), jax.grad(g)
        factors = ((jax.grad(df), g, 0.5), (f, jax.grad(dg), 0.5), (df, dg, 1.0))
        value = mean(*primals)
        slope = jnp.zeros_like(value)
        for tangent, (left, right, factor) in zip(tangents, factors, strict=True):
            # A variance that is held fixed costs no quadrature.
            if not isinstance(tangent, SymbolicZero):
                slope = slope + factor * expectation(left, right, num_nodes)(*primals) * tangent
        return value, slope

    mean.defjvp(derivative, symbolic_zeros=True)
    return mean


def dual_quadrature(fn: Callable, num_nodes: int = 64) -> Dual:
    """The dual of the activation `fn` by quadrature.

    Meant for smooth activations. Entire functions (erf, sin) need few nodes; for tanh the errors of
    (K, K_dot) are 1e-13 and 2e-12 at variance 0.5 with 64 nodes, 1e-8 and 2e-7 at variance 1.45,
    8e-11 and 2e-9 there with 100 nodes. A
    kink is seen only to the resolution of the nodes, and its second derivative not at all: use the
    closed forms of `dual` there.

    **Arguments:**

    - `fn`: scalar to scalar, differentiable by JAX.
    - `num_nodes`: Gauss-Hermite nodes a dimension; the cost is their square.

    **Returns:**

    `(q, q2, c) -> (K, K_dot)`: the expectations of `fn(u) fn(v)` and `fn'(u) fn'(v)` for centred
    Gaussian `u, v` of variances `q`, `q2` and covariance `c`; elementwise, with broadcasting.

    **Raises:**

    `ValueError` if `num_nodes < 1`; `TypeError` if `fn` is not callable.
    """
    if not callable(fn):
        raise TypeError(f"`fn` must be a function of one number, got {fn!r}.")
    check_at_least("num_nodes", num_nodes, 1)
    value = expectation(fn, fn, num_nodes)
    slope = expectation(jax.grad(fn), jax.grad(fn), num_nodes)

    def evaluate(q, q2, c):
        q, q2, c = jnp.broadcast_arrays(*(jnp.asarray(a) for a in (q, q2, c)))
        return value(q, q2, c), slope(q, q2, c)

    return evaluate
