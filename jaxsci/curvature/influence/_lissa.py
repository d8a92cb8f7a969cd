"""LiSSA: the inverse of a matrix as a fixed-point iteration of products with it."""

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, PyTree

from ..._base import check_at_least, check_positive


def lissa(
    operator: lx.AbstractLinearOperator, vector: PyTree, *, scale: ArrayLike, num_steps: int
) -> PyTree:
    """Solve A v = g by v <- v + (g - A v) / scale.

    The iteration of Agarwal, Bullins and Hazan 2017, "Second-order stochastic optimization for
    machine learning in linear time" (arXiv:1602.03943), with a fixed A. It converges if and only if
    `scale` exceeds half the largest eigenvalue of A; `lineax.CG` needs no such number and fewer
    products.

    **Arguments:**

    - `operator`: A, positive definite: a damped curvature such as
        [`exact_ggn`][jaxsci.curvature.influence.exact_ggn].
    - `vector`: g, a pytree as the operator takes.
    - `scale`: the divisor, positive.
    - `num_steps`: the number of iterations, each one product.

    **Returns:**

    The iterate after `num_steps` steps from zero, a pytree like `vector`.

    **Raises:**

    `ValueError` if `scale` is not positive or `num_steps < 1`.
    """
    check_positive("scale", scale)
    check_at_least("num_steps", num_steps, 1)

    def step(v: PyTree, _: Any) -> tuple[PyTree, None]:
        def move(v: Array, g: Array, av: Array) -> Array:
            return v + (g - av) / jnp.asarray(scale, v.dtype)

        return jax.tree.map(move, v, vector, operator.mv(v)), None

    zero = jax.tree.map(jnp.zeros_like, vector)
    return jax.lax.scan(step, zero, length=num_steps)[0]
