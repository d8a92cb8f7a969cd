import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ellipj, ellipk

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid
from pde.calculus import errors, laplacian, on_grid, orders, right_hand_side, solve, wave


@pytest.mark.parametrize("m", [0.5, 0.999])
def test_a_periodic_array_of_fronts_is_stationary(m):
    # u = A sn(q x | m): A^2 = 2 m/(1 + m), nu q^2 (1 + m) = r; tanh fronts for m -> 1.
    nu, rate = 0.3, 1.7
    q = np.sqrt(rate / (nu * (1 + m)))
    grid = FourierGrid(256, 4 * ellipk(m) / q)
    sn, *_ = ellipj(q * np.asarray(grid.x[0]), m)
    u0 = jnp.asarray(np.sqrt(2 * m / (1 + m)) * sn)
    u = solve(pde.AllenCahn(grid, nu, rate), u0, 1.0, 200)
    np.testing.assert_allclose(u, u0, atol=1e-9)


def test_a_pair_of_tanh_fronts_of_the_documented_width_is_nearly_stationary():
    nu, rate = 0.5, 2.0
    grid = FourierGrid(256, 20.0)
    (x,) = grid.x
    scale = np.sqrt(rate / (2 * nu))
    u0 = jnp.tanh(scale * (x - 5)) - jnp.tanh(scale * (x - 15)) - 1
    u = solve(pde.AllenCahn(grid, nu, rate), u0, 1.0, 100)
    # Fronts a distance d apart meet with an error exp(-2 scale d), and are cut at the ends.
    np.testing.assert_allclose(u, u0, atol=1e-5)


def uniform(u0, rate, t):
    return 1 / np.sqrt(1 + (1 / u0**2 - 1) * np.exp(-2 * rate * t))


def test_a_uniform_state_follows_its_ordinary_differential_equation_at_order_four():
    grid = FourierGrid((8, 9), (1.0, 2.0))
    exact = uniform(0.1, 1.5, 2.0)
    equation = pde.AllenCahn(grid, 0.1, 1.5)
    found = errors(equation, jnp.full(grid.shape, 0.1), 2.0, (20, 40, 80, 160), exact)
    np.testing.assert_allclose(orders(found), 4, atol=0.3)
    assert found[-1] < 1e-7


def test_etdrk4_converges_at_order_four_on_a_field():
    grid = FourierGrid(64, 2 * np.pi)
    (x,) = grid.x
    equation = pde.AllenCahn(grid, 0.02, 2.0)
    u0 = 0.6 * jnp.cos(x) + 0.3 * jnp.sin(2 * x)
    exact = solve(equation, u0, 1.0, 1280)
    found = orders(errors(equation, u0, 1.0, (10, 20, 40, 80), exact))
    assert np.all(found > 3.5), found
    assert found[-1] == pytest.approx(4, abs=0.25)


@pytest.mark.parametrize("shape", [(16,), (16, 15), (13, 14, 16)], ids=len)
def test_the_right_hand_side_is_that_of_calculus(shape):
    grid = FourierGrid(shape, (2.0, 3.0, 2 * np.pi)[: len(shape)])
    u = wave(grid)
    rate = lambda x: 0.2 * laplacian(u)(x) + 1.5 * (u(x) - u(x) ** 3)
    found = right_hand_side(pde.AllenCahn(grid, 0.2, 1.5), on_grid(u, grid))
    np.testing.assert_allclose(found, on_grid(rate, grid), atol=1e-11)


def test_the_free_energy_is_that_of_the_docstring_and_falls(key):
    grid = FourierGrid((32, 24), (2 * np.pi, 2 * np.pi))
    equation = pde.AllenCahn(grid, 0.05, 2.0)
    x, y = grid.x
    found = equation.invariants(grid.fft(jnp.cos(x) * jnp.sin(2 * y)))["free_energy"]
    # <|grad u|^2> = 5/4, <(u^2 - 1)^2> = 9/64 - 2/4 + 1.
    assert found == pytest.approx(0.05 * 5 / 8 + 2.0 * (9 / 64 + 0.5) / 4, abs=1e-14)

    fields = [solve(equation, equation.initial(key), 0.02 * n, n) for n in (0, 5, 20, 50, 100)]
    energies = [equation.invariants(grid.fft(u))["free_energy"] for u in fields]
    assert np.all(np.diff(energies) < 0)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    grid = FourierGrid(8, 1.0)
    with pytest.raises(ValueError, match=r"`diffusivity` must be at least zero, got -1.0"):
        pde.AllenCahn(grid, -1.0)
    with pytest.raises(ValueError, match=r"`rate` must be at least zero, got -2.0"):
        pde.AllenCahn(grid, rate=-2.0)


def test_rounding_that_no_real_field_has_does_not_grow(key):
    grid = FourierGrid((16, 16), (12.0, 12.0))
    equation = pde.AllenCahn(grid, 1.0, 1.0)
    step = {"dt": 0.5, "num_steps": 200, "save_every": 200}
    solve = jax.jit(
        lambda uh: integrate.rollout(integrate.ETDRK4(), equation.term(), uh, **step)[0]
    )
    # A coefficient that no real field has, as rounding leaves it: it would grow by exp(70).
    uh = grid.fft(equation.initial(key).astype(jnp.float32)).at[0, 1, 0].add(1e-4)
    found = solve(uh)
    np.testing.assert_allclose(found, grid.project_real(found), atol=1e-3)
    assert float(jnp.max(jnp.abs(grid.ifft(found)))) < 1.1
