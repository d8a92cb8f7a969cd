import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import laplacian, on_grid, right_hand_side, solve, wave


@pytest.mark.parametrize("shape", [(13,), (13, 14), (13, 14, 15)], ids=len)
def test_the_right_hand_side_is_that_of_calculus(shape):
    grid = FourierGrid(shape, (2.0, 3.0, 2 * np.pi)[: len(shape)])
    u = wave(grid)
    lap = laplacian(u)

    def rate(x):
        folded = 1.3**4 * u(x) + 2 * 1.3**2 * lap(x) + laplacian(lap)(x)
        return 0.4 * u(x) - folded + 0.7 * u(x) ** 2 - u(x) ** 3

    found = right_hand_side(pde.SwiftHohenberg(grid, 0.4, 1.3, 0.7), on_grid(u, grid))
    np.testing.assert_allclose(found, on_grid(rate, grid), rtol=1e-11, atol=1e-8)


def test_small_waves_grow_at_the_rate_of_the_symbol():
    grid = FourierGrid(16, 2 * np.pi)
    (x,) = grid.x
    u = solve(pde.SwiftHohenberg(grid, 0.3, 1.0), 1e-6 * (jnp.cos(x) + jnp.cos(2 * x)), 1.5, 5)
    grown = np.exp(0.3 * 1.5) * jnp.cos(x) + np.exp((0.3 - 9) * 1.5) * jnp.cos(2 * x)
    np.testing.assert_allclose(u, 1e-6 * grown, atol=1e-16)


def test_stripes_saturate_at_the_amplitude_of_weakly_nonlinear_theory():
    # A cos(x): A^2 = 4 r/3 with corrections of relative order r/64.
    grid = FourierGrid(32, 2 * np.pi)
    (x,) = grid.x
    growth = 0.02
    u = solve(pde.SwiftHohenberg(grid, growth), 0.1 * jnp.cos(x), 1000.0, 2000)
    np.testing.assert_allclose(u, 2 * np.sqrt(growth / 3) * jnp.cos(x), atol=1e-4)


def test_the_free_energy_falls(key):
    grid = FourierGrid((24, 20), (12.0, 10.0))
    equation = pde.SwiftHohenberg(grid, 0.5, 1.0, 0.6)
    u0 = 0.3 * equation.initial(key)
    fields = [solve(equation, u0, 0.1 * n, n) for n in (0, 5, 20, 100, 200)]
    energies = [equation.invariants(grid.fft(u))["free_energy"] for u in fields]
    assert np.all(np.diff(energies) < 0), energies


def test_the_rate_is_minus_the_gradient_of_the_free_energy():
    grid = FourierGrid((13, 14), (2.0, 3.0))
    equation = pde.SwiftHohenberg(grid, 0.4, 1.3, 0.7)
    u = on_grid(wave(grid), grid)
    energy = lambda u: equation.invariants(grid.fft(u[None]))["free_energy"]
    gradient = grid.num_points * jax.jit(jax.grad(energy))(u)
    np.testing.assert_allclose(right_hand_side(equation, u), -gradient, rtol=1e-11, atol=1e-8)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    grid = FourierGrid(8, 1.0)
    with pytest.raises(ValueError, match=r"`growth` must be finite, got nan"):
        pde.SwiftHohenberg(grid, float("nan"))
    with pytest.raises(ValueError, match=r"`critical_wavenumber` must be at least zero, got -1"):
        pde.SwiftHohenberg(grid, critical_wavenumber=-1.0)
