"""The numbers of a formula as floating arrays of one dtype."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


def real_values(*values: ArrayLike) -> list[Array]:
    """Floating arrays of the common dtype, at least float32; Python numbers take it over."""
    dtype = jnp.promote_types(jnp.result_type(*values, 0.0), jnp.float32)
    return [jnp.asarray(x, dtype) for x in values]
