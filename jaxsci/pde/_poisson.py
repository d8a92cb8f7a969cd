"""The Poisson equation."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Inexact

from ..spectral import AbstractWallGrid, Grid, lift


def poisson(
    grid: Grid, source: Inexact[Array, "..."], boundary: Callable[..., Array] | None = None
) -> Inexact[Array, "..."]:
    """Solve -lap u = f.

    Where constants solve the homogeneous problem (a periodic box, a `CosineGrid`), u has zero mean
    and the mean of f is ignored.

    **Arguments:**

    - `grid`: periodic, or with walls: u = 0 on those of a `SineGrid`, du/dn = 0 on those of a
        `CosineGrid`.
    - `source`: f at the grid points, `(..., *grid.shape)`.
    - `boundary`: values of u at the walls of a `SineGrid`, as a function of the coordinates; see
        [`jaxsci.spectral.lift`][].

    **Returns:**

    u at the grid points, of the shape of `source`.
    """
    if boundary is None:
        return grid.ifft(-grid.lap_inv(grid.fft(source)))
    if not isinstance(grid, AbstractWallGrid):
        raise ValueError(f"`boundary` needs a grid with walls, got {grid}.")
    value, laplacian = (x.astype(source.dtype) for x in lift(grid, boundary))
    return jnp.asarray(grid.ifft(-grid.lap_inv(grid.fft(source + laplacian))) + value)
