"""The random, nearly isotropic initial densities of Maddu, Weady and Shelley (2024)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, PRNGKeyArray

from jaxsci.spectral import FourierGrid

from .._base import check_at_least, check_interval, complex_dtype


def _cosine_power_modes(num_terms: int, modes: int) -> np.ndarray:
    """Entry (n-1, l): the part of a_2l of cos^n(2 theta + r)/(2 pi) besides exp(-i l r)."""
    table = np.zeros((num_terms, modes + 1))
    for n in range(1, num_terms + 1):
        for order in range(min(n, modes) + 1):
            if (n - order) % 2 == 0:
                table[n - 1, order] = math.comb(n, (n + order) // 2) / 2**n
    return table


def random_moments(
    key: PRNGKeyArray,
    grid: FourierGrid,
    modes: int,
    *,
    amplitude: float = 0.1,
    num_terms: int = 8,
    max_mode: int = 8,
    uniform_density: bool = False,
    dtype=None,
) -> Complex[Array, "num_modes nx ny"]:
    """Angular modes a_0, a_2, ..., a_2M of a random density close to the isotropic one.

    2 pi psi = 1 + sum_{i=0}^{num_terms-1} amplitude (r0 - 1/2) cos(2 pi k1 x/L_x + r1)
    cos(2 pi k2 y/L_y + r2) cos^{i+1}(2 theta + r3), with r0..r3 uniform on [0, 1] and k1, k2
    uniform on 1..max_mode, drawn anew for every term. The mean of c = a_0 is one; even powers have
    an angular mean, so that c is not uniform unless asked for.

    **Arguments:**

    - `key`: random key.
    - `grid`: two-dimensional grid.
    - `modes`: M, at least 1.
    - `amplitude`: size of each term; the density stays positive while
        `amplitude * num_terms < 2`.
    - `num_terms`: number of terms.
    - `max_mode`: largest wave number along each axis, below half the number of points.
    - `uniform_density`: whether to set c = 1.
    - `dtype`: real or complex dtype whose precision is used; the default one if None.

    **Returns:**

    Complex array (M + 1, N_x, N_y).
    """
    check_at_least("modes", modes, 1)
    check_at_least("num_terms", num_terms, 1)
    check_interval("max_mode", max_mode, 1.0, float((min(grid.shape) - 1) // 2))
    dtype = complex_dtype(float if dtype is None else dtype)
    real = jnp.finfo(dtype).dtype
    wave_key, uniform_key = jax.random.split(key)
    waves = jax.random.randint(wave_key, (num_terms, 2), 1, max_mode + 1)
    r = jax.random.uniform(uniform_key, (num_terms, 4), real)
    x, y = grid.coordinates(real)
    kx, ky = (2 * np.pi / length * waves[:, i] for i, length in enumerate(grid.lengths))
    along_x = jnp.cos(kx[:, None].astype(real) * x[:, 0] + r[:, 1:2])
    along_y = jnp.cos(ky[:, None].astype(real) * y[0] + r[:, 2:3])
    orders = jnp.arange(modes + 1)
    angular = jnp.asarray(_cosine_power_modes(num_terms, modes), real) * jnp.exp(
        (-1j * orders * r[:, 3:4]).astype(dtype)
    )
    weight = amplitude * (r[:, 0] - 0.5)
    a = jnp.einsum("i,ix,iy,im->mxy", weight.astype(dtype), along_x, along_y, angular)
    if uniform_density:
        a = a.at[0].set(0)
    # The terms have zero mean in x, so that the mean of c needs no scaling.
    return a.at[0].set(1 + a[0].real)
