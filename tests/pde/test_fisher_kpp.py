import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import laplacian, on_grid, right_hand_side, solve, wave


def fronts(x, t, length, nu, rate):
    """Two exact fronts of Ablowitz and Zeppetella, back to back, that run apart."""
    scale = np.sqrt(rate / nu)
    front = lambda z: (1 + jnp.exp((scale * z - 5 * rate * t / np.sqrt(6)) / np.sqrt(6))) ** -2
    return front(jnp.abs(x - length / 2) - length / 6)


@pytest.mark.parametrize(("nu", "rate"), [(1.0, 1.0), (0.3, 1.7)])
def test_two_fronts_run_apart_at_the_speed_of_the_exact_solution(nu, rate):
    length = 180.0 * np.sqrt(nu / rate)
    grid = FourierGrid(512, length)
    (x,) = grid.x
    u = solve(pde.FisherKPP(grid, nu, rate), fronts(x, 0.0, length, nu, rate), 4 / rate, 100)
    # The fronts have tails exp(-2 z/sqrt 6) ahead and meet with a kink of exp(-z/sqrt 6) behind.
    np.testing.assert_allclose(u, fronts(x, 4 / rate, length, nu, rate), atol=2e-5)


def test_a_uniform_population_grows_logistically():
    grid = FourierGrid((8, 9), (1.0, 2.0))
    u = solve(pde.FisherKPP(grid, 0.1, 1.5), jnp.full(grid.shape, 0.1), 2.0, 100)
    np.testing.assert_allclose(u, 1 / (1 + 9 * np.exp(-3.0)), atol=1e-9)


@pytest.mark.parametrize("shape", [(9,), (9, 8), (8, 9, 10)], ids=len)
def test_the_right_hand_side_is_that_of_calculus(shape):
    grid = FourierGrid(shape, (2.0, 3.0, 2 * np.pi)[: len(shape)])
    u = wave(grid)
    rate = lambda x: 0.2 * laplacian(u)(x) + 1.5 * u(x) * (1 - u(x))
    found = right_hand_side(pde.FisherKPP(grid, 0.2, 1.5), on_grid(u, grid))
    np.testing.assert_allclose(found, on_grid(rate, grid), atol=1e-11)


def test_a_population_stays_between_zero_and_one_and_its_free_energy_falls(key):
    grid = FourierGrid((24, 24), (2.0, 2.0))
    equation = pde.FisherKPP(grid, 0.05, 2.0)
    u0 = equation.initial(key)
    assert u0.shape == (1, 24, 24)
    fields = [solve(equation, u0, 0.1 * n, n) for n in (0, 5, 20, 50)]
    energies = [equation.invariants(grid.fft(u))["free_energy"] for u in fields]
    assert np.all(np.diff(energies) < 0)
    assert all(jnp.min(u) > -1e-6 and jnp.max(u) < 1 for u in fields)


def test_the_rate_is_minus_the_gradient_of_the_free_energy():
    grid = FourierGrid((9, 8), (2.0, 3.0))
    equation = pde.FisherKPP(grid, 0.2, 1.5)
    u = on_grid(wave(grid), grid)
    energy = lambda u: equation.invariants(grid.fft(u[None]))["free_energy"]
    gradient = grid.num_points * jax.jit(jax.grad(energy))(u)
    np.testing.assert_allclose(right_hand_side(equation, u), -gradient, atol=1e-11)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    grid = FourierGrid(8, 1.0)
    with pytest.raises(ValueError, match=r"`diffusivity` must be at least zero, got -1.0"):
        pde.FisherKPP(grid, -1.0)
    with pytest.raises(ValueError, match=r"`rate` must be finite, got inf"):
        pde.FisherKPP(grid, rate=float("inf"))
