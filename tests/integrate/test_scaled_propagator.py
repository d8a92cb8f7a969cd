import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from integrate.test_time_varying_propagator import moment
from jaxsci.integrate import (
    CNAB2,
    CNRK2,
    DiagonalPropagator,
    ETDMultistep,
    ETDRK2,
    ETDRK3,
    ETDRK4,
    IFRK4,
    rollout,
    SBDF2,
    ScaledPropagator,
    SemilinearTerm,
)

SYMBOL = np.array([-1e6, -1e3, -20.0, 0.0, 0.7])
OSCILLATING = np.array([-1e3j, 20j, -1e3 - 100j, -50 + 500j])


def scale(t):
    return 1 + 0.5 * jnp.sin(t)


def antiderivative(t):
    return t - 0.5 * jnp.cos(t)


@pytest.mark.parametrize("symbol", [SYMBOL, OSCILLATING])
def test_propagate_is_exact_with_and_without_antiderivative(symbol):
    exact = np.exp(symbol * float(antiderivative(0.9) - antiderivative(0.2)))
    for given in (None, antiderivative):
        linear = ScaledPropagator(scale, symbol, given)
        np.testing.assert_allclose(linear.propagate(0.2, 0.9), exact, rtol=1e-11, atol=1e-300)


@pytest.mark.parametrize("symbol", [SYMBOL, OSCILLATING])
def test_moments_are_their_integrals_however_stiff(symbol):
    moments = ScaledPropagator(scale, symbol).moments(0.3, 0.4, 3)
    span = lambda s: symbol[:, None] * (antiderivative(0.4) - antiderivative(s))
    for k, value in enumerate(moments):
        np.testing.assert_allclose(value, moment(span, 0.3, 0.4, k), rtol=10.0 ** (-10 + 2 * k))


@pytest.mark.slow
def test_a_scale_that_changes_sign_within_the_step_has_right_moments_and_gradients():
    symbol = np.array([-3.0, 40j])
    span = lambda s: symbol[:, None] * (np.sin(1.7) - np.sin(s))
    make = lambda a: ScaledPropagator(lambda t: a * jnp.cos(t), symbol)
    for k, value in enumerate(make(1.0).moments(1.4, 1.7, 2)):
        np.testing.assert_allclose(value, moment(span, 1.4, 1.7, k), rtol=3e-4)
    slope = jax.jacobian(lambda a: make(a).moments(1.4, 1.7, 1)[0].real)(1.0)
    assert np.all(np.isfinite(slope))


def test_a_constant_scale_is_the_constant_propagator():
    symbol = np.array([-400.0, -1.0, 0.3])
    moments = ScaledPropagator(lambda t: jnp.asarray(2.0), symbol).moments(0.2, 0.5, 5)
    constant = DiagonalPropagator(2 * symbol).moments(0.2, 0.5, 5)
    for value, exact in zip(moments, constant):
        np.testing.assert_allclose(value, exact, rtol=1e-9)


RATES = np.array([-1.0, -300.0, 2j, -40j])


def forced(a=0.5, frequency=2.0):
    """u' = a(t) Lambda u - u^2 + g(t), whose solution is cos(t) in every entry."""

    def scale(t):
        return 1 + a * jnp.sin(frequency * t)

    def nonlinear(t, u, args):
        forcing = -jnp.sin(t) - scale(t) * RATES * jnp.cos(t) + jnp.cos(t) ** 2
        return forcing - u**2

    return SemilinearTerm(ScaledPropagator(scale, RATES), nonlinear)


def rollout_to_one(solver, num_steps):
    """The solution at t = 1 after a number of steps that may be traced."""
    term, h = forced(), 1 / jnp.asarray(num_steps, float)

    def step(i, carry):
        u, history = carry
        coefficients = solver.coefficients(term, i * h, h)
        u, _, _, history = solver.advance(term, coefficients, i * h, h, u, None, history)
        return u, history

    u0 = jnp.ones(4, complex)
    return jax.lax.fori_loop(0, num_steps, step, (u0, solver.start(term, 0.0, u0, None)))[0]


@pytest.mark.parametrize(
    ("solver", "num"),
    [
        pytest.param(ETDRK2(), 64, marks=pytest.mark.slow),
        (ETDRK4(), 64),
        (SBDF2(), 128),
        pytest.param(CNRK2(), 128, marks=pytest.mark.slow),
        pytest.param(ETDRK3(), 64, marks=pytest.mark.slow),
        pytest.param(ETDRK4("cox-matthews"), 64, marks=pytest.mark.slow),
        pytest.param(ETDMultistep(3), 128, marks=pytest.mark.slow),
        pytest.param(IFRK4(), 512, marks=pytest.mark.slow),
        pytest.param(CNAB2(), 128, marks=pytest.mark.slow),
    ],
)
def test_every_solver_keeps_its_order_where_the_linear_part_varies(solver, num):
    # Of the mildly stiff entries; the very stiff ones show the usual reduction of order.
    solve = jax.jit(lambda n: rollout_to_one(solver, n))

    def error(n):
        return np.abs(np.asarray(solve(n)) - np.cos(1.0))[[0, 2]]

    observed = np.log2(error(num) / error(2 * num))
    np.testing.assert_allclose(observed, solver.order(None), atol=0.3)


@pytest.mark.slow
def test_stiff_entries_converge_at_the_stiff_order_of_the_method():
    # Krogstad's method is of order 3 uniformly in the stiffness (Hochbruck and Ostermann 2005).
    @jax.jit
    def solve(n):
        return jnp.abs(rollout_to_one(ETDRK4(), n) - jnp.cos(1.0))

    assert np.log2(np.max(solve(128)) / np.max(solve(512))) / 2 > 2.9


@pytest.mark.slow
def test_linear_problems_are_solved_exactly_at_any_step_and_between_steps():
    term = SemilinearTerm(ScaledPropagator(scale, RATES))
    ts = jnp.asarray([0.13, 0.77, 1.0])
    with pytest.warns(UserWarning, match="[Cc]omplex"):
        solution = diffrax.diffeqsolve(
            term, ETDRK4(), 0.0, 1.0, 0.4, jnp.ones(4, complex), saveat=diffrax.SaveAt(ts=ts)
        )
    exact = np.exp(RATES * np.asarray(antiderivative(ts) - antiderivative(0.0))[:, None])
    np.testing.assert_allclose(solution.ys, exact, rtol=1e-11, atol=1e-14)


@pytest.mark.slow
def test_gradients_through_a_rollout_are_central_differences():
    class Pulse(eqx.Module):
        strength: jax.Array

        def scale(self, t):
            return 1 + self.strength * jnp.sin(3 * t)

    @jax.jit
    def loss(strength):
        linear = ScaledPropagator(Pulse(strength).scale, jnp.asarray([-1.0, -30.0]))
        term = SemilinearTerm(linear, lambda t, u, args: jnp.cos(t) - u**2)
        return jnp.sum(rollout(ETDRK2(), term, jnp.ones(2), dt=0.1, num_steps=10)[-1] ** 2)

    slope = jax.grad(loss)(jnp.asarray(0.4))
    central = (loss(0.4 + 1e-5) - loss(0.4 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, central, rtol=1e-7)


def test_apply_and_solve_use_the_scale_of_their_time():
    linear = ScaledPropagator(lambda t: t, lambda: jnp.asarray([-1.0, 2j]))
    u = jnp.asarray([1.0 + 0j, 1j])
    np.testing.assert_allclose(linear.apply(0.5, u), [-0.5, -1.0], rtol=1e-15)
    np.testing.assert_allclose(linear.solve(0.5, 0.2, u - 0.2 * linear.apply(0.5, u)), u)
    assert not linear.constant


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`scale` must return a real scalar"):
        ScaledPropagator(lambda t: jnp.ones(2), -1.0).propagate(0.0, 1.0)
    with pytest.raises(TypeError, match="`scale` must be a function"):
        ScaledPropagator(2.0, -1.0)
