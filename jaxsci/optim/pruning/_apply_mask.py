"""`apply_mask`: an optax transform that keeps dropped weights at zero."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


def apply_mask(mask: PyTree) -> optax.GradientTransformationExtraArgs:
    """Keep the weights that a mask drops at zero while the others train. Chain it last.

    ```python
    params, mask, _ = obs_prune(params, grads, 0.9, 1e-5)
    tx = optax.chain(optax.adam(1e-3), apply_mask(mask))
    ```

    **Arguments:**

    - `mask`: pytree of booleans like the parameters, true where a weight is kept.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`. With `params` given to `update`, a dropped weight
    that is not zero becomes zero; without, it only stays where it is.
    """

    def init(params: PyTree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, Any]:
        del extra_args
        if params is None:
            return jax.tree.map(lambda u, m: jnp.where(m, u, 0), updates, mask), state
        back = lambda u, m, p: jnp.where(m, u, -p).astype(u.dtype)
        return jax.tree.map(back, updates, mask, params), state

    return optax.GradientTransformationExtraArgs(init, update)
