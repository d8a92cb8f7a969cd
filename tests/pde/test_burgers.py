import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import errors, laplacian, on_grid, orders, right_hand_side, solve, wave

NU = 0.2


def cole_hopf(grid, t):
    """u = -2 nu grad(phi)/phi for a positive solution phi of the heat equation."""

    def phi(x):
        total = 3.0 + jnp.exp(-NU * t) * jnp.cos(x[0] + 0.2)
        if grid.ndim > 1:
            total = total + 0.7 * jnp.exp(-2 * NU * t) * jnp.sin(x[0] - x[1])
        if grid.ndim > 2:
            total = total + 0.4 * jnp.exp(-2 * NU * t) * jnp.cos(x[1] + x[2])
        return total

    return on_grid(lambda x: -2 * NU * jax.grad(phi)(x) / phi(x), grid)


def box(*shape):
    return FourierGrid(shape, (2 * np.pi,) * len(shape))


@pytest.fixture(scope="module")
def line():
    return box(96)


@pytest.mark.parametrize("form", ["conservative", "advective"])
def test_one_dimension_follows_cole_hopf(line, form):
    u = solve(pde.Burgers(line, NU, form), cole_hopf(line, 0.0), 1.0, 100)
    np.testing.assert_allclose(u, cole_hopf(line, 1.0), atol=1e-10)


def test_a_moving_frame_adds_its_velocity(line):
    # u(x - c t, t) + c solves the equation if u does.
    c = 0.8
    shift = 120
    t = shift * line.spacing[0] / c
    u = solve(pde.Burgers(line, NU), cole_hopf(line, 0.0) + c, t, 1500)
    moved = jnp.roll(cole_hopf(line, t), shift, axis=-1) + c
    np.testing.assert_allclose(u, moved, atol=1e-10)


@pytest.mark.parametrize(("shape", "tolerance"), [((48, 54), 1e-7), ((24, 24, 24), 1e-4)])
def test_more_dimensions_follow_cole_hopf(shape, tolerance):
    grid = box(*shape)
    equation = pde.Burgers(grid, NU)
    u = solve(equation, cole_hopf(grid, 0.0), 0.5, 10)
    assert equation.channels == grid.ndim
    np.testing.assert_allclose(u, cole_hopf(grid, 0.5), atol=tolerance)


@pytest.mark.parametrize("form", ["conservative", "advective"])
def test_etdrk4_converges_at_order_four(line, form):
    steps = (5, 10, 20, 40)
    u0 = 8 * cole_hopf(line, 0.0)
    equation = pde.Burgers(line, NU, form)
    exact = solve(equation, u0, 1.0, 640)
    found = orders(errors(equation, u0, 1.0, steps, exact))
    assert np.all(found > 3.6), found
    assert found[-1] == pytest.approx(4, abs=0.25)


@pytest.mark.parametrize("shape", [(16,), (16, 15), (12, 13, 14)], ids=len)
def test_the_right_hand_side_is_that_of_calculus(shape):
    grid = FourierGrid(shape, (2.0, 3.0, 2 * np.pi)[: len(shape)])
    parts = [wave(grid, 0.3 * (i + 1)) for i in range(grid.ndim)]
    u = lambda x: jnp.stack([part(x) for part in parts])
    expected = on_grid(lambda x: -jax.jacobian(u)(x) @ u(x) + NU * laplacian(u)(x), grid)
    forms = ("conservative", "advective") if grid.ndim == 1 else (None,)
    for form in forms:
        found = right_hand_side(pde.Burgers(grid, NU, form), on_grid(u, grid))
        np.testing.assert_allclose(found, expected, atol=1e-11)


def test_the_mean_is_kept_and_the_energy_falls(line):
    equation = pde.Burgers(line, 0.05)
    u0 = 0.3 + jnp.sin(line.x[0])
    fields = [solve(equation, u0, 0.02 * n, n) for n in (0, 20, 50, 100)]
    found = [equation.invariants(line.fft(u[None])) for u in fields]
    energies = np.array([f["energy"] for f in found])
    assert energies[0] == pytest.approx((0.3**2 + 0.5) / 2, abs=1e-14)
    assert np.all(np.diff(energies) < 0)
    np.testing.assert_allclose([f["mean"] for f in found], 0.3, atol=1e-14)


def test_a_state_without_channel_axis_has_the_same_invariants(line):
    equation = pde.Burgers(line)
    uh = line.fft(0.3 + jnp.sin(line.x[0]))
    with_axis, without = equation.invariants(uh[None]), equation.invariants(uh)
    assert without["mean"] == pytest.approx(0.3, abs=1e-14)
    assert without["energy"] == pytest.approx(float(with_axis["energy"]), abs=1e-14)
    assert without["mean"].shape == with_axis["mean"].shape == ()


def test_without_viscosity_the_energy_of_a_resolved_field_is_stationary(line):
    equation = pde.Burgers(line, 0.0)
    uh = line.dealias(line.fft(equation.initial(jax.random.key(3))))
    rate = line.inner(uh, equation.nonlinear(0.0, uh))
    scale = line.norm(uh) * line.norm(equation.nonlinear(0.0, uh))
    assert abs(rate) < 1e-14 * scale


def test_the_initial_field_has_one_independent_channel_a_dimension(key):
    u = pde.Burgers(box(12, 16)).initial(key)
    assert u.shape == (2, 12, 16)
    assert float(jnp.max(jnp.abs(u[0] - u[1]))) > 0.1
    np.testing.assert_allclose(jnp.mean(u, axis=(1, 2)), 0, atol=1e-14)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match=r"`viscosity` must be at least zero, got -0.1"):
        pde.Burgers(box(8), -0.1)
    with pytest.raises(ValueError, match=r"`form` must be one of .*got 'skew'"):
        pde.Burgers(box(8), form="skew")
    with pytest.raises(ValueError, match=r"`form` must be 'advective'.*got 'conservative'"):
        pde.Burgers(box(8, 8), form="conservative")
