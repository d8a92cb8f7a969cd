"""Hutchinson's estimators: the diagonal and the trace of a matrix known by its products only.

With a Rademacher probe v, d = v * (H v) has E[d_i] = H_ii and Var[d_i] = sum_{j != i} H_ij^2, and
v . (A v) has mean tr(A); n probes divide the variance by n.

Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix for Laplacian
smoothing splines"; Bekas, Kokiopoulou and Saad 2007, "An estimator for the diagonal of a matrix".
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Key, PyTree

from jaxsci._base import at_least_float32, check_at_least

from ._objectives import scalar_valued
from ._probes import average_over_probes, rademacher_like


def value_grad_and_diag(
    obj_fn: Callable[[PyTree], Any], params: PyTree, key: Key[Array, ""], num_samples: int = 1
) -> tuple[Float[Array, ""], PyTree, PyTree]:
    """The value, the gradient and Hutchinson's estimate of the Hessian diagonal, in one pass.

    The products share the gradient, and several probes share one linearisation; they run one after
    the other, so memory does not grow with their number.

    **Arguments:**

    - `obj_fn`: `params -> scalar`.
    - `params`: pytree of real floating arrays.
    - `key`: a typed key. The probes are `rademacher_like(k, params)` for k in
        `jax.random.split(key, num_samples)`.
    - `num_samples`: the number of probes.

    **Returns:**

    `(value, grad, diag)`. `grad` is like `params`; `diag` too, except that leaves of less than
    32 bits are averaged and returned in float32.

    **Raises:**

    `ValueError` if `obj_fn` does not return a scalar or `num_samples < 1`; `TypeError` if a leaf of
    `params` is not a real floating array.
    """
    check_at_least("num_samples", num_samples, 1)
    value_and_grad = jax.value_and_grad(scalar_valued(obj_fn))

    def diag_of(product: PyTree, v: PyTree) -> PyTree:
        return jax.tree.map(lambda hv, s: hv.astype(at_least_float32(s)) * s, product, v)

    if num_samples == 1:
        # jvp, not linearize: it stores nothing between the gradient and its derivative.
        (v_key,) = jax.random.split(key, 1)
        v = rademacher_like(v_key, params)
        (value, grad), (_, hv) = jax.jvp(value_and_grad, (params,), (v,))
        return value, grad, diag_of(hv, v)

    (value, grad), tangent_of = jax.linearize(value_and_grad, params)

    def sample(k):
        v = rademacher_like(k, params)
        return diag_of(tangent_of(v)[1], v)

    return value, grad, average_over_probes(sample, params, key, num_samples)


def hutchinson_diag(
    obj_fn: Callable[[PyTree], Any], params: PyTree, key: Key[Array, ""], num_samples: int = 1
) -> PyTree:
    """Hutchinson's unbiased estimate of the diagonal of the Hessian of `obj_fn` at `params`.

    **Arguments:**

    - `obj_fn`: `params -> scalar`.
    - `params`: pytree of real floating arrays.
    - `key`: a typed key.
    - `num_samples`: the number of probes; each costs one Hessian-vector product, and the variance
        of entry i is the sum of the squares of the rest of row i, divided by `num_samples`.

    **Returns:**

    A pytree like `params` (leaves of less than 32 bits come back in float32). For a diagonal
    Hessian it is exact.

    **Raises:**

    As `value_grad_and_diag`.
    """
    return value_grad_and_diag(obj_fn, params, key, num_samples)[2]


def hutchinson_trace(
    operator: lx.AbstractLinearOperator | Callable[[PyTree], PyTree],
    key: Key[Array, ""],
    num_samples: int = 1,
    *,
    structure: PyTree = None,
) -> Float[Array, ""]:
    """Hutchinson's unbiased estimate of the trace of a square linear operator.

    **Arguments:**

    - `operator`: a lineax operator, or its matrix-vector product as a function.
    - `key`: a typed key.
    - `num_samples`: the number of probes. For a symmetric operator the variance is twice the sum
        of its squared off-diagonal entries, divided by `num_samples`.
    - `structure`: for a function, a vector it accepts: a pytree of arrays or of
        `jax.ShapeDtypeStruct`. A lineax operator knows its own.

    **Returns:**

    A scalar, in the dtype of the products and at least float32.

    **Raises:**

    `ValueError` if `num_samples < 1`, if `structure` is missing, or if the operator is not square.
    """
    check_at_least("num_samples", num_samples, 1)
    if isinstance(operator, lx.AbstractLinearOperator):
        matvec, structure = operator.mv, operator.in_structure()
    elif structure is None:
        raise ValueError("`structure` is needed when `operator` is a function, got None.")
    else:
        matvec = operator
    image = jax.eval_shape(matvec, structure)
    shapes = [jax.tree.map(jnp.shape, t) for t in (structure, image)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`operator` must be square, got one from shapes {shapes[0]} to {shapes[1]}."
        )
    dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(image)))

    def sample(k):
        v = rademacher_like(k, structure)
        products = jax.tree.map(lambda a, b: jnp.sum(a.astype(dtype) * b), v, matvec(v))
        return sum(jax.tree.leaves(products), jnp.zeros((), dtype))

    return average_over_probes(sample, jnp.zeros((), dtype), key, num_samples)
