"""The empirical tangent kernel as a linear operator: T v = J (J^T v), never formed."""

from collections.abc import Callable

import jax
import lineax as lx
from jaxtyping import Array, ArrayLike, PyTree

from ..._base import check_nonnegative
from .._operators import damped_operator
from .._symmetric_operator import SymmetricOperator
from ._parts import num_points, output_of, split_parameters


def ntk_operator(
    fn: Callable[[PyTree, PyTree], Array], params: PyTree, x: PyTree, *, ridge: ArrayLike = 0.0
) -> lx.AbstractLinearOperator:
    """The neural tangent kernel of `fn` between the points `x`, as a lineax operator.

    The function is linearised once; a product costs one backward and one forward pass over all
    points, and memory of the size of the parameters and of the outputs. Solve with `lineax.CG`.

    **Arguments:**

    - `fn`: `(params, x) -> array` on one point; real floating, any shape `out`.
    - `params`: pytree; its floating array leaves are the parameters.
    - `x`: points stacked along the leading axis, (n, ...).
    - `ridge`: a multiple of the identity to add, at least zero.

    **Returns:**

    A positive semidefinite operator on arrays of shape (n, *out).

    **Raises:**

    `TypeError` if `fn` does not return one real array or a parameter is complex; `ValueError` for a
    negative `ridge`.
    """
    check_nonnegative("ridge", ridge)
    fn, params = split_parameters(fn, params)
    n, out = num_points("x", x), output_of(fn, params, x)
    _, forward = jax.linearize(lambda p: jax.vmap(fn, in_axes=(None, 0))(p, x), params)
    backward = jax.linear_transpose(forward, params)
    structure = jax.ShapeDtypeStruct((n, *out.shape), out.dtype)
    kernel = SymmetricOperator(lambda v: forward(*backward(v)), structure, positive=True)
    return damped_operator(kernel, ridge)
