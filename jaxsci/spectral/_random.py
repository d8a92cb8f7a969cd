"""Random periodic fields: initial conditions and input data of operator learning."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .._base import check_at_least, check_positive, real_dtype
from ._abstract_grid import reciprocal
from ._grid import FourierGrid
from ._spectra import energy
from ._wall_grids import AbstractWallGrid, Grid


def white_noise(key: PRNGKeyArray, grid: FourierGrid, dtype: Any = None) -> Array:
    """Coefficients of white noise: the field has independent standard normal samples.

    Each coefficient has variance `num_points` and the coefficients are those of a real field.
    Shape `grid.spectral_shape`.
    """
    dtype = real_dtype(float if dtype is None else dtype)
    return grid.fft(jax.random.normal(key, grid.shape, dtype))


def gaussian_random_field(
    key: PRNGKeyArray,
    grid: FourierGrid,
    alpha: Float[ArrayLike, ""] = 2.5,
    tau: Float[ArrayLike, ""] = 7.0,
    sigma: Float[ArrayLike, ""] = 1.0,
    *,
    dtype: Any = None,
) -> Float[Array, "..."]:
    """Draw a real Gaussian field of zero mean, covariance sigma^2 (-lap + tau^2)^(-alpha).

    The Fourier series coefficients c_k (of exp(i k . x)) are independent up to the symmetry of a
    real field, with E|c_k|^2 = sigma^2 (|k|^2 + tau^2)^(-alpha) / volume and c_0 = 0.

    **Arguments:**

    - `key`: random key.
    - `grid`: the grid.
    - `alpha`: smoothness; samples have finite H^s norm for s < alpha - ndim/2.
    - `tau`: inverse correlation length, in units of a wave number; may be zero.
    - `sigma`: amplitude.
    - `dtype`: real dtype, default JAX's default.

    **Returns:**

    The field, `grid.shape`.
    """
    real = grid.with_layout(real=True)
    noise = white_noise(key, real, dtype)
    k2 = real.squared_wavenumber(noise)
    law = jnp.where(k2 == 0, 0, (jnp.where(k2 == 0, 1, k2) + tau**2) ** (-0.5 * jnp.asarray(alpha)))
    scale = sigma * np.sqrt(grid.num_points / grid.volume)
    return real.ifft((noise * law * scale).astype(noise.dtype))


def operator_learning_field(
    key: PRNGKeyArray, grid: FourierGrid, *, dtype: Any = None
) -> Float[Array, "..."]:
    """Draw the initial vorticity of the Navier-Stokes data sets of operator learning.

    The law printed with those data is N(0, 7^(3/2) (-lap + 49)^(-5/2)) on the unit square, but the
    generator takes 7^(3/2) as an amplitude and has a further factor sqrt(2), so the covariance is
    2 x 7^3 (-lap + 49)^(-5/2); this is that field (pointwise standard deviation 0.262 on a 64 x 64
    grid). Li et al. 2021, arXiv 2010.08895.
    """
    sigma = np.sqrt(2) * 7.0**1.5
    return gaussian_random_field(key, grid, alpha=2.5, tau=7.0, sigma=sigma, dtype=dtype)


def truncated_fourier_series(
    key: PRNGKeyArray,
    grid: FourierGrid,
    cutoff: int = 5,
    *,
    std: float = 1.0,
    dtype: Any = None,
) -> Float[Array, "..."]:
    """Draw a field of zero mean whose modes with every |n_i| <= `cutoff` are equally strong.

    **Arguments:**

    - `key`: random key.
    - `grid`: the grid.
    - `cutoff`: largest mode number, below half of every size.
    - `std`: expected standard deviation over the box.
    - `dtype`: real dtype.

    **Returns:**

    The field, `grid.shape`.
    """
    check_at_least("cutoff", cutoff, 1)
    if 2 * cutoff >= min(grid.shape):
        raise ValueError(f"`cutoff` must be below half of every size {grid.shape}, got {cutoff}.")
    real = grid.with_layout(real=True)
    mask = np.ones(real.spectral_shape)
    for m in real.mode_numbers():
        mask = mask * (np.abs(m) <= cutoff)
    mask[(0,) * grid.ndim] = 0
    scale = std * np.sqrt(grid.num_points / ((2 * cutoff + 1) ** grid.ndim - 1))
    noise = white_noise(key, real, dtype)
    return real.ifft(noise * jnp.asarray(mask * scale, real_dtype(noise)))


def gaussian_blobs(
    key: PRNGKeyArray,
    grid: Grid,
    num_blobs: int = 5,
    *,
    width: float = 0.05,
    dtype: Any = None,
) -> Float[Array, "..."]:
    """Draw a sum of smooth bumps at random places with amplitudes uniform in [-1, 1].

    Each bump is exp((cos(2 pi (x - c)/P) - 1)/(2 pi width L/P)^2) along each axis: analytic, of
    period P = L and for a small width a Gaussian of standard deviation `width` L. Between walls
    P = 2 L, and the image of each bump behind the wall is added (`CosineGrid`) or taken away
    (`SineGrid`).

    **Arguments:**

    - `key`: random key.
    - `grid`: the grid.
    - `num_blobs`: number of bumps.
    - `width`: width as a fraction of each length.
    - `dtype`: real dtype.

    **Returns:**

    The field, `grid.shape`.
    """
    check_at_least("num_blobs", num_blobs, 1)
    check_positive("width", width)
    dtype = real_dtype(float if dtype is None else dtype)
    place_key, amplitude_key = jax.random.split(key)
    places = jax.random.uniform(place_key, (num_blobs, grid.ndim), dtype)
    amplitudes = jax.random.uniform(amplitude_key, (num_blobs,), dtype, -1, 1)
    coordinates = grid.coordinates(dtype)

    parities = grid.parities if isinstance(grid, AbstractWallGrid) else None
    turn = 2 * np.pi if parities is None else np.pi  # the phase along one length

    def bump(x, c):
        return jnp.exp((jnp.cos(turn * (x - c)) - 1) / (turn * width) ** 2)

    def blob(place, amplitude):
        for axis, (x, length, c) in enumerate(zip(coordinates, grid.lengths, place)):
            factor = bump(x / length, c)
            if parities is not None:
                image = bump(x / length, -c)
                factor = factor + image if parities[axis] == "cosine" else factor - image
            amplitude = amplitude * factor
        return amplitude

    return jnp.sum(jax.vmap(blob)(places, amplitudes), axis=0)


def decaying_turbulence(
    key: PRNGKeyArray,
    grid: FourierGrid,
    k0: float,
    *,
    total_energy: float = 0.5,
    dtype: Any = None,
) -> Float[Array, "..."]:
    """Draw a divergence-free velocity with spectrum E(k) ~ k^4 exp(-2 (k/k0)^2).

    **Arguments:**

    - `key`: random key.
    - `grid`: two- or three-dimensional grid.
    - `k0`: angular wave number at which the spectrum peaks.
    - `total_energy`: mean kinetic energy <|u|^2>/2 of the sample, exactly.
    - `dtype`: real dtype.

    **Returns:**

    The velocity, `(ndim, *grid.shape)`.
    """
    if grid.ndim == 1:
        raise ValueError("`grid` must have two or three dimensions, got one.")
    check_positive("k0", k0)
    check_positive("total_energy", total_energy)
    real = grid.with_layout(real=True)
    keys = jax.random.split(key, grid.ndim)
    noise = jax.vmap(lambda k: white_noise(k, real, dtype))(keys)
    k2 = real.squared_wavenumber(noise)
    # A shell of radius k holds ~k^(d-1) modes, so |u_k|^2 ~ E(k)/k^(d-1).
    shape = k2 * jnp.exp(-k2 / k0**2) * jnp.sqrt(reciprocal(k2 ** ((grid.ndim - 1) / 2)))
    uh = real.leray(noise * shape)
    return real.ifft(uh * jnp.sqrt(total_energy / energy(real, uh)))
