"""Exact change of resolution of a band-limited field: pad or truncate its spectrum."""

import jax.numpy as jnp
from jaxtyping import Array, Complex

from ._grid import FourierGrid


def resize(uh: Complex[Array, "..."], grid: FourierGrid, new: FourierGrid) -> Complex[Array, "..."]:
    """Fourier coefficients of the same field on a grid of another resolution.

    To a finer grid this is exact trigonometric interpolation; to a coarser one, truncation. The
    Nyquist mode of an even size is split evenly between both signs going up, and both are added
    going down, so that a real field stays real and `resize` up and back down is the identity.

    **Arguments:**

    - `uh`: coefficients on `grid`, `(..., *grid.spectral_shape)`.
    - `grid`, `new`: grids of the same box and layout.

    **Returns:**

    Coefficients on `new`, `(..., *new.spectral_shape)`, scaled to its number of points.

    **Raises:** `ValueError` if the boxes or the layouts differ.
    """
    if grid.lengths != new.lengths or grid.real != new.real:
        raise ValueError(f"`resize` needs two grids of one box and layout, got {grid} and {new}.")
    grid.check_spectral(uh)
    for axis, (n, m) in enumerate(zip(grid.shape, new.shape)):
        if n == m:
            continue
        if grid.real and axis == grid.ndim - 1:
            uh = _resize_half_axis(uh, n, m, grid.ndim)
        else:
            uh = _resize_axis(uh, axis - grid.ndim, n, m)
    return uh * (new.num_points / grid.num_points)


def _resize_half_axis(uh, n, m, ndim):
    """Resize the last axis of a real grid, which holds half of the modes."""
    low = min(n, m)
    kept = uh[..., : low // 2 + 1]
    if low % 2 == 0:
        # Going up, the Nyquist coefficient becomes a pair of which one is stored; going down, the
        # pair falls on one coefficient, and the one not stored is the conjugate at the opposite k.
        edge = kept[..., -1]
        edge = 0.5 * edge if m > n else edge + jnp.conj(_reflect(edge, ndim - 1))
        kept = kept.at[..., -1].set(edge)
    pad = (m // 2 + 1) - (low // 2 + 1)
    return jnp.pad(kept, [(0, 0)] * (uh.ndim - 1) + [(0, pad)])


def _reflect(uh, ndim):
    """Coefficients at -k over the last `ndim` axes."""
    axes = tuple(range(uh.ndim - ndim, uh.ndim))
    return jnp.roll(jnp.flip(uh, axes), (1,) * ndim, axes)


def _resize_axis(uh, axis, n, m):
    """Resize an axis that holds all modes."""
    uh = jnp.moveaxis(uh, axis, -1)
    low = min(n, m)
    positive = uh[..., : (low + 1) // 2]
    negative = uh[..., n - (low - (low + 1) // 2) :]
    gap = jnp.zeros((*uh.shape[:-1], max(m - n, 0)), uh.dtype)
    if low % 2 == 0:
        if m > n:
            edge = 0.5 * negative[..., :1]
            negative = negative.at[..., 0].multiply(0.5)
            gap = gap.at[..., 0].set(edge[..., 0])
        else:
            negative = negative.at[..., 0].add(uh[..., low // 2])
    return jnp.moveaxis(jnp.concatenate([positive, gap, negative], axis=-1), -1, axis)
