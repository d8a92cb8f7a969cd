"""Stokes flow in one call."""

from jaxtyping import Array, ArrayLike, Float

from ..spectral import FourierGrid, stokes


def stokes_flow(
    grid: FourierGrid, force: Float[Array, "..."], viscosity: Float[ArrayLike, ""] = 1.0
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Solve -viscosity lap u + grad p = f, div u = 0 for fields on a periodic box.

    [`jaxsci.spectral.stokes`][] for fields in place of coefficients. u and p have zero mean; the
    mean of f is ignored.

    **Arguments:**

    - `grid`: two- or three-dimensional grid.
    - `force`: f at the grid points, `(..., ndim, *grid.shape)`.
    - `viscosity`: dynamic viscosity, positive.

    **Returns:**

    The velocity `(..., ndim, *grid.shape)` and the pressure `(..., *grid.shape)`.
    """
    velocity, pressure = stokes(grid, grid.fft(force), viscosity)
    return grid.ifft(velocity), grid.ifft(pressure)
