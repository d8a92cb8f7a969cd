"""The damped generalised Gauss-Newton matrix of a data set, exact and matrix-free.

    G + lambda I,   G = 1/N sum_i J_i^T H_i J_i,

J_i the Jacobian of the model at example i in the parameters, H_i the Hessian of its loss in the
outputs (Schraudolph 2002). With a softmax or Gaussian likelihood G is the Fisher matrix.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, PyTree

from ..._base import check_at_least, check_nonnegative
from .._operators import damped_operator, ggn_operator
from .._symmetric_operator import SymmetricOperator
from ._batches import leading_size
from ._output_losses import output_loss


def exact_ggn(
    model_fn: Callable[[PyTree, PyTree], PyTree],
    loss: Any,
    params: PyTree,
    data: tuple[PyTree, PyTree],
    damping: ArrayLike = 0.0,
    *,
    batch_size: int | None = None,
) -> lx.AbstractLinearOperator:
    """The matrix G + `damping` I as a linear operator on trees like `params`.

    What every Kronecker-factored curvature approximates, for models small enough to afford it: use
    it as `curv` in [`pairwise`][jaxsci.curvature.influence.pairwise], solve with `lineax.CG`, or
    form it with `.as_matrix()`.

    **Arguments:**

    - `model_fn`: `model_fn(params, x) -> outputs` on one example.
    - `loss`: "softmax" (integer labels; negative ones are ignored), "mse" (half the squared
        error), "bernoulli", an object with a method `loss`, or a function `(outputs, y) -> scalar`,
        convex in the outputs.
    - `params`: pytree of real floating arrays.
    - `data`: `(inputs, targets)`, pytrees with one leading axis of length N.
    - `damping`: lambda, at least zero.
    - `batch_size`: how many examples to differentiate at once. `None` linearises the model once
        for all of them, which is fastest and holds the intermediate values of the whole data set;
        a number linearises anew, batch by batch, in every product.

    **Returns:**

    A lineax operator, tagged positive semidefinite.

    **Raises:**

    `ValueError` if `damping` is negative, the leading axes of `data` differ, or `loss` is unknown.
    """
    check_nonnegative("damping", damping)
    loss_fn = output_loss(loss)
    inputs, targets = data
    size = leading_size("data", (inputs, targets))

    @jax.jit  # else, with no batches, the model would be linearised operation by operation
    def outputs_of(p: PyTree, batch: PyTree) -> PyTree:
        return jax.vmap(lambda x: model_fn(p, x))(batch[0])

    def mean_loss(outputs: PyTree, batch: PyTree) -> Array:
        return jnp.mean(jax.vmap(loss_fn)(outputs, batch[1]))

    if batch_size is None:
        whole = ggn_operator(lambda p: outputs_of(p, data), lambda z: mean_loss(z, data), params)
        return damped_operator(whole, damping)
    check_at_least("batch_size", batch_size, 1)
    width = min(batch_size, size)
    full = size - size % width

    def over(batches: PyTree) -> lx.AbstractLinearOperator:
        return ggn_operator(outputs_of, mean_loss, params, batches=batches)

    operator = over(jax.tree.map(lambda a: a[:full].reshape(-1, width, *a.shape[1:]), data))
    if full < size:
        first, rest = operator, over(jax.tree.map(lambda a: a[None, full:], data))

        def product(v: PyTree) -> PyTree:
            share = full / size
            mix = lambda a, b: share * a + (1 - share) * b
            return jax.tree.map(mix, first.mv(v), rest.mv(v))

        operator = SymmetricOperator(product, params, positive=True)
    return damped_operator(operator, damping)
