"""What holds for every equation of two coupled or complex fields."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid

LINE = FourierGrid(16, 2 * np.pi)
COMPLEX = FourierGrid(16, 2 * np.pi, real=False)

# name: (class, factory, grid, parameters)
CASES = {
    "wave": (pde.Wave, pde.wave, LINE, {"speed": 1.3}),
    "klein_gordon": (
        pde.KleinGordon,
        pde.klein_gordon,
        LINE,
        {"speed": 1.3, "squared_mass": 0.7, "coupling": 0.9},
    ),
    "sine_gordon": (
        pde.SineGordon,
        pde.sine_gordon,
        LINE,
        {"speed": 1.3, "squared_mass": 1.7},
    ),
    "nonlinear_schroedinger": (
        pde.NonlinearSchroedinger,
        pde.nonlinear_schroedinger,
        COMPLEX,
        {"dispersion": 0.4, "nonlinearity": 0.9},
    ),
    "gray_scott": (
        pde.GrayScott,
        pde.gray_scott,
        LINE,
        {"diffusivity_u": 0.2, "diffusivity_v": 0.1, "feed": 0.4, "kill": 0.6},
    ),
    "fitzhugh_nagumo": (
        pde.FitzHughNagumo,
        pde.fitzhugh_nagumo,
        LINE,
        {
            "diffusivity_u": 0.2,
            "diffusivity_v": 0.1,
            "epsilon": 0.3,
            "a": 0.7,
            "b": 0.8,
            "current": 0.5,
        },
    ),
    "belousov_zhabotinsky": (
        pde.BelousovZhabotinsky,
        pde.belousov_zhabotinsky,
        LINE,
        {"diffusivity_u": 0.2, "diffusivity_v": 0.1, "epsilon": 0.4, "f": 1.4, "q": 0.2},
    ),
}


def make(name):
    cls, _, grid, parameters = CASES[name]
    return cls(grid, **parameters)


def field(equation, dtype=float):
    """Smooth positive fields; a complex one for complex grids."""
    (x,) = equation.grid.coordinates(dtype)
    u, v = 0.8 + 0.3 * jnp.sin(x), 0.6 + 0.3 * jnp.cos(2 * x) - 0.2 * jnp.sin(x)
    if not equation.grid.real:
        return jax.lax.complex(u, v)[None]
    return jnp.stack([u, v])


@cache
def runs(name):
    equation = make(name)

    def loss(equation, u0):
        grid = equation.grid
        step = {"dt": 0.05, "num_steps": 4, "save_every": 4}
        (uh,) = integrate.rollout(integrate.ETDRK2(), equation.term(), grid.fft(u0), **step)
        u = grid.ifft(uh)
        weight = 1 + jnp.cos(grid.coordinates(u0.dtype)[0] - 0.7)
        return jnp.mean(weight * jnp.sin(u.real + 2 * u.imag + 0.1))

    return equation, loss, eqx.filter_jit(eqx.filter_value_and_grad(loss))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradients_match_central_differences_in_every_parameter(name):
    equation, _, value_and_grad = runs(name)
    u0 = field(equation)
    _, gradient = value_and_grad(equation, u0)
    h = 1e-5
    for n in CASES[name][3]:
        where = lambda e: getattr(e, n)  # noqa: B023
        x = where(equation)
        assert x.dtype == jnp.float64
        plus, minus = (value_and_grad(eqx.tree_at(where, equation, x + s), u0)[0] for s in (h, -h))
        found = float(where(gradient))
        assert found == pytest.approx(float(plus - minus) / (2 * h), rel=1e-6, abs=1e-10), n
        assert abs(found) > 1e-5, n


@pytest.mark.parametrize("name", CASES)
def test_single_precision_stays_single_with_float64_enabled(name):
    equation, loss, _ = runs(name)
    u0 = field(equation, jnp.float32)

    def everything(u0):
        uh = equation.grid.fft(u0)
        rates = equation.nonlinear(0.0, uh), equation.residual(jnp.float32(0.0), uh, uh)
        return rates, equation.invariants(uh), loss(equation, u0)

    for x in jax.tree.leaves(jax.eval_shape(everything, u0)):
        assert x.dtype in (jnp.float32, jnp.complex64)


@pytest.mark.parametrize("name", CASES)
def test_the_factory_gives_the_term_of_the_class_and_the_residual_is_its_balance(name):
    _, factory, grid, parameters = CASES[name]
    equation = make(name)
    uh = grid.fft(field(equation))
    t = jnp.asarray(0.3)
    rate = equation.term().vf(t, uh, None)
    np.testing.assert_array_equal(factory(grid, **parameters).vf(t, uh, None), rate)
    np.testing.assert_allclose(equation.residual(t, uh, rate + uh), uh, atol=1e-12)
    real = equation.term(real_state=True)
    np.testing.assert_array_equal(real.decode(real.vf(t, real.encode(uh), None)), rate)


@pytest.mark.parametrize("name", CASES)
def test_the_initial_field_is_random_and_shaped_as_the_state(name):
    equation = make(name)
    u, v = (equation.initial(jax.random.key(i)) for i in (0, 1))
    assert u.shape == (equation.channels, *equation.grid.shape)
    assert jnp.iscomplexobj(u) == (not equation.grid.real)
    assert float(jnp.std(u[0])) > 0.02
    assert not jnp.allclose(u, v)


@eqx.filter_jit
def solutions(equation, u0, t1, num_steps):
    """The fields at t1 by ETDRK2 and ETDRK4; compiles once for all numbers of steps."""
    grid, term, dt = equation.grid, equation.term(), t1 / num_steps
    ends = []
    for solver in (integrate.ETDRK2(), integrate.ETDRK4()):
        coefficients = solver.coefficients(term, 0.0, dt)

        def step(i, carry, solver=solver, coefficients=coefficients):
            y, history = carry
            y, _, _, history = solver.advance(term, coefficients, i * dt, dt, y, None, history)
            return y, history

        start = grid.fft(u0), solver.start(term, 0.0, grid.fft(u0), None)
        ends.append(grid.ifft(jax.lax.fori_loop(0, num_steps, step, start)[0]))
    return ends


@pytest.mark.parametrize("name", [n for n in CASES if n != "wave"])
def test_etdrk2_converges_at_order_two_and_etdrk4_at_order_four(name):
    equation = make(name)
    run = lambda n: solutions(equation, field(equation), jnp.asarray(1.0), jnp.asarray(n))
    exact = run(800)[1]
    errors = np.array([[float(jnp.max(jnp.abs(u - exact))) for u in run(n)] for n in (40, 80)])
    second, fourth = np.log2(errors[0] / errors[1])
    assert second == pytest.approx(2, abs=0.25), errors
    assert fourth == pytest.approx(4, abs=0.4), errors


@pytest.mark.bad_input
def test_bad_parameters_are_named():
    for cls, name, value, allowed in [
        (pde.Wave, "speed", 0.0, "positive"),
        (pde.KleinGordon, "coupling", float("nan"), "finite"),
        (pde.SineGordon, "squared_mass", float("inf"), "finite"),
        (pde.GrayScott, "feed", -0.1, "at least zero"),
        (pde.FitzHughNagumo, "epsilon", -0.1, "at least zero"),
        (pde.BelousovZhabotinsky, "epsilon", 0.0, "positive"),
        (pde.BelousovZhabotinsky, "q", -1.0, "positive"),
    ]:
        with pytest.raises(ValueError, match=f"`{name}` must be {allowed}, got {value}"):
            cls(LINE, **{name: value})
    with pytest.raises(ValueError, match="`grid` must be one for complex fields"):
        pde.NonlinearSchroedinger(LINE)
