"""Diagnostics of flows: energy, enstrophy, shell spectra, transfer, flux, dissipation."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float

from .._base import real_dtype
from ._grid import FourierGrid


def energy(grid: FourierGrid, uh: Complex[Array, "..."]) -> Float[Array, ""]:
    """Mean energy <|u|^2>/2 of a field, summed over all its components."""
    return grid.inner(uh, uh) / 2


def enstrophy(grid: FourierGrid, wh: Complex[Array, "..."]) -> Float[Array, ""]:
    """Mean enstrophy <|w|^2>/2 of a vorticity."""
    return grid.inner(wh, wh) / 2


def dissipation(
    grid: FourierGrid, uh: Complex[Array, "..."], viscosity: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """Mean dissipation viscosity <|grad u|^2>, summed over components."""
    return -grid.inner(uh, grid.lap(uh)) * jnp.asarray(viscosity, real_dtype(uh))


def shell_index(grid: FourierGrid) -> tuple[np.ndarray, np.ndarray]:
    """Shell of each mode and the wave number of each shell (NumPy).

    Shell j holds j - 1/2 <= |k|/dk < j + 1/2, where dk = 2 pi / max(lengths); the shells cover
    every mode, corners included.
    """
    dk = 2 * np.pi / max(grid.lengths)
    ks = [m * (max(grid.lengths) / length) for m, length in zip(grid.mode_numbers(), grid.lengths)]
    radius = np.sqrt(sum(k.astype(float) ** 2 for k in ks))
    index = np.floor(np.broadcast_to(radius, grid.spectral_shape) + 0.5).astype(int)
    return index, dk * np.arange(index.max() + 1)


def shell_sum(grid: FourierGrid, density: Float[Array, "..."]) -> Float[Array, " shells"]:
    """Sum a density given by stored mode over shells of |k|, over both signs of each mode.

    **Arguments:**

    - `grid`: the grid.
    - `density`: contribution of each mode, `(..., *spectral_shape)`; leading axes are summed.
    """
    index, shells = shell_index(grid)
    lead = density.ndim - grid.ndim
    weighted = jnp.sum(density, axis=tuple(range(lead))) * grid.mode_weights(density)
    if grid.decomposition is not None:
        return grid.decomposition.segment_sum(weighted, index, len(shells))
    return jax.ops.segment_sum(weighted.ravel(), index.ravel(), len(shells))


def energy_spectrum(
    grid: FourierGrid, uh: Complex[Array, "..."]
) -> tuple[Float[Array, " shells"], Float[Array, " shells"]]:
    """Shell spectrum E(k) of a field; its sum over shells is `energy`.

    **Arguments:**

    - `grid`: the grid.
    - `uh`: coefficients, `(..., *spectral_shape)`; leading axes are components.

    **Returns:**

    Wave numbers of the shells, and E.
    """
    density = 0.5 * jnp.abs(uh) ** 2 / float(grid.num_points) ** 2
    _, shells = shell_index(grid)
    return jnp.asarray(shells, real_dtype(uh)), shell_sum(grid, density)


def energy_transfer(
    grid: FourierGrid, uh: Complex[Array, "..."], nh: Complex[Array, "..."]
) -> tuple[Float[Array, " shells"], Float[Array, " shells"], Float[Array, " shells"]]:
    """Rate at which a nonlinear term feeds each shell, and the flux through it.

    T(k) = sum over the shell of Re(conj(uh) nh)/num_points^2; flux(k) = -sum_{k' <= k} T(k').

    **Arguments:**

    - `grid`: the grid.
    - `uh`: coefficients of the field.
    - `nh`: coefficients of the nonlinear term, of the same shape.

    **Returns:**

    Wave numbers of the shells, transfer and flux.
    """
    density = jnp.real(jnp.conj(uh) * nh) / float(grid.num_points) ** 2
    transfer = shell_sum(grid, density)
    _, shells = shell_index(grid)
    return jnp.asarray(shells, real_dtype(uh)), transfer, -jnp.cumsum(transfer)


def cfl_number(
    grid: FourierGrid, u: Float[Array, "..."], dt: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """Courant number dt max_x sum_i |u_i|/dx_i of a velocity field `(ndim, *shape)`."""
    rates = [jnp.abs(ui) / h for ui, h in zip(grid.components(u), grid.spacing)]
    return jnp.asarray(dt, real_dtype(u)) * jnp.max(jnp.sum(jnp.stack(rates), axis=0))


def correlation(u: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, ""]:
    """Cosine of the angle between two fields, <u, v>/(|u| |v|), over all axes."""
    return jnp.sum(u * v) / jnp.sqrt(jnp.sum(u**2) * jnp.sum(v**2))


def valid_time(
    ts: Float[Array, " time"],
    prediction: Float[Array, "time ..."],
    truth: Float[Array, "time ..."],
    threshold: float = 0.9,
) -> Float[Array, ""]:
    """First time at which the correlation of two trajectories falls below `threshold`.

    The last time if it never does; a NaN correlation counts as below.
    """
    below = ~(jax.vmap(correlation)(prediction, truth) >= threshold)
    return jnp.where(jnp.any(below), ts[jnp.argmax(below)], ts[-1])
