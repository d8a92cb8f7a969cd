import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.spectral import FourierGrid, sobolev_norm
from spectral.trigonometric import free, grid_name, GRIDS


@pytest.mark.parametrize("order", [-1.5, -1.0, 0.0, 0.5, 2.0])
def test_a_single_mode_has_its_weight(order):
    grid = FourierGrid((16, 18), (2 * np.pi, 3.0))
    x, y = grid.x
    uh = grid.fft(5.0 + 2.0 * jnp.cos(3 * x) * jnp.sin(2 * np.pi * 4 * y / 3))
    k2 = 9 + (8 * np.pi / 3) ** 2
    # <(2 cos sin)^2> = 1.
    want = math.sqrt(25 + (1 + k2) ** order)
    assert math.isclose(sobolev_norm(grid, uh, order), want, rel_tol=1e-12)
    want = k2 ** (order / 2)
    assert math.isclose(sobolev_norm(grid, uh, order, homogeneous=True), want, rel_tol=1e-12)


@pytest.mark.parametrize("grid", GRIDS, ids=grid_name)
def test_orders_zero_and_one_are_integrals_of_the_field_and_its_gradient(grid):
    uh = grid.fft(free(grid, lead=(2,)))
    assert math.isclose(sobolev_norm(grid, uh, 0.0), grid.norm(uh), rel_tol=1e-13)
    slope = -grid.inner(uh, grid.lap(uh))
    assert math.isclose(sobolev_norm(grid, uh, 1.0) ** 2, grid.norm(uh) ** 2 + slope)
    assert math.isclose(sobolev_norm(grid, uh, 1.0, homogeneous=True) ** 2, slope)


def test_the_norm_keeps_single_precision_and_has_gradient_zero_at_zero():
    grid = FourierGrid(8, 1.0)
    norm = lambda u: sobolev_norm(grid, grid.fft(u), -0.5, homogeneous=True)
    assert norm(jnp.ones(8, jnp.float32)).dtype == np.float32
    np.testing.assert_array_equal(jax.grad(norm)(jnp.zeros(8)), np.zeros(8))
