import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import errors, laplacian, on_grid, orders, right_hand_side, solve, wave


@pytest.mark.parametrize("shape", [(13,), (13, 14), (13, 14, 15)], ids=len)
def test_the_right_hand_side_is_that_of_calculus_for_every_stabilization(shape):
    grid = FourierGrid(shape, (2.0, 3.0, 2 * np.pi)[: len(shape)])
    u = wave(grid)
    potential = lambda x: u(x) ** 3 - u(x) - 0.05 * laplacian(u)(x)
    expected = 0.7 * on_grid(laplacian(potential), grid)
    for s in (0.0, 3.0):
        equation = pde.CahnHilliard(grid, 0.05, 0.7, s)
        found = right_hand_side(equation, on_grid(u, grid))
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-8)


def test_the_stabilization_cancels_in_the_modes_that_products_cannot_hold(key):
    grid = FourierGrid(16, 2 * np.pi)
    u = jax.random.normal(key, (16,))
    plain, stabilized = (
        right_hand_side(pde.CahnHilliard(grid, 0.1, 1.0, s), u) for s in (0.0, 5.0)
    )
    np.testing.assert_allclose(stabilized, plain, atol=1e-10)


def test_the_solutions_of_all_stabilizations_converge_to_one_at_order_four():
    grid = FourierGrid(32, 2 * np.pi)
    (x,) = grid.x
    u0 = 0.1 + 0.5 * jnp.cos(x) + 0.3 * jnp.sin(2 * x)
    exact = solve(pde.CahnHilliard(grid, 0.1, 1.0, 0.0), u0, 0.5, 800)
    for s in (0.0, 2.0, 5.0):
        found = errors(pde.CahnHilliard(grid, 0.1, 1.0, s), u0, 0.5, (25, 50, 100), exact)
        assert found[-1] < 5e-6
        np.testing.assert_allclose(orders(found)[-1], 4, atol=0.4)


def test_an_array_of_interfaces_of_the_documented_width_is_nearly_stationary():
    gamma = 0.02
    grid = FourierGrid(128, 4.0)
    (x,) = grid.x
    scale = 1 / np.sqrt(2 * gamma)
    u0 = jnp.tanh(scale * (x - 1)) - jnp.tanh(scale * (x - 3)) - 1
    u = solve(pde.CahnHilliard(grid, gamma), u0, 1.0, 200)
    # Interfaces a distance d apart meet with an error 2 exp(-2 scale d/2), d = 2.
    np.testing.assert_allclose(u, u0, atol=4e-4)


def test_small_waves_grow_at_the_rate_of_the_linearised_equation():
    grid = FourierGrid(16, 2 * np.pi)
    (x,) = grid.x
    u = solve(pde.CahnHilliard(grid, 0.1), 1e-6 * jnp.cos(2 * x), 0.5, 100)
    np.testing.assert_allclose(u, 1e-6 * np.exp((4 - 1.6) * 0.5) * jnp.cos(2 * x), atol=1e-12)


def test_the_mean_is_kept_and_the_free_energy_falls(key):
    grid = FourierGrid((24, 20), (2.0, 2.0))
    equation = pde.CahnHilliard(grid, 0.01)
    u0 = 0.2 + equation.initial(key)
    fields = [solve(equation, u0, 0.001 * n, n) for n in (0, 20, 50, 100, 200)]
    found = [equation.invariants(grid.fft(u)) for u in fields]
    assert np.all(np.diff([f["free_energy"] for f in found]) < 0)
    np.testing.assert_allclose([f["mean"] for f in found], 0.2, atol=1e-13)
    assert float(jnp.std(fields[-1])) > 0.3


def test_the_free_energy_is_that_of_the_docstring():
    grid = FourierGrid((12, 10), (2 * np.pi, 2 * np.pi))
    x, y = grid.x
    uh = grid.fft(jnp.cos(x) * jnp.sin(2 * y))[None]
    # <|grad u|^2> = 5/4, <(u^2 - 1)^2> = 9/64 - 2/4 + 1.
    found = pde.CahnHilliard(grid, 0.05).invariants(uh)["free_energy"]
    assert found == pytest.approx(0.05 * 5 / 8 + (9 / 64 + 0.5) / 4, abs=1e-14)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    grid = FourierGrid(8, 1.0)
    for name in ("gamma", "mobility", "stabilization"):
        with pytest.raises(ValueError, match=rf"`{name}` must be at least zero, got -1.0"):
            pde.CahnHilliard(grid, **{name: -1.0})
