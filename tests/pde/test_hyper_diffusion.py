import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import laplacian, on_grid, right_hand_side, solve, wave

GRIDS = [
    FourierGrid(17, 3.0),
    FourierGrid((12, 9), (2 * np.pi, 3.0)),
    FourierGrid((8, 9, 10), (2.0, 3.0, 2 * np.pi)),
]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.ndim}d")
def test_the_right_hand_side_is_that_of_calculus(grid):
    u = wave(grid)
    expected = -0.02 * on_grid(laplacian(laplacian(u)), grid)
    found = right_hand_side(pde.HyperDiffusion(grid, 0.02), on_grid(u, grid))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_modes_decay_exactly_in_one_step():
    grid = GRIDS[1]
    mode = jnp.cos(2 * grid.x[0] - 2 * np.pi * grid.x[1] / 3 + 0.2)
    k2 = 4 + (2 * np.pi / 3) ** 2
    u = solve(pde.HyperDiffusion(grid, 0.01), 0.5 + mode, 0.7, 1)
    np.testing.assert_allclose(u, 0.5 + np.exp(-0.01 * k2**2 * 0.7) * mode, atol=1e-13)


def test_the_mean_is_kept_and_the_variance_falls_for_every_number_of_channels(key):
    grid = FourierGrid(12, 2 * np.pi)
    equation = pde.HyperDiffusion(grid, 0.1, channels=2)
    u0 = equation.initial(key) + 0.3
    u1 = solve(equation, u0, 0.5, 1)
    before, after = (equation.invariants(grid.fft(u)) for u in (u0, u1))
    assert u0.shape == (2, 12)
    assert after["mean"] == pytest.approx(0.3, abs=1e-13)
    assert after["variance"] < 0.95 * before["variance"]
    factor = jnp.exp(-0.1 * 0.5 * grid.k[0] ** 4)
    np.testing.assert_allclose(grid.fft(u1), grid.fft(u0) * factor, atol=1e-12)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match=r"`hyper_diffusivity` must be at least zero, got -1"):
        pde.HyperDiffusion(GRIDS[0], -1.0)
    with pytest.raises(ValueError, match=r"`channels` must be at least 1, got 0"):
        pde.HyperDiffusion(GRIDS[0], channels=0)
