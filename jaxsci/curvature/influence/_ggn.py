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

    def linearized(batch):
        """The outputs at the batch, and the functions v -> J v and u -> J^T u."""
        # Compiled as one: called outside `jax.jit`, it would otherwise run operation by operation.
        outputs_at = jax.jit(lambda p: jax.vmap(lambda x: model_fn(p, x))(batch))
        outputs, jvp = jax.linearize(outputs_at, params)
        return outputs, jvp, lambda u: jax.linear_transpose(jvp, params)(u)[0]

    def output_hvp(outputs, targets, u):
        total = lambda h: jnp.sum(jax.vmap(loss_fn)(h, targets))
        return jax.jvp(jax.grad(total), (outputs,), (u,))[1]

    def one_pass():
        outputs, jvp, vjp = linearized(inputs)
        return lambda v: vjp(output_hvp(outputs, targets, jvp(v)))

    def batched(width: int):
        full = size - size % width
        chunks = jax.tree.map(lambda a: a[:full].reshape(-1, width, *a.shape[1:]), data)
        rest = jax.tree.map(lambda a: a[full:], data)

        def product(v):
            def add(total, batch):
                x, y = batch
                outputs, jvp, vjp = linearized(x)
                return jax.tree.map(jnp.add, total, vjp(output_hvp(outputs, y, jvp(v)))), None

            total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, v), chunks)
            return add(total, rest)[0] if full < size else total

        return product

    if batch_size is None:
        product = one_pass()
    else:
        check_at_least("batch_size", batch_size, 1)
        product = batched(min(batch_size, size))

    def damped(v: PyTree) -> PyTree:
        def combine(gv: Array, v: Array) -> Array:
            return gv / size + jnp.asarray(damping, v.dtype) * v

        return jax.tree.map(combine, product(v), v)

    structure = jax.eval_shape(lambda: params)
    return lx.FunctionLinearOperator(damped, structure, lx.positive_semidefinite_tag)


def add_damping(operator: lx.AbstractLinearOperator, damping: ArrayLike):
    """`operator + damping I`, still tagged positive semidefinite."""

    def damped(v: PyTree) -> PyTree:
        add = lambda a, b: a + jnp.asarray(damping, b.dtype) * b
        return jax.tree.map(add, operator.mv(v), v)

    return lx.FunctionLinearOperator(damped, operator.in_structure(), lx.positive_semidefinite_tag)
