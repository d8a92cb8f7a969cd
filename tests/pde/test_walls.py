import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import CosineGrid, FourierGrid, SineGrid
from pde.calculus import errors, orders, right_hand_side, solve


@pytest.mark.parametrize("kind", [SineGrid, CosineGrid])
def test_a_mode_of_the_heat_equation_decays_exactly(kind):
    grid = kind((8, 6), (1.0, 2.0))
    wave = jnp.sin if kind is SineGrid else jnp.cos
    x, y = grid.x
    u0 = wave(2 * np.pi * x) * wave(np.pi * y / 2)
    equation = pde.Heat(grid, 0.1)
    found = pde.simulate(equation, u0, jnp.array([0.0, 0.5]), dt=0.25).ys[-1]
    rate = 0.1 * ((2 * np.pi) ** 2 + (np.pi / 2) ** 2)
    np.testing.assert_allclose(found, np.exp(-rate * 0.5) * u0, atol=1e-13)


@pytest.mark.parametrize("kind", [SineGrid, CosineGrid])
def test_allen_cahn_between_walls_is_half_of_the_extended_periodic_problem(kind):
    n, sign = 24, -1 if kind is SineGrid else 1
    grid, periodic = kind(n, np.pi), FourierGrid(2 * n, 2 * np.pi)
    (x,) = grid.x
    wave = jnp.sin if kind is SineGrid else jnp.cos
    u0 = 0.6 * wave(x) + 0.3 * wave(2 * x)
    extended = jnp.concatenate([u0, sign * u0[::-1]])
    found = solve(pde.AllenCahn(grid, 0.05, 2.0), u0, 0.5, 20)
    expected = solve(pde.AllenCahn(periodic, 0.05, 2.0), extended, 0.5, 20)
    np.testing.assert_allclose(found, expected[:n], atol=1e-12)


REACTIONS = [
    pde.FisherKPP,
    pde.SwiftHohenberg,
    pde.CahnHilliard,
    pde.GrayScott,
    pde.FitzHughNagumo,
    pde.BelousovZhabotinsky,
    pde.HyperDiffusion,
]


@pytest.mark.parametrize("cls", REACTIONS)
def test_a_rate_without_flux_through_walls_is_half_of_the_extended_periodic_one(cls):
    n = 24
    grid, periodic = CosineGrid((n, 8), (np.pi, 1.0)), FourierGrid((2 * n, 16), (2 * np.pi, 2.0))
    x, y = grid.x
    wave = lambda i: 0.4 + 0.2 * jnp.cos((i + 1) * x) + 0.1 * jnp.cos(np.pi * y) * jnp.cos(x)
    u = jnp.stack([wave(i) for i in range(cls(grid).channels)])
    extended = jnp.concatenate([u, u[:, ::-1]], 1)
    extended = jnp.concatenate([extended, extended[..., ::-1]], 2)
    found = right_hand_side(cls(grid), u)
    np.testing.assert_allclose(
        found, right_hand_side(cls(periodic), extended)[:, :n, :8], atol=1e-9
    )
    for name, value in cls(grid).invariants(grid.fft(u)).items():
        expected = cls(periodic).invariants(periodic.fft(extended))[name]
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cls", REACTIONS)
def test_the_initial_field_between_walls_has_no_slope_there(cls, key):
    grid = CosineGrid(64, 1.0)
    modes = jnp.abs(grid.fft(cls(grid).initial(key)))
    assert float(modes[..., 48:].max()) < 1e-3 * float(modes.max())


def test_allen_cahn_on_sines_converges_at_order_four_to_the_rate_of_calculus():
    grid = SineGrid(16, np.pi)
    equation = pde.AllenCahn(grid, 0.2, 1.5)
    (x,) = grid.x
    u0 = 0.8 * jnp.sin(x)
    np.testing.assert_allclose(
        right_hand_side(equation, u0[None])[0],
        -0.2 * u0 + 1.5 * (u0 - u0**3),
        atol=1e-13,
    )
    exact = solve(equation, u0, 1.0, 640)
    np.testing.assert_allclose(orders(errors(equation, u0, 1.0, (10, 20, 40), exact)), 4, atol=0.4)


@pytest.mark.parametrize("cls", [pde.Heat, pde.AllenCahn])
def test_the_initial_field_is_a_series_of_the_grid(cls, key):
    u = cls(SineGrid((8, 9), (1.0, 1.0))).initial(key)
    assert u.shape == (1, 8, 9)
    assert float(jnp.std(u)) > 0.05


@pytest.mark.bad_input
def test_an_equation_that_leaves_the_series_of_the_walls_is_refused():
    with pytest.raises(ValueError, match=r"`grid` of Burgers must be one of periodic along"):
        pde.Burgers(SineGrid(8, 1.0))
