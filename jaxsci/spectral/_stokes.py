"""Stokes flow and the pressure of incompressible flow on a periodic box."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from .._base import check_positive, real_dtype
from ._grid import FourierGrid


def stokes(
    grid: FourierGrid, fh: Complex[Array, "..."], viscosity: Float[ArrayLike, ""] = 1.0
) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
    """Solve -viscosity lap u + grad p = f, div u = 0 with zero mean of u and p.

    uh = (I - k k^T/|k|^2) fh / (viscosity |k|^2). A mean force has no periodic steady flow and is
    ignored.

    **Arguments:**

    - `grid`: two- or three-dimensional grid.
    - `fh`: coefficients of the force, `(..., ndim, *spectral_shape)`.
    - `viscosity`: dynamic viscosity, positive.

    **Returns:**

    Coefficients of the velocity `(..., ndim, *spectral_shape)` and of the pressure
    `(..., *spectral_shape)`.
    """
    check_positive("viscosity", viscosity)
    velocity = -grid.lap_inv(grid.leray(fh)) / jnp.asarray(viscosity, real_dtype(fh))
    return velocity, pressure(grid, fh)


def pressure(grid: FourierGrid, fh: Complex[Array, "..."]) -> Complex[Array, "..."]:
    """Solve lap p = div f with zero mean: the pressure that keeps the flow driven by f solenoidal.

    **Arguments:**

    - `grid`: the grid.
    - `fh`: coefficients of the force `(..., ndim, *spectral_shape)`; for Navier-Stokes the force
        plus the advection -(u . grad) u.
    """
    return grid.lap_inv(grid.div(fh))
