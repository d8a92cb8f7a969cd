"""Amplitudes of noise that is white in time, for `jaxsci.integrate.NoiseTerm`."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_choice, check_nonnegative, check_positive, is_concrete
from ..spectral import FourierGrid


def white_noise(grid: FourierGrid, strength: Float[ArrayLike, ""] = 1.0) -> Float[Array, "..."]:
    """Amplitude of space-time white noise, E xi(x, t) xi(y, s) = strength^2 d(x - y) d(t - s).

    Every mode has strength n/sqrt(V), with n points and the volume V of the box.

    **Arguments:**

    - `grid`: the grid.
    - `strength`: of the noise, in units of the field times sqrt(volume/time).

    **Returns:** amplitude of shape `grid.spectral_shape`.
    """
    check_nonnegative("strength", strength)
    scale = grid.num_points / grid.volume**0.5
    return jnp.asarray(strength) * jnp.full(grid.spectral_shape, scale)


def ring_forcing(
    grid: FourierGrid,
    wavenumber: float,
    width: float,
    rate: Float[ArrayLike, ""] = 1.0,
    *,
    of: str = "field",
) -> Float[Array, "..."]:
    """Amplitude of a random force in a ring of wave numbers that injects energy at a given rate.

    The variance of a mode is proportional to exp(-(|k| - wavenumber)^2/(2 width^2)), zero for the
    mean and at Nyquist modes.

    **Arguments:**

    - `grid`: the grid.
    - `wavenumber`, `width`: of the ring, angular wave numbers.
    - `rate`: mean energy that the force brings in per time: half the rate of change of the mean
        square of the field or, with `of="vorticity"`, of the velocity that belongs to it.
    - `of`: "field" or "vorticity" (of `NavierStokes2D`).

    **Returns:** amplitude of shape `grid.spectral_shape`.

    **Raises:** `ValueError` for a negative rate or a ring that holds no mode of the grid.
    """
    check_positive("wavenumber", wavenumber)
    check_positive("width", width)
    check_nonnegative("rate", rate)
    check_choice("of", of, ("field", "vorticity"))
    k2 = grid.squared_wavenumber()
    odd = sum(k**2 for k in grid.derivative_wavenumbers())
    inner = jnp.asarray((k2 > 0) & (odd == k2))
    variance = jnp.where(inner, jnp.exp(-((jnp.sqrt(k2) - wavenumber) ** 2) / (2 * width**2)), 0)
    density = variance if of == "field" else variance / jnp.where(inner, k2, 1)
    total = jnp.sum(grid.mode_weights() * density) / (2 * float(grid.num_points) ** 2)
    if is_concrete(total) and not total > 0:
        raise ValueError(f"No mode of {grid} lies in the ring at {wavenumber} of width {width}.")
    return jnp.sqrt(jnp.asarray(rate) * variance / total)
