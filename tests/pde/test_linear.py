import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import laplacian, on_grid, right_hand_side, solve, wave

GRIDS = [
    FourierGrid(33, 3.0),
    FourierGrid((16, 15), (2 * np.pi, 3.0)),
    FourierGrid((12, 9, 10), (2.0, 3.0, 2 * np.pi)),
]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.ndim}d")
def test_the_right_hand_sides_are_those_of_calculus(grid):
    u = wave(grid)
    field, lap = on_grid(u, grid), on_grid(laplacian(u), grid)
    slope = on_grid(jax.grad(u), grid)
    velocity = jnp.array([1.3, -0.7, 0.4])[: grid.ndim]
    advection = -jnp.tensordot(velocity, slope, 1)

    heat = right_hand_side(pde.Heat(grid, 0.3), field)
    both = right_hand_side(pde.AdvectionDiffusion(grid, velocity, 0.3), field)

    np.testing.assert_allclose(heat, 0.3 * lap, atol=1e-11)
    np.testing.assert_allclose(both, advection + 0.3 * lap, atol=1e-11)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.ndim}d")
def test_heat_modes_decay_exactly_in_one_step(grid):
    theta = [2 * np.pi * x / length for x, length in zip(grid.x, grid.lengths)]
    mode = jnp.cos(sum(theta) + 0.2)
    k2 = sum((2 * np.pi / length) ** 2 for length in grid.lengths)
    u = solve(pde.Heat(grid, 0.3), 0.5 + mode, 0.7, 1)
    np.testing.assert_allclose(u, 0.5 + np.exp(-0.3 * k2 * 0.7) * mode, atol=1e-13)


def test_the_nyquist_mode_of_an_even_grid_diffuses_and_does_not_move():
    grid = FourierGrid(16, 2 * np.pi)
    zigzag = jnp.cos(8 * grid.x[0])
    u = solve(pde.AdvectionDiffusion(grid, 1.0, 0.01), zigzag, 0.5, 1)
    np.testing.assert_allclose(u, np.exp(-0.01 * 64 * 0.5) * zigzag, atol=1e-13)


def test_advection_by_a_full_period_returns_the_initial_field(key):
    grid = FourierGrid((16, 21), (2.0, 3.0))
    equation = pde.AdvectionDiffusion(grid, jnp.array([1.0, -3.0]))
    u0 = equation.initial(key)
    np.testing.assert_allclose(solve(equation, u0, 2.0, 7), u0, atol=1e-13)


def test_advection_moves_a_wave_and_diffusion_damps_it():
    grid = FourierGrid((16, 15), (2 * np.pi, 2 * np.pi))
    x, y = grid.x
    equation = pde.AdvectionDiffusion(grid, jnp.array([1.5, -0.5]), 0.1)
    u = solve(equation, jnp.sin(2 * x + 3 * y), 0.9, 3)
    exact = np.exp(-0.1 * 13 * 0.9) * jnp.sin(2 * (x - 1.5 * 0.9) + 3 * (y + 0.5 * 0.9))
    np.testing.assert_allclose(u, exact, atol=1e-13)


def test_in_one_dimension_the_velocity_is_a_number_or_an_array_of_one():
    grid = FourierGrid(8, 1.0)
    number = pde.AdvectionDiffusion(grid, 2.0).symbol()
    array = pde.AdvectionDiffusion(grid, jnp.array([2.0])).symbol()
    np.testing.assert_array_equal(number, array)


@pytest.mark.slow
def test_many_channels_evolve_each_by_itself_and_simulate_takes_them(key):
    grid = FourierGrid(16, 1.0)
    equation = pde.Heat(grid, 0.01, channels=3)
    fields = equation.initial(key)
    assert equation.channels == 3
    assert fields.shape == (3, 16)
    assert pde.AdvectionDiffusion(grid, 1.0, 0.1, channels=2).initial(key).shape == (2, 16)
    together = pde.simulate(equation, fields, jnp.array([0.0, 0.1]), dt=0.1).ys[-1]
    one_by_one = [solve(pde.Heat(grid, 0.01), u, 0.1, 1) for u in fields]
    np.testing.assert_allclose(together, one_by_one, atol=1e-13)


def test_the_mean_is_kept_and_the_variance_falls_at_the_rate_of_the_modes():
    grid = FourierGrid((8, 9), (2 * np.pi, 2 * np.pi))
    x, y = grid.x
    u0 = 0.7 + 0.4 * jnp.cos(x) + 0.2 * jnp.sin(2 * y)
    for equation, nu in [
        (pde.Heat(grid, 0.5), 0.5),
        (pde.AdvectionDiffusion(grid, jnp.array([1.0, 2.0])), 0.0),
    ]:
        before = equation.invariants(grid.fft(u0))
        after = equation.invariants(grid.fft(solve(equation, u0, 1.0, 2)))
        assert before["mean"] == pytest.approx(0.7, abs=1e-14)
        assert before["variance"] == pytest.approx((0.4**2 + 0.2**2) / 2, abs=1e-14)
        assert after["mean"] == pytest.approx(0.7, abs=1e-14)
        decayed = (0.4**2 * np.exp(-2 * nu) + 0.2**2 * np.exp(-8 * nu)) / 2
        assert after["variance"] == pytest.approx(decayed, abs=1e-14)


def test_the_variance_of_channels_is_their_mean_square_deviation_from_the_common_mean(key):
    grid = FourierGrid((8, 9), (1.0, 2.0))
    u = jax.random.normal(key, (3, 8, 9)) + 2
    found = pde.Heat(grid).invariants(grid.fft(u))
    assert found["mean"] == pytest.approx(float(jnp.mean(u)), abs=1e-13)
    assert found["variance"] == pytest.approx(float(jnp.var(u)), abs=1e-13)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    grid = FourierGrid((8, 8), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"`diffusivity` must be at least zero, got -1"):
        pde.Heat(grid, -1.0)
    with pytest.raises(ValueError, match=r"`diffusivity` must be finite, got nan"):
        pde.AdvectionDiffusion(grid, jnp.ones(2), float("nan"))
    with pytest.raises(ValueError, match=r"`channels` must be at least 1, got 0"):
        pde.Heat(grid, channels=0)
    with pytest.raises(ValueError, match=r"`velocity` must be finite"):
        pde.AdvectionDiffusion(grid, jnp.array([1.0, jnp.inf]))
    with pytest.raises(ValueError, match=r"`velocity` must have shape \(2,\).*got \(3,\)"):
        pde.AdvectionDiffusion(grid, jnp.ones(3))
