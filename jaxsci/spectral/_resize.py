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
    if grid.decomposition is not None and grid.decomposition == new.decomposition:
        for cuts, axes in reversed(grid.decomposition.stages):
            uh = _resize_axes(grid.decomposition.constrain(uh, cuts), grid, new, axes, cuts)
    else:
        if grid.decomposition is not None:
            uh = grid.decomposition.constrain(uh, (None,) * grid.ndim)
        uh = _resize_axes(uh, grid, new, range(grid.ndim), None)
    return new.constrain(uh, "spectral") * (new.num_points / grid.num_points)


def _resize_axes(uh, grid, new, axes, cuts):
    """Resize some axes; the last one loses the padding of `grid` and gains that of `new`."""
    for axis in axes:
        n, m = grid.shape[axis], new.shape[axis]
        last = axis == grid.ndim - 1
        if last:
            uh = uh[..., : grid.num_stored]
        if n != m and last and grid.real:
            reflect = lambda edge: _reflect(edge, grid, cuts)
            uh = _resize_half_axis(uh, n, m, reflect)
        elif n != m:
            uh = _resize_axis(uh, axis - grid.ndim, n, m)
        if last:
            uh = _pad_last(uh, new.spectral_shape[-1] - new.num_stored)
    return uh


def _pad_last(uh, size):
    return jnp.pad(uh, [(0, 0)] * (uh.ndim - 1) + [(0, size)])


def _resize_half_axis(uh, n, m, reflect):
    """Resize the last axis of a real grid, which holds half of the modes."""
    low = min(n, m)
    kept = uh[..., : low // 2 + 1]
    if low % 2 == 0:
        # Going up, the Nyquist coefficient becomes a pair of which one is stored; going down, the
        # pair falls on one coefficient, and the one not stored is the conjugate at the opposite k.
        edge = kept[..., -1]
        edge = 0.5 * edge if m > n else edge + jnp.conj(reflect(edge))
        kept = jnp.concatenate([kept[..., :-1], edge[..., None]], axis=-1)
    return _pad_last(kept, (m // 2 + 1) - (low // 2 + 1))


def _reflect(edge, grid, cuts):
    """Coefficients at -k, of one wave number of the last axis."""
    axes = tuple(range(edge.ndim - grid.ndim + 1, edge.ndim))
    if cuts is not None:
        # Each device needs the opposite end: the edge, one dimension less, is small.
        edge = grid.decomposition.constrain(edge, (None,) * len(axes))
    edge = jnp.roll(jnp.flip(edge, axes), (1,) * len(axes), axes)
    return edge if cuts is None else grid.decomposition.constrain(edge, cuts[:-1])


def _resize_axis(uh, axis, n, m):
    """Resize an axis that holds all modes."""
    uh = jnp.moveaxis(uh, axis, -1)
    low = min(n, m)
    positive = uh[..., : (low + 1) // 2]
    negative = uh[..., n - (low - (low + 1) // 2) :]
    if low % 2:
        parts = [_pad_last(positive, max(m - n, 0)), negative]
    elif m > n:
        edge = 0.5 * negative[..., :1]
        parts = [positive, _pad_last(edge, m - n - 1), edge, negative[..., 1:]]
    else:
        edge = negative[..., :1] + uh[..., low // 2, None]
        parts = [positive, edge, negative[..., 1:]]
    return jnp.moveaxis(jnp.concatenate(parts, axis=-1), -1, axis)
