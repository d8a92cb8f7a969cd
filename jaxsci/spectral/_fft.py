"""The one discrete Fourier transform of the library, safe to partition over devices.

`jnp.fft` over a sharded array gathers the whole array on every device, whichever axes are sharded.
Here arrays sharded over leading (batch, channel) axes are transformed in place, and arrays sharded
over the first transformed axis by the slab scheme: transform the local axes, exchange slabs
(all-to-all), transform the first axis, exchange back. Forward transforms are unscaled.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Complex, Float, Inexact

from .._base import complex_dtype, linear_primitive, real_dtype

_FORWARD = ("fft", "rfft")


def fftn(u: Inexact[Array, "..."], ndim: int) -> Complex[Array, "..."]:
    """Complex discrete Fourier transform over the last `ndim` axes, unscaled.

    **Arguments:**

    - `u`: real or complex array with at least `ndim` axes; leading axes are batch axes.
    - `ndim`: number of transformed axes, 1 to 3.

    **Returns:**

    Complex array of the shape of `u`.
    """
    lengths = u.shape[u.ndim - ndim :]
    return _dft(u.astype(complex_dtype(u)), kind="fft", lengths=lengths)


def ifftn(uh: Complex[Array, "..."], ndim: int) -> Complex[Array, "..."]:
    """Inverse of [`jaxsci.spectral.fftn`][] (scaled by one over the number of points)."""
    return _dft(uh, kind="ifft", lengths=uh.shape[uh.ndim - ndim :])


def rfftn(u: Float[Array, "..."], ndim: int) -> Complex[Array, "..."]:
    """Discrete Fourier transform of real data over the last `ndim` axes, unscaled.

    The last axis of the result holds its non-negative wave numbers only, `N // 2 + 1` of them.

    **Arguments:**

    - `u`: real array with at least `ndim` axes; leading axes are batch axes.
    - `ndim`: number of transformed axes, 1 to 3.
    """
    return _dft(u, kind="rfft", lengths=u.shape[u.ndim - ndim :])


def irfftn(uh: Complex[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Inverse of [`jaxsci.spectral.rfftn`][] for real fields of spatial shape `shape`.

    The shape must be given because even and odd last sizes have the same number of coefficients.
    """
    return _dft(uh, kind="irfft", lengths=tuple(shape))


def transform_axes(
    x: Inexact[Array, "..."], kind: str, axes: tuple[int, ...], shape: tuple[int, ...]
) -> Inexact[Array, "..."]:
    """Transform some of the space axes, which must be neighbours, and treat the rest as batch.

    **Arguments:**

    - `x`: array whose last `len(shape)` axes are the space axes.
    - `kind`: "fft", "ifft", and where the last axis is among them "rfft", "irfft".
    - `axes`: increasing space axes.
    - `shape`: sizes of all space axes of the field.
    """
    lengths = tuple(shape[axis] for axis in axes)
    source = [axis - len(shape) for axis in axes]
    target = list(range(-len(axes), 0))
    if kind == "fft":
        x = x.astype(complex_dtype(x))
    if source == target:
        return _dft(x, kind=kind, lengths=lengths)
    y = _dft(jnp.moveaxis(x, source, target), kind=kind, lengths=lengths)
    return jnp.moveaxis(y, target, source)


def _local(x, *, kind, lengths):
    return jax.lax.fft(x, kind, lengths)


def _abstract(aval, *, kind, lengths):
    head = aval.shape[: aval.ndim - len(lengths)]
    last = lengths[-1] // 2 + 1 if kind == "rfft" else lengths[-1]
    dtype = real_dtype(aval.dtype) if kind == "irfft" else complex_dtype(aval.dtype)
    return aval.update(shape=(*head, *lengths[:-1], last), dtype=dtype)


def _half_weights(lengths, dtype):
    """How often each stored coefficient of the last axis occurs in the full spectrum."""
    n = lengths[-1]
    index = jnp.arange(n // 2 + 1)
    return jnp.where((index == 0) | (2 * index == n), 1, 2).astype(dtype)


def _transpose(ct, *, kind, lengths):
    size = float(math.prod(lengths))
    if kind == "fft":
        return _dft(ct, kind="fft", lengths=lengths)
    if kind == "ifft":
        return _dft(ct, kind="ifft", lengths=lengths)
    weights = _half_weights(lengths, real_dtype(ct))
    if kind == "rfft":
        return size * _dft(jnp.conj(ct) / weights, kind="irfft", lengths=lengths)
    return jnp.conj(_dft(ct, kind="rfft", lengths=lengths)) * (weights / size)


def _sharding_rule(ndim, *, kind, lengths):
    d = len(lengths)
    head = [f"b{i}" for i in range(ndim - d)]
    # The first transformed axis may stay sharded (slab scheme); the others may not.
    first = ["x"] if d > 1 else []
    middle = [f"m{i}" for i in range(d - 2)]
    last_in, last_out = ("s", "k")
    operand = " ".join([*head, *first, *middle, last_in])
    result = " ".join([*head, *first, *middle, last_out])
    return f"{operand} -> {result}"


def _partition(mesh, spec, *, kind, lengths):
    d = len(lengths)
    head, space = spec[: len(spec) - d], spec[len(spec) - d :]
    axis = space[0] if d > 1 else None
    out = PartitionSpec(*head, axis, *(None,) * (d - 1))
    if axis is None:
        return out, out, lambda x: _local(x, kind=kind, lengths=lengths)
    return out, out, lambda x: _slab(x, axis, kind=kind, lengths=lengths)


def _slab(x, axis, *, kind, lengths):
    """Transform slabs cut along the first of the transformed axes."""
    d = len(lengths)
    first, last = x.ndim - d, x.ndim - 1
    first_kind = "fft" if kind in _FORWARD else "ifft"
    rest = lengths[1:]
    if kind in _FORWARD:
        x = _local(x, kind=kind, lengths=rest)
    n = x.shape[last]
    devices = jax.lax.axis_size(axis)
    pad = [(0, 0)] * last + [(0, -n % devices)]
    x = jax.lax.all_to_all(jnp.pad(x, pad), axis, last, first, tiled=True)
    x = jnp.moveaxis(
        _local(jnp.moveaxis(x, first, -1), kind=first_kind, lengths=lengths[:1]), -1, first
    )
    x = jax.lax.all_to_all(x, axis, first, last, tiled=True)
    x = jax.lax.slice_in_dim(x, 0, n, axis=last)
    if kind not in _FORWARD:
        x = _local(x, kind=kind, lengths=rest)
    return x


_dft = linear_primitive(
    "dft",
    local=_local,
    abstract=_abstract,
    transpose=_transpose,
    sharding_rule=_sharding_rule,
    partition=_partition,
)
