import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import laplacian, on_grid, right_hand_side, solve, wave

GRIDS = [
    FourierGrid(17, 3.0),
    FourierGrid((12, 9), (2 * np.pi, 3.0)),
    FourierGrid((8, 9, 10), (2.0, 3.0, 2 * np.pi)),
]
XI = jnp.array([0.3, -0.2, 0.1])


def third(u, i):
    """The third derivative of a function of a point along axis i."""
    slope = lambda f: lambda x: jax.grad(f)(x)[i]
    return slope(slope(slope(u)))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.ndim}d")
def test_the_right_hand_sides_are_those_of_calculus(grid):
    u = wave(grid)
    xi = XI[: grid.ndim]
    separable = lambda x: sum(xi[i] * third(u, i)(x) for i in range(grid.ndim))
    along = lambda x: xi @ jax.grad(laplacian(u))(x)
    field = on_grid(u, grid)
    found = [
        right_hand_side(pde.Dispersion(grid, xi, f), field) for f in ("separable", "laplacian")
    ]
    np.testing.assert_allclose(found[0], on_grid(separable, grid), atol=1e-10)
    np.testing.assert_allclose(found[1], on_grid(along, grid), atol=1e-10)


def test_a_wave_moves_to_the_right_at_the_documented_speed():
    grid = FourierGrid(16, 2 * np.pi)
    (x,) = grid.x
    for form in ("separable", "laplacian"):
        u = solve(pde.Dispersion(grid, 0.1, form), jnp.sin(3 * x), 0.8, 2)
        np.testing.assert_allclose(u, jnp.sin(3 * (x - 0.1 * 9 * 0.8)), atol=1e-13)


def test_mean_and_variance_are_kept_and_a_solve_backwards_returns(key):
    grid = FourierGrid((12, 9), (2.0, 3.0))
    equation = pde.Dispersion(grid, 0.05, channels=3)
    u0 = equation.initial(key) + 0.3
    forth = solve(equation, u0, 1.0, 1)
    back = solve(pde.Dispersion(grid, -0.05, channels=3), forth, 1.0, 1)
    before, after = (equation.invariants(grid.fft(u)) for u in (u0, forth))
    assert before["mean"] == pytest.approx(0.3, abs=1e-13)
    for name in ("mean", "variance"):
        assert after[name] == pytest.approx(float(before[name]), rel=1e-13)
    assert float(jnp.max(jnp.abs(forth - u0))) > 0.1
    np.testing.assert_allclose(back, u0, atol=1e-12)


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match=r"(?s)`dispersivity` must have shape \(2,\).*got \(3,\)"):
        pde.Dispersion(GRIDS[1], jnp.ones(3))
    with pytest.raises(ValueError, match=r"`dispersivity` must be finite"):
        pde.Dispersion(GRIDS[1], float("nan"))
    with pytest.raises(ValueError, match=r"`form` must be one of .*got 'cubic'"):
        pde.Dispersion(GRIDS[1], form="cubic")
