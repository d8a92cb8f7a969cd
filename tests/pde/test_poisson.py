"""Poisson problems on every kind of grid."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import CosineGrid, FourierGrid, SineGrid


@pytest.mark.parametrize(
    ("grid", "wave"),
    [
        (SineGrid((12, 10), (1.0, 2.0)), lambda x, y: jnp.sin(2 * np.pi * x) * jnp.sin(np.pi * y)),
        (
            CosineGrid((12, 11), (1.0, 2.0)),
            lambda x, y: jnp.cos(2 * np.pi * x) * jnp.cos(np.pi * y),
        ),
        (FourierGrid((12, 9), (1.0, 2.0)), lambda x, y: jnp.sin(2 * np.pi * x + np.pi * y)),
    ],
)
def test_a_mode_is_solved_to_rounding(grid, wave):
    u = wave(*grid.x)
    found = pde.poisson(grid, ((2 * np.pi) ** 2 + np.pi**2) * u)
    np.testing.assert_allclose(found, u, atol=1e-14)


def test_the_mean_of_the_source_is_ignored_where_constants_solve_the_problem():
    for grid in (CosineGrid(16, 1.0), FourierGrid(16, 1.0)):
        np.testing.assert_allclose(pde.poisson(grid, jnp.full(16, 3.0)), 0, atol=1e-14)


def test_harmonic_boundary_values_need_no_source():
    grid = SineGrid((9, 8), (1.0, 2.0))
    harmonic = lambda x, y: x * y + 2 * x - 1.0
    found = pde.poisson(grid, jnp.zeros(grid.shape), boundary=harmonic)
    np.testing.assert_allclose(found, harmonic(*grid.x), atol=1e-13)


def test_boundary_values_and_a_source_together():
    grid = SineGrid(32, np.pi)
    (x,) = grid.x
    found = pde.poisson(grid, 4 * jnp.sin(2 * x), boundary=lambda x: 1 + 2 * x)
    np.testing.assert_allclose(found, jnp.sin(2 * x) + 1 + 2 * x, atol=1e-13)


@pytest.mark.bad_input
def test_boundary_values_need_walls():
    grid = FourierGrid(8, 1.0)
    with pytest.raises(ValueError, match="`boundary` needs a grid with walls"):
        pde.poisson(grid, jnp.zeros(8), boundary=lambda x: x)
