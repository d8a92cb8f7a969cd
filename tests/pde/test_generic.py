import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import on_grid, right_hand_side, solve, wave

LINE = FourierGrid(16, 2 * np.pi)
PLANE = FourierGrid((9, 8), (2 * np.pi, 3.0))
SPACE = FourierGrid((8, 9, 8), (2.0, 3.0, 2 * np.pi))

# name: (general equation, the same as a class of its own)
SAME = {
    "heat": (pde.GeneralLinear(SPACE, (0.0, 0.0, 0.3)), pde.Heat(SPACE, 0.3)),
    "advection_diffusion": (
        pde.GeneralLinear(PLANE, (0.0, -0.7, 0.3)),
        pde.AdvectionDiffusion(PLANE, 0.7, 0.3),
    ),
    "dispersion": (
        pde.GeneralLinear(PLANE, (0.0, 0.0, 0.0, 0.2)),
        pde.Dispersion(PLANE, 0.2),
    ),
    "hyper_diffusion": (
        pde.GeneralLinear(LINE, (0.0, 0.0, 0.0, 0.0, -0.2)),
        pde.HyperDiffusion(LINE, 0.2),
    ),
    "burgers_1d": (pde.GeneralConvection(LINE, (0.0, 0.0, 0.1)), pde.Burgers(LINE, 0.1)),
    "burgers_2d": (pde.GeneralConvection(PLANE, (0.0, 0.0, 0.1)), pde.Burgers(PLANE, 0.1)),
    "korteweg_de_vries": (
        pde.GeneralConvection(LINE, (0.0, 0.0, 0.0, -0.05), 0.9),
        pde.KortewegDeVries(LINE, 0.9, 0.05, 0.0),
    ),
    "kuramoto_sivashinsky": (
        pde.GeneralConvection(LINE, (0.0, 0.0, -1.0, 0.0, -1.0), 1.1),
        pde.KuramotoSivashinsky(LINE, 1.1),
    ),
    "kuramoto_sivashinsky_gradient": (
        pde.GeneralGradientNorm(LINE, gradient_norm=1.1),
        pde.KuramotoSivashinsky(LINE, 1.1, "gradient"),
    ),
    "fisher_kpp": (
        pde.GeneralPolynomial(PLANE, (1.5, 0.0, 0.1), (0.0, 0.0, -1.5)),
        pde.FisherKPP(PLANE, 0.1, 1.5),
    ),
    "allen_cahn": (
        pde.GeneralPolynomial(PLANE, (1.5, 0.0, 0.1), (0.0, 0.0, 0.0, -1.5)),
        pde.AllenCahn(PLANE, 0.1, 1.5),
    ),
    "burgers_of_all_quadratics": (
        pde.GeneralNonlinear(LINE, (0.0, 0.0, 0.1)),
        pde.Burgers(LINE, 0.1),
    ),
    "fisher_kpp_of_all_quadratics": (
        pde.GeneralNonlinear(PLANE, (1.5, 0.0, 0.1), -1.5, 0.0),
        pde.FisherKPP(PLANE, 0.1, 1.5),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_a_general_equation_contains_the_single_ones(name, key):
    general, single = SAME[name]
    grid = general.grid
    assert general.channels == single.channels
    uh = grid.fft(jax.random.normal(key, (single.channels, *grid.shape)))
    linear = general.symbol() * uh, single.symbol() * uh
    scale = 1e-12 * float(jnp.max(jnp.abs(linear[1])))
    np.testing.assert_allclose(linear[0], linear[1], rtol=1e-12, atol=scale)
    nonlinear = general.nonlinear(0.0, uh), single.nonlinear(0.0, uh)
    scale = 1e-12 * float(jnp.max(jnp.abs(nonlinear[1])))
    np.testing.assert_allclose(nonlinear[0], nonlinear[1], rtol=1e-12, atol=scale)


@pytest.mark.parametrize("grid", [LINE, PLANE, SPACE], ids=lambda g: f"{g.ndim}d")
def test_the_quadratic_terms_are_those_of_calculus(grid):
    u = wave(grid)
    field = on_grid(u, grid)
    slope = jax.grad(u)
    rate = lambda x: (
        0.2 * u(x)
        + 0.3 * jnp.sum(slope(x))
        + 0.7 * u(x) ** 2
        - 0.9 * u(x) * jnp.sum(slope(x))
        - 0.4 / 2 * jnp.sum(slope(x) ** 2)
    )
    found = right_hand_side(pde.GeneralNonlinear(grid, (0.2, 0.3), 0.7, 0.9, 0.4), field)
    np.testing.assert_allclose(found, on_grid(rate, grid), atol=1e-11)

    parts = (
        pde.GeneralConvection(grid, (0.0,), 0.9, single_channel=True),
        pde.GeneralGradientNorm(grid, (0.2, 0.3), 0.4),
        pde.GeneralPolynomial(grid, (0.0,), (0.0, 0.0, 0.7)),
    )
    assert parts[0].channels == 1
    total = sum(right_hand_side(part, field) for part in parts)
    np.testing.assert_allclose(total, found, atol=1e-12)


def test_a_polynomial_of_high_degree_keeps_no_aliases():
    # cos(2 x)^5 = (cos 10 x + 5 cos 6 x + 10 cos 2 x)/16, and |n| < 16/6 remains.
    u = jnp.cos(2 * LINE.x[0])
    equation = pde.GeneralPolynomial(LINE, (0.0,), (0.3, -0.2, 0.0, 0.0, 0.0, 1.6))
    found = right_hand_side(equation, u)
    np.testing.assert_allclose(found, 0.3 - 0.2 * u + u, atol=1e-13)


def test_a_constant_and_a_linear_reaction_lose_no_modes(key):
    u = jax.random.normal(key, (16,))
    for polynomial in [(0.3,), (0.3, -0.2)]:
        equation = pde.GeneralPolynomial(LINE, (0.0,), polynomial)
        expected = sum(c * u**p for p, c in enumerate(polynomial))
        np.testing.assert_allclose(right_hand_side(equation, u), expected, atol=1e-13)


def test_every_order_of_derivative_acts_on_a_wave_exactly():
    (x,) = LINE.x
    for order, exact in enumerate([jnp.sin, jnp.cos, lambda x: -jnp.sin(x), lambda x: -jnp.cos(x)]):
        for more in (0, 4):
            a = (0.0,) * (order + more) + (0.1,)
            found = LINE.ifft(pde.GeneralLinear(LINE, a).symbol() * LINE.fft(jnp.sin(2 * x)))
            expected = 0.1 * 2 ** (order + more) * exact(2 * x)
            np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_linear_equation_is_solved_exactly_for_many_channels(key):
    equation = pde.GeneralLinear(PLANE, (-0.2, -0.5, 0.1), channels=2)
    x, y = PLANE.x
    k = 2 * np.pi / 3
    u0 = jnp.stack([jnp.sin(x + k * y), jnp.cos(2 * x)])
    assert equation.initial(key).shape == u0.shape
    found = solve(equation, u0, 0.8, 2)
    move = 0.5 * 0.8
    decay = np.exp(-0.2 * 0.8 - 0.1 * 0.8 * np.array([1 + k**2, 4]))
    moved = jnp.stack([jnp.sin(x - move + k * (y - move)), jnp.cos(2 * (x - move))])
    np.testing.assert_allclose(found, decay[:, None, None] * moved, atol=1e-13)


def test_invariants_are_those_of_the_docstrings(key):
    uh = LINE.fft(0.3 + jnp.sin(LINE.x[0]))[None]
    assert pde.GeneralLinear(LINE).invariants(uh)["variance"] == pytest.approx(0.5)
    for cls in (pde.GeneralConvection, pde.GeneralGradientNorm, pde.GeneralNonlinear):
        assert cls(LINE).invariants(uh)["mean"] == pytest.approx(0.3)
    assert pde.GeneralPolynomial(LINE).invariants(uh) == {}
    noise = LINE.fft(jax.random.normal(key, (1, 16)))
    mean = lambda equation: float(LINE.mean(equation.nonlinear(0.0, noise))[0])
    assert mean(pde.GeneralConvection(LINE)) == pytest.approx(0, abs=1e-14)
    assert mean(pde.GeneralGradientNorm(LINE)) < -0.01


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match=r"`coefficients` must be at least one number"):
        pde.GeneralLinear(LINE, ())
    with pytest.raises(ValueError, match=r"`coefficients` must be finite"):
        pde.GeneralConvection(LINE, (0.0, float("nan")))
    with pytest.raises(ValueError, match=r"`polynomial` must be at least one number.*\(2, 2\)"):
        pde.GeneralPolynomial(LINE, polynomial=jnp.ones((2, 2)))
    with pytest.raises(ValueError, match=r"`gradient_norm` must be finite"):
        pde.GeneralGradientNorm(LINE, gradient_norm=float("inf"))
    with pytest.raises(ValueError, match=r"`quadratic` must be finite"):
        pde.GeneralNonlinear(LINE, quadratic=float("inf"))
    with pytest.raises(ValueError, match=r"`channels` must be at least 1, got 0"):
        pde.GeneralLinear(LINE, channels=0)
