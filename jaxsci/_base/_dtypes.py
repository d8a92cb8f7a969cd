"""dtype helpers: the library follows the precision of its inputs."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def is_complex(x: Any) -> bool:
    """Whether `x` (array, scalar or dtype) is complex."""
    return jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)


def real_dtype(x: Any) -> np.dtype:
    """The real floating dtype of the precision of `x` (array, scalar or dtype)."""
    dtype = jnp.result_type(x)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.dtype(jnp.finfo(dtype).dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(dtype)
    return np.dtype(jnp.result_type(float))


def complex_dtype(x: Any) -> np.dtype:
    """The complex dtype of the precision of `x` (array, scalar or dtype)."""
    return np.dtype(jnp.result_type(real_dtype(x), jnp.complex64))


def at_least_float32(x: Any) -> np.dtype:
    """The dtype in which to sum and average entries of `x`: its own, at least float32."""
    return np.dtype(jnp.promote_types(jnp.result_type(x), jnp.float32))
