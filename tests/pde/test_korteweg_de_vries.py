import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import errors, on_grid, orders, right_hand_side, solve, wave


def soliton(grid, t, c, a, b):
    (length,) = grid.lengths
    x = (grid.x[0] - c * t) % length - length / 2
    return 3 * c / a / jnp.cosh(jnp.sqrt(c / (4 * b)) * x) ** 2


@pytest.mark.parametrize(("c", "a", "b"), [(1.0, 6.0, 1.0), (1.5, -2.0, 1.5)])
def test_a_soliton_travels_unchanged(c, a, b):
    grid = FourierGrid(384, 60.0)
    u = solve(pde.KortewegDeVries(grid, a, b), soliton(grid, 0.0, c, a, b), 2.0, 2000)
    np.testing.assert_allclose(u, soliton(grid, 2.0, c, a, b), atol=1e-10)


def test_etdrk4_converges_at_order_four_though_the_linear_part_is_imaginary():
    grid = FourierGrid(128, 2 * np.pi)
    (x,) = grid.x
    equation = pde.KortewegDeVries(grid, convection=1.0, dispersion=0.05)
    u0 = jnp.cos(x) + 0.3 * jnp.sin(2 * x)
    exact = solve(equation, u0, 0.5, 3200)
    found = errors(equation, u0, 0.5, (25, 50, 100, 200), exact)
    np.testing.assert_allclose(found, [2.04e-6, 1.56e-7, 9.79e-9, 6.36e-10], rtol=0.02)
    np.testing.assert_allclose(orders(found), 4, atol=0.35)


def test_the_right_hand_side_is_that_of_calculus():
    grid = FourierGrid(17, 3.0)
    u = wave(grid)
    d1 = lambda x: jax.grad(u)(x)[0]
    d2 = lambda x: jax.grad(d1)(x)[0]
    d3 = lambda x: jax.grad(d2)(x)[0]
    rate = lambda x: -2.5 * u(x) * d1(x) - 0.3 * d3(x) + 0.2 * d2(x)
    found = right_hand_side(pde.KortewegDeVries(grid, 2.5, 0.3, 0.2), on_grid(u, grid))
    np.testing.assert_allclose(found, on_grid(rate, grid), atol=1e-11)


@pytest.fixture(scope="module")
def trajectory():
    grid = FourierGrid(64, 2 * np.pi)

    def run(viscosity):
        equation = pde.KortewegDeVries(grid, 1.0, 0.05, viscosity)
        u0 = 0.2 + jnp.cos(grid.x[0])
        fields = [solve(equation, u0, 1e-3 * n, n) for n in (0, 250, 500, 1000)]
        found = [equation.invariants(grid.fft(u[None])) for u in fields]
        return {name: np.array([f[name] for f in found]) for name in found[0]}

    return run


def test_without_viscosity_mean_momentum_and_energy_are_kept(trajectory):
    found = trajectory(0.0)
    # <u^2>/2, and <b u_x^2/2 - a u^3/6> of u = .2 + cos x.
    assert found["mean"][0] == pytest.approx(0.2, abs=1e-14)
    assert found["momentum"][0] == pytest.approx((0.04 + 0.5) / 2, abs=1e-14)
    cubic = 0.2**3 + 3 * 0.2 * 0.5
    assert found["energy"][0] == pytest.approx(0.05 / 4 - cubic / 6, abs=1e-14)
    for name in ("mean", "momentum", "energy"):
        np.testing.assert_allclose(found[name], found[name][0], rtol=1e-9)


def test_viscosity_keeps_the_mean_and_lowers_the_momentum(trajectory):
    found = trajectory(0.05)
    np.testing.assert_allclose(found["mean"], 0.2, atol=1e-14)
    assert np.all(np.diff(found["momentum"]) < 0)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    grid = FourierGrid(8, 1.0)
    with pytest.raises(ValueError, match=r"`grid` must have one dimension"):
        pde.KortewegDeVries(FourierGrid((8, 8), (1.0, 1.0)))
    with pytest.raises(ValueError, match=r"`convection` must be finite, got inf"):
        pde.KortewegDeVries(grid, convection=float("inf"))
    with pytest.raises(ValueError, match=r"`dispersion` must be finite, got nan"):
        pde.KortewegDeVries(grid, dispersion=float("nan"))
    with pytest.raises(ValueError, match=r"`viscosity` must be at least zero, got -1.0"):
        pde.KortewegDeVries(grid, viscosity=-1.0)
