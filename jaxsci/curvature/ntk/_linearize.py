"""The model linear in its parameters, f(p_0) + J (p - p_0), and its training."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..._base import check_at_least, check_choice, check_positive
from ._parts import num_points, output_of, split_parameters


def _difference(params: PyTree, start: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, params, start)


def linearize(
    fn: Callable[[PyTree, PyTree], Array], params: PyTree
) -> Callable[[PyTree, PyTree], Array]:
    """`fn` replaced by its first-order Taylor polynomial in the parameters at `params`.

    The result has the signature of `fn`, so whatever trains the one trains the other; it costs one
    Jacobian-vector product (Lee et al. 2019, arXiv:1902.06720, equation 5).

    **Arguments:**

    - `fn`: `(params, x) -> array`, or a pytree of arrays.
    - `params`: pytree, the point of expansion; its floating array leaves are the parameters.

    **Returns:**

    `(params, x) -> fn(params_0, x) + J(x) (params - params_0)`.
    """
    inner, start = split_parameters(fn, params)

    def linear(new_params: PyTree, x: PyTree) -> PyTree:
        _, new = split_parameters(fn, new_params)
        value, slope = jax.jvp(lambda p: inner(p, x), (start,), (_difference(new, start),))
        return jax.tree.map(jnp.add, value, slope)

    return linear


def linearized_training(
    fn: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    x: PyTree,
    y: Float[Array | np.ndarray, "n ..."],
    *,
    lr: ArrayLike,
    num_steps: int,
    reduction: str = "sum",
) -> PyTree:
    """Parameters after gradient descent of the linearised model on the square loss.

    The loss is 1/2 sum (f - y)^2, or its mean over all outputs of all points. On the training
    points the outcome is `gradient_descent_mse` with `discrete=True`; the parameters give it
    everywhere else, through `linearize`.

    **Arguments:**

    - `fn`: `(params, x) -> array` on one point, of shape `out`.
    - `params`: pytree; its floating array leaves are trained.
    - `x`: points stacked along the leading axis, (n, ...).
    - `y`: targets, (n, *out).
    - `lr`: learning rate.
    - `num_steps`: number of steps.
    - `reduction`: "sum" or "mean".

    **Returns:**

    A pytree like `params`.

    **Raises:**

    `ValueError` if the shapes do not match or an option is not known.
    """
    check_choice("reduction", reduction, ("sum", "mean"))
    check_at_least("num_steps", num_steps, 0)
    check_positive("lr", lr)
    inner, start = split_parameters(fn, params)
    shape = (num_points("x", x), *output_of(inner, start, x).shape)
    if y.shape != shape:
        raise ValueError(f"`y` must have the shape of the outputs, {shape}, got {y.shape}.")
    first, forward = jax.linearize(lambda p: jax.vmap(inner, in_axes=(None, 0))(p, x), start)
    backward = jax.linear_transpose(forward, start)
    rate = jnp.asarray(lr, first.dtype) / (y.size if reduction == "mean" else 1)

    def step(change, _):
        (gradient,) = backward(first + forward(change) - y)
        return jax.tree.map(lambda c, g: c - rate.astype(g.dtype) * g, change, gradient), None

    change, _ = jax.lax.scan(step, jax.tree.map(jnp.zeros_like, start), None, length=num_steps)
    return eqx.combine(jax.tree.map(jnp.add, start, change), params)
