"""Stokes flow of fields."""

import jax.numpy as jnp
import numpy as np

from jaxsci import pde
from jaxsci.spectral import FourierGrid


def test_a_stream_function_and_a_pressure_are_recovered():
    grid = FourierGrid((12, 14), (2 * np.pi, 2 * np.pi))
    x, y = grid.x
    # psi = cos x sin 2y, so -lap u = 5 u.
    u = jnp.stack([2 * jnp.cos(x) * jnp.cos(2 * y), jnp.sin(x) * jnp.sin(2 * y)])
    p = jnp.sin(x + y)
    slope = jnp.cos(x + y)
    force = 0.7 * 5 * u + jnp.stack([slope, slope]) + 3.0
    velocity, pressure = pde.stokes_flow(grid, force, 0.7)
    np.testing.assert_allclose(velocity, u, atol=1e-13)
    np.testing.assert_allclose(pressure, p, atol=1e-13)
