import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import errors, laplacian, on_grid, orders, right_hand_side, solve, wave


@pytest.fixture(scope="module")
def line():
    return FourierGrid(128, 8 * np.pi)


@pytest.fixture(scope="module")
def potential(line):
    """A field for the gradient form, whose slope starts the conservative one."""
    k = 2 * np.pi / line.lengths[0]
    (x,) = line.x
    return jnp.sin(k * x) / k - 0.3 * jnp.cos(2 * k * x) / (2 * k)


@pytest.fixture(scope="module")
def slope(line):
    k = 2 * np.pi / line.lengths[0]
    (x,) = line.x
    return jnp.cos(k * x) + 0.3 * jnp.sin(2 * k * x)


def test_etdrk4_converges_at_order_four_in_conservative_form(line, slope):
    equation = pde.KuramotoSivashinsky(line)
    exact = solve(equation, slope, 2.0, 3200)
    found = errors(equation, slope, 2.0, (25, 50, 100, 200), exact)
    assert found[0] == pytest.approx(7.71e-7, rel=0.02)
    assert found[-1] == pytest.approx(3.97e-10, rel=0.03)
    np.testing.assert_allclose(orders(found), [3.5, 3.7, 3.8], atol=0.1)


def test_etdrk4_converges_at_order_four_in_gradient_form(line, potential):
    equation = pde.KuramotoSivashinsky(line, form="gradient")
    exact = solve(equation, potential, 2.0, 1600)
    found = orders(errors(equation, potential, 2.0, (25, 50, 100, 200), exact))
    assert np.all(np.diff(found) > 0)
    assert found[-1] > 3.6


def test_the_slope_of_the_gradient_form_solves_the_conservative_form(line, potential, slope):
    u = solve(pde.KuramotoSivashinsky(line, form="gradient"), potential, 5.0, 1000)
    w = solve(pde.KuramotoSivashinsky(line), slope, 5.0, 1000)
    derivative = line.ifft(line.derivative(line.fft(u), 0))
    np.testing.assert_allclose(derivative, w, atol=1e-9)


@pytest.mark.parametrize("shape", [(16,), (16, 15), (10, 11, 12)], ids=len)
def test_the_right_hand_sides_are_those_of_calculus(shape):
    grid = FourierGrid(shape, (5.0, 6.0, 7.0)[: len(shape)])
    u = wave(grid)
    linear = lambda x: -laplacian(u)(x) - laplacian(laplacian(u))(x)
    field = on_grid(u, grid)

    gradient = lambda x: linear(x) - 0.5 * 1.7 * jnp.sum(jax.grad(u)(x) ** 2)
    found = right_hand_side(pde.KuramotoSivashinsky(grid, 1.7, "gradient"), field)
    np.testing.assert_allclose(found, on_grid(gradient, grid), atol=1e-11)

    if grid.ndim == 1:
        conservative = lambda x: linear(x) - 1.7 * u(x) * jax.grad(u)(x)[0]
        found = right_hand_side(pde.KuramotoSivashinsky(grid, 1.7), field)
        np.testing.assert_allclose(found, on_grid(conservative, grid), atol=1e-11)


def test_a_field_of_one_coordinate_evolves_in_two_dimensions_as_in_one():
    line, plane = FourierGrid(32, 9.0), FourierGrid((32, 6), (9.0, 2.0))
    u0 = 0.4 * jnp.cos(2 * np.pi * line.x[0] / 9.0)
    u = solve(pde.KuramotoSivashinsky(line, form="gradient"), u0, 1.0, 50)
    v = solve(pde.KuramotoSivashinsky(plane), jnp.tile(u0[:, None], (1, 6)), 1.0, 50)
    np.testing.assert_allclose(v, jnp.tile(u[:, None], (1, 6)), atol=1e-12)


def test_small_waves_grow_at_the_linear_rate():
    grid = FourierGrid(32, 10.0)
    k = 2 * np.pi / 10.0
    u = solve(pde.KuramotoSivashinsky(grid), 1e-9 * jnp.cos(k * grid.x[0]), 3.0, 10)
    exact = 1e-9 * np.exp((k**2 - k**4) * 3.0) * np.cos(k * grid.x[0])
    np.testing.assert_allclose(u, exact, atol=1e-16)


def test_the_mean_is_kept_in_conservative_form_and_falls_in_gradient_form(line, slope):
    def means(form):
        equation = pde.KuramotoSivashinsky(line, form=form)
        fields = [solve(equation, 0.2 + slope, 0.05 * n, n) for n in (0, 10, 20, 40)]
        return [equation.invariants(line.fft(u[None]))["mean"] for u in fields]

    np.testing.assert_allclose(means("conservative"), 0.2, atol=1e-14)
    assert np.all(np.diff(means("gradient")) < 0)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    plane = FourierGrid((8, 8), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"`convection` must be finite, got nan"):
        pde.KuramotoSivashinsky(plane, float("nan"))
    with pytest.raises(ValueError, match=r"`form` must be one of .*got 'advective'"):
        pde.KuramotoSivashinsky(plane, form="advective")
    with pytest.raises(ValueError, match=r"`form` must be 'gradient' in more than one dimension"):
        pde.KuramotoSivashinsky(plane, form="conservative")
