"""Darcy flow, steady and relaxing."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import CosineGrid, FourierGrid, SineGrid
from pde.calculus import errors, orders, solve

SINES = SineGrid((16, 14), (np.pi, np.pi))
CASES = {
    "sine": (SINES, lambda x, y: jnp.sin(x) * jnp.sin(2 * y) + 0.5 * jnp.sin(3 * x) * jnp.sin(y)),
    "cosine": (
        CosineGrid((16, 14), (np.pi, np.pi)),
        lambda x, y: jnp.cos(x) * jnp.cos(2 * y) + 0.5 * jnp.cos(3 * x),
    ),
    "periodic": (
        FourierGrid((16, 15), (2 * np.pi, 2 * np.pi)),
        lambda x, y: jnp.sin(x) * jnp.cos(2 * y) + 0.5 * jnp.cos(3 * x + y),
    ),
    "sine_3d": (
        SineGrid((8, 9, 8), (np.pi,) * 3),
        lambda x, y, z: jnp.sin(x) * jnp.sin(2 * y) * jnp.sin(z),
    ),
}


def permeability(*x):
    return 2.0 + 0.7 * jnp.cos(x[0]) + 0.4 * jnp.cos(2 * x[1])


def source(u):
    """-div(a grad u) by automatic differentiation."""

    def at(*x):
        flux = lambda *x: permeability(*x) * jnp.stack(jax.grad(u, range(len(x)))(*x))
        return -sum(jax.jacfwd(flux, i)(*x)[i] for i in range(len(x)))

    return at


@cache
def manufactured(name):
    grid, u = CASES[name]
    points = [x.ravel() for x in grid.x]
    f = jax.vmap(source(u))(*points).reshape(grid.shape)
    return pde.Darcy(grid, permeability(*grid.x), f), u(*grid.x)


@pytest.mark.parametrize(
    "name",
    [pytest.param(c, marks=pytest.mark.slow) if c in ("sine", "sine_3d") else c for c in CASES],
)
def test_a_manufactured_solution_is_found_to_rounding(name):
    equation, u = manufactured(name)
    found = equation.steady(rtol=1e-14, throw=False)
    np.testing.assert_allclose(found.u, u, atol=1e-12)
    assert int(found.stats["num_steps"]) < 60


@pytest.mark.parametrize("name", ["sine", "periodic"])
def test_the_steady_state_is_a_fixed_point_of_the_relaxation(name):
    equation, u = manufactured(name)
    uh = equation.grid.fft(u[None])
    rate = equation.term().vf(jnp.asarray(0.0), uh, None)
    np.testing.assert_allclose(equation.grid.ifft(rate), 0, atol=1e-11)


@pytest.mark.slow
def test_the_relaxation_converges_at_order_four_and_its_energy_falls():
    equation, u = manufactured("sine")
    grid = equation.grid
    start = jnp.zeros(grid.shape)
    exact = solve(equation, start, 0.5, 640)
    found = errors(equation, start, 0.5, (20, 40, 80), exact)
    np.testing.assert_allclose(orders(found), 4, atol=0.4)
    energy = lambda u: float(equation.invariants(grid.fft(u.reshape(1, *grid.shape)))["energy"])
    assert energy(start) > energy(exact) > energy(u)


@pytest.mark.slow
def test_derivatives_by_permeability_and_source_match_central_differences():
    equation, _ = manufactured("sine")
    x, y = SINES.x
    bump = jnp.exp(-((x - 1) ** 2) - (y - 2) ** 2)

    @jax.jit
    def value(s, r):
        darcy = pde.Darcy(SINES, equation.permeability + s * bump, equation.source + r * bump)
        return jnp.sum(jnp.sin(darcy.steady(rtol=1e-13, throw=False).u) * bump)

    found = jax.grad(value, argnums=(0, 1))(0.0, 0.0)
    h = 1e-4
    expected = (
        (value(h, 0.0) - value(-h, 0.0)) / (2 * h),
        (value(0.0, h) - value(0.0, -h)) / (2 * h),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_a_binary_permeability_in_single_precision_converges():
    grid = SineGrid((32, 32), (1.0, 1.0))
    x, y = grid.coordinates(jnp.float32)
    a = jnp.where(jnp.sin(7 * x) * jnp.cos(5 * y) > 0, jnp.float32(12), jnp.float32(3))
    found = pde.Darcy(grid, a, jnp.float32(1)).steady()
    assert found.u.dtype == jnp.float32
    assert float(jnp.min(found.u)) > -1e-3
    assert float(jnp.max(found.u)) < 0.0737 / 3 * 1.1
    short = pde.Darcy(grid, a, jnp.float32(1)).steady(max_steps=2, throw=False)
    assert "converge" in str(short.result)


@pytest.mark.bad_input
def test_bad_problems_are_refused():
    with pytest.raises(ValueError, match="`permeability` must be positive"):
        pde.Darcy(SINES, jnp.zeros(SINES.shape))
    with pytest.raises(ValueError, match="`source` must be a number or have the shape"):
        pde.Darcy(SINES, 1.0, jnp.zeros(3))
    with pytest.raises(ValueError, match="`grid` must be for real fields"):
        pde.Darcy(FourierGrid(8, 1.0, real=False), 1.0)
    with pytest.raises(ValueError, match="`max_steps`"):
        pde.Darcy(SINES, 1.0).steady(max_steps=0)
