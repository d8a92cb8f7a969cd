"""Moving averages of gradients, and what corrects their start at zero."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from jaxsci._base import at_least_float32, is_concrete


def moving_average(decay: ArrayLike, old: Array, new: Array) -> Array:
    """`decay * old + (1 - decay) * new`, computed in at least float32, in the dtype of `old`."""
    dtype = at_least_float32(old)
    average = decay * old.astype(dtype) + (1 - decay) * new.astype(dtype)
    return jnp.asarray(average, old.dtype)


def bias_correction(decay: ArrayLike, count: Array) -> Array:
    """`1 - decay^count`: the weight in an average that started at zero `count` entries ago."""
    # 1 - decay^count loses its digits where decay is near one. log1p of a Python float is taken by
    # NumPy in float64.
    log1p = np.log1p if is_concrete(decay) else jnp.log1p
    with np.errstate(divide="ignore"):
        log_decay = log1p(decay - 1)
    return -jnp.expm1(count.astype(jnp.result_type(float)) * jnp.asarray(log_decay))
