"""The Hessian-vector product, forward over reverse.

H v = d/de grad f(params + e v) at e = 0 (Pearlmutter 1994, "Fast exact multiplication by the
Hessian"), at about twice the cost of one gradient and without forming H.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from ._objectives import scalar_valued


def hvp(obj_fn: Callable[[PyTree], Any], params: PyTree, v: PyTree) -> PyTree:
    """The product of the Hessian of `obj_fn` at `params` with `v`.

    To multiply many vectors at the same `params`, linearise once instead:
    `_, H = jax.linearize(jax.grad(obj_fn), params)`, then `H(v)`.

    **Arguments:**

    - `obj_fn`: `params -> scalar`.
    - `params`: pytree of real floating arrays.
    - `v`: pytree with the structure, shapes and dtypes of `params`.

    **Returns:**

    A pytree like `params`.

    **Raises:**

    `ValueError` if `obj_fn` does not return a scalar.
    """
    return jax.jvp(jax.grad(scalar_valued(obj_fn)), (params,), (v,))[1]
