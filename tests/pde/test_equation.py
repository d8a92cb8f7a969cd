"""What holds for every equation."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid

LINE = FourierGrid(16, 2 * np.pi)
PLANE = FourierGrid((8, 9), (2 * np.pi, 2 * np.pi))

# name: (class, factory, grid, parameters, their values)
CASES = {
    "heat": (pde.Heat, pde.heat, PLANE, {"diffusivity": 0.1}),
    "advection_diffusion": (
        pde.AdvectionDiffusion,
        pde.advection_diffusion,
        LINE,
        {"velocity": 0.8, "diffusivity": 0.1},
    ),
    "burgers_1d": (pde.Burgers, pde.burgers, LINE, {"viscosity": 0.1}),
    "burgers_2d": (pde.Burgers, pde.burgers, PLANE, {"viscosity": 0.1}),
    "korteweg_de_vries": (
        pde.KortewegDeVries,
        pde.korteweg_de_vries,
        LINE,
        {"convection": 0.9, "dispersion": 0.05, "viscosity": 0.02},
    ),
    "kuramoto_sivashinsky_1d": (
        pde.KuramotoSivashinsky,
        pde.kuramoto_sivashinsky,
        LINE,
        {"convection": 0.9},
    ),
    "kuramoto_sivashinsky_2d": (
        pde.KuramotoSivashinsky,
        pde.kuramoto_sivashinsky,
        PLANE,
        {"convection": 0.9},
    ),
    "allen_cahn": (pde.AllenCahn, pde.allen_cahn, PLANE, {"diffusivity": 0.1, "rate": 1.2}),
    "navier_stokes_2d": (
        pde.NavierStokes2D,
        pde.navier_stokes_2d,
        PLANE,
        {"viscosity": 0.05, "drag": 0.1, "forcing": pde.kolmogorov(2)},
    ),
    "hyper_diffusion": (
        pde.HyperDiffusion,
        pde.hyper_diffusion,
        LINE,
        {"hyper_diffusivity": 0.05},
    ),
    "dispersion": (pde.Dispersion, pde.dispersion, LINE, {"dispersivity": 0.2}),
    "fisher_kpp": (pde.FisherKPP, pde.fisher_kpp, PLANE, {"diffusivity": 0.1, "rate": 1.2}),
    "swift_hohenberg": (
        pde.SwiftHohenberg,
        pde.swift_hohenberg,
        LINE,
        {"growth": 0.4, "critical_wavenumber": 0.9, "quadratic": 0.6},
    ),
    "cahn_hilliard": (
        pde.CahnHilliard,
        pde.cahn_hilliard,
        LINE,
        {"gamma": 0.05, "mobility": 1.1, "stabilization": 2.5},
    ),
    "general_linear": (
        pde.GeneralLinear,
        pde.general_linear,
        LINE,
        {"coefficients": jnp.array([0.1, -0.3, 0.1])},
    ),
    "general_convection": (
        pde.GeneralConvection,
        pde.general_convection,
        LINE,
        {"coefficients": jnp.array([0.1, -0.3, 0.1]), "convection": 0.8},
    ),
    "general_gradient_norm": (
        pde.GeneralGradientNorm,
        pde.general_gradient_norm,
        LINE,
        {"coefficients": jnp.array([0.1, -0.3, 0.1]), "gradient_norm": 0.8},
    ),
    "general_polynomial": (
        pde.GeneralPolynomial,
        pde.general_polynomial,
        LINE,
        {
            "coefficients": jnp.array([0.1, -0.3, 0.1]),
            "polynomial": jnp.array([0.1, 0.2, 0.3, -0.4]),
        },
    ),
    "general_nonlinear": (
        pde.GeneralNonlinear,
        pde.general_nonlinear,
        LINE,
        {
            "coefficients": jnp.array([0.1, -0.3, 0.1]),
            "quadratic": 0.3,
            "convection": 0.8,
            "gradient_norm": 0.5,
        },
    ),
}
# Initial fields that are not free of a mean: the range of their values.
RANGES = {"fisher_kpp": (0.0, 1.0)}


def make(name):
    cls, _, grid, parameters = CASES[name]
    return cls(grid, **parameters)


def field(equation, dtype=float):
    """A smooth field without small scales."""
    grid = equation.grid
    x = grid.coordinates(dtype)
    parts = [
        0.6 * jnp.sin(x[0] + 0.4 * i) + 0.4 * jnp.cos(2 * x[-1] - x[0])
        for i in range(equation.channels)
    ]
    return jnp.stack(parts)


@cache
def runs(name):
    """Value and gradient of a loss after a few steps, as a compiled function of the parameters."""
    equation = make(name)

    def loss(equation, u0):
        grid = equation.grid
        step = {"dt": 0.04, "num_steps": 3, "save_every": 3}
        (uh,) = integrate.rollout(integrate.ETDRK2(), equation.term(), grid.fft(u0), **step)
        # The weight breaks the symmetry under translations.
        weight = 1 + jnp.cos(grid.coordinates(u0.dtype)[0] - 0.7)
        return jnp.mean(weight * jnp.sin(grid.ifft(uh) + 0.1))

    value_and_grad = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    return equation, loss, value_and_grad


@pytest.mark.parametrize("name", CASES)
def test_the_residual_is_the_rate_minus_both_parts(name, key):
    equation = make(name)
    grid = equation.grid
    uh, rate = grid.fft(field(equation)), grid.fft(equation.initial(key))
    found = equation.residual(0.3, uh, rate)
    by_hand = rate - equation.symbol() * uh - equation.nonlinear(0.3, uh)
    np.testing.assert_allclose(found, by_hand, atol=1e-10)
    on_solution = equation.symbol() * uh + equation.nonlinear(0.3, uh)
    np.testing.assert_allclose(equation.residual(0.3, uh, on_solution), 0, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_the_factory_gives_the_term_of_the_class(name):
    cls, factory, grid, parameters = CASES[name]
    equation = cls(grid, **parameters)
    term = factory(grid, **parameters)
    uh = grid.fft(field(equation))
    t = jnp.asarray(0.0)
    assert isinstance(term, integrate.SemilinearTerm)
    np.testing.assert_array_equal(term.vf(t, uh, None), equation.term().vf(t, uh, None))
    real = equation.term(real_state=True)
    split = real.vf(t, real.encode(uh), None)
    assert not jnp.iscomplexobj(split)
    np.testing.assert_array_equal(real.decode(split), equation.term().vf(t, uh, None))


@pytest.mark.parametrize("name", CASES)
def test_the_initial_field_is_random_real_and_mean_free_or_in_its_range(name):
    equation = make(name)
    u, v = (equation.initial(jax.random.key(i)) for i in (0, 1))
    assert u.shape == (equation.channels, *equation.grid.shape)
    assert u.dtype == jnp.float64
    assert float(jnp.std(u)) > 0.05
    assert not jnp.allclose(u, v)
    np.testing.assert_array_equal(u, equation.initial(jax.random.key(0)))
    if name in RANGES:
        low, high = RANGES[name]
        assert float(jnp.min(u)) >= low
        assert float(jnp.max(u)) <= high
    else:
        np.testing.assert_allclose(jnp.mean(u, axis=tuple(range(1, u.ndim))), 0, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_is_an_array_leaf_of_the_given_precision(name):
    cls, _, grid, parameters = CASES[name]
    equation = cls(grid, **parameters)
    names = [n for n in parameters if n != "forcing"]
    for n in names:
        assert isinstance(getattr(equation, n), jax.Array)
        assert getattr(equation, n).dtype == jnp.float64
    small = cls(grid, **{n: jnp.asarray(parameters[n], jnp.float32) for n in names})
    for n in names:
        assert getattr(small, n).dtype == jnp.float32


@pytest.mark.parametrize("name", CASES)
def test_single_precision_stays_single_with_float64_enabled(name):
    equation, loss, _ = runs(name)
    u0 = field(equation, jnp.float32)
    assert u0.dtype == jnp.float32

    def everything(u0):
        uh = equation.grid.fft(u0)
        rates = equation.nonlinear(0.0, uh), equation.residual(jnp.float32(0.0), uh, uh)
        return rates, equation.invariants(uh), loss(equation, u0)

    for x in jax.tree.leaves(jax.eval_shape(everything, u0)):
        assert x.dtype in (jnp.float32, jnp.complex64)


@pytest.mark.parametrize("name", ["korteweg_de_vries", "navier_stokes_2d"])
def test_single_and_double_precision_agree(name):
    equation, loss, value_and_grad = runs(name)
    single = jax.jit(lambda u0: loss(equation, u0))(field(equation, jnp.float32))
    double, _ = value_and_grad(equation, field(equation))
    np.testing.assert_allclose(single, double, atol=3e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradients_match_central_differences_in_every_parameter(name):
    equation, _, value_and_grad = runs(name)
    u0 = field(equation)
    _, gradient = value_and_grad(equation, u0)
    h = 1e-5
    for n in CASES[name][3]:
        if n == "forcing":
            continue
        where = lambda e: getattr(e, n)  # noqa: B023
        x = where(equation)
        plus, minus = (value_and_grad(eqx.tree_at(where, equation, x + s), u0)[0] for s in (h, -h))
        found = float(jnp.sum(where(gradient)))
        assert found == pytest.approx(float(plus - minus) / (2 * h), rel=1e-6, abs=1e-10), n
        assert abs(found) > 1e-4, n


def test_derivatives_by_the_initial_field_match_central_differences():
    equation, loss, _ = runs("burgers_1d")
    u0 = field(equation)
    direction = jnp.cos(3 * equation.grid.x[0])[None]

    def along(s):
        return loss(equation, u0 + s * direction)

    value = jax.jit(along)
    difference = float(value(1e-5) - value(-1e-5)) / 2e-5
    assert jax.jit(jax.grad(along))(0.0) == pytest.approx(difference, rel=1e-6)
    assert jax.jit(jax.jacfwd(along))(0.0) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("name", ["korteweg_de_vries", "navier_stokes_2d"])
def test_a_batch_over_parameters_and_fields_equals_a_loop(name):
    equation, loss, value_and_grad = runs(name)
    nus = jnp.array([0.01, 0.05, 0.2])
    fields = jnp.stack([field(equation) * s for s in (1.0, 0.5, -0.7)])
    with_nu = lambda nu: eqx.tree_at(lambda e: e.viscosity, equation, nu)
    batched = jax.jit(jax.vmap(lambda nu, u0: loss(with_nu(nu), u0)))(nus, fields)
    one_by_one = [value_and_grad(with_nu(nu), u0)[0] for nu, u0 in zip(nus, fields)]
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-12)


def test_an_equation_can_be_made_under_vmap():
    found = jax.vmap(lambda nu: pde.Heat(LINE, nu).symbol())(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(found, -jnp.array([[0.1], [0.2]]) * LINE.k2, rtol=1e-15)


def test_a_new_equation_needs_two_functions():
    class Growth(pde.AbstractEquation):
        grid: FourierGrid

        def symbol(self):
            return jnp.asarray(0.5)

        def nonlinear(self, t, uh, args=None):
            return self.grid.fft(jnp.full((1, *self.grid.shape), args * t))

        def invariants(self, uh):
            return {}

    equation = Growth(LINE)
    uh = LINE.fft(jnp.ones((1, *LINE.shape)))
    rate = equation.term().vf(jnp.asarray(2.0), uh, 3.0)
    np.testing.assert_allclose(LINE.ifft(rate), 0.5 + 6.0, atol=1e-13)
    with pytest.raises(TypeError, match="abstract"):
        pde.AbstractEquation()
