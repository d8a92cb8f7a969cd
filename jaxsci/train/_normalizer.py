"""Affine normalisation of data by statistics that are part of a model but are never trained."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Shaped

from .._base import check_choice, check_finite, NonTrainable, real_dtype


class Normalizer(eqx.Module):
    """The map `x -> (x - shift) / scale` and its inverse.

    The statistics are stored in `NonTrainable`, so that neither a gradient step nor weight decay
    changes them.

    **Arguments:**

    - `shift`, `scale`: arrays that broadcast against one sample.
    """

    shift: NonTrainable[Inexact[Array, "..."]]
    scale: NonTrainable[Inexact[Array, "..."]]

    def __init__(self, shift: Array, scale: Array):
        self.shift = NonTrainable(jnp.asarray(shift))
        self.scale = NonTrainable(jnp.asarray(scale))

    @classmethod
    def fit(
        cls,
        data: Shaped[Array | np.ndarray, "samples ..."],
        *,
        kind: Literal["standard", "unit_range"] = "standard",
        axis: int | tuple[int, ...] = 0,
    ) -> "Normalizer":
        """Statistics of a data set.

        An entry that is constant over the data has no spread to divide by: it is only shifted.

        **Arguments:**

        - `data`: samples along axis 0; integers are read as floating-point numbers.
        - `kind`: `"standard"` for mean 0 and standard deviation 1 (of the population, dividing by
            the count), `"unit_range"` for smallest value 0 and largest 1 (real data).
        - `axis`: the axes to take statistics over, with axis 0 among them: `0` gives one statistic
            an entry, `(0, 2, 3)` one a channel of samples of shape `(channels, x, y)`.

        **Returns:**

        A `Normalizer` for single samples; it applies to batches by broadcasting.

        **Raises:**

        - `ValueError`: `kind` is unknown, `axis` leaves out axis 0 or is out of range, `data` is
            empty, has non-finite entries, or is complex where a range is asked for.
        """
        check_choice("kind", kind, ("standard", "unit_range"))
        data = jnp.asarray(data)
        axes = (axis,) if isinstance(axis, int) else tuple(axis)
        if any(not -data.ndim <= a < data.ndim for a in axes):
            raise ValueError(f"`axis` must be within the {data.ndim} axes of `data`, got {axis}.")
        axes = tuple(sorted({a % data.ndim for a in axes}))
        if 0 not in axes:
            raise ValueError(f"`axis` must contain 0, the axis of the samples, got {axis}.")
        if data.size == 0:
            raise ValueError(f"`data` must hold at least one sample, got shape {data.shape}.")
        check_finite("data", data)
        # Statistics of half-precision data are taken and kept in float32.
        dtype = jnp.promote_types(data.dtype, real_dtype(jnp.promote_types(data.dtype, "float32")))
        x = data.astype(dtype)
        if kind == "standard":
            shift = jnp.mean(x, axis=axes, keepdims=True)
            scale = jnp.std(x, axis=axes, keepdims=True)
        elif jnp.iscomplexobj(x):
            raise ValueError('`kind="unit_range"` must have real `data`, got complex.')
        else:
            shift = jnp.min(x, axis=axes, keepdims=True)
            scale = jnp.max(x, axis=axes, keepdims=True) - shift
        # The computed spread of a constant is the rounding error of its mean, not zero.
        rounding = 8 * jnp.finfo(dtype).eps * jnp.max(jnp.abs(x), axis=axes, keepdims=True)
        scale = jnp.where(scale > rounding, scale, 1)
        return cls(shift[0], scale[0])

    def forward(self, x: Shaped[Array, "..."]) -> Inexact[Array, "..."]:
        """`(x - shift) / scale`, in the dtype of `x`."""
        return _in_dtype_of(x, (x - self.shift.value) / self.scale.value)

    def inverse(self, x: Shaped[Array, "..."]) -> Inexact[Array, "..."]:
        """`x * scale + shift`, in the dtype of `x`."""
        return _in_dtype_of(x, x * self.scale.value + self.shift.value)


def _in_dtype_of(x: Array, y: Array) -> Array:
    return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else y
