import itertools
from functools import cache

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import (
    CNAB2,
    ETDRK4,
    SemilinearTerm,
    SpectralPIDController,
    step_estimates,
)
from jaxsci.spectral import FourierGrid


def pid(tol):
    return diffrax.PIDController(rtol=tol, atol=tol)


def linear(t, y, args):
    return args * y


def van_der_pol(t, y, mu):
    return jnp.array([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


@cache
def estimator(field, solver_cls=diffrax.Tsit5):
    """The penalty h E, the stiffness and y1 as a function of tolerance, y, h and args."""

    @jax.jit
    def run(tol, y, h, args):
        estimates = step_estimates(
            diffrax.ODETerm(field), solver_cls(), jnp.asarray(0.0), y, h, args, pid(tol)
        )
        return estimates.error * h, estimates.stiffness, estimates.y1

    return run


@pytest.mark.parametrize(
    ("rate", "penalty", "stiffness"),
    [(-1.0, 2.211443507676e-7, 0.28516026), (-10.0, 3.020649295534e-2, 2.85160260)],
)
def test_a_linear_step_has_the_published_estimates(rate, penalty, stiffness):
    found = estimator(linear)(1e-3, jnp.array(1.0), 0.1, rate)
    np.testing.assert_allclose(found[0], penalty, rtol=1e-10)
    np.testing.assert_allclose(found[1], stiffness, rtol=1e-8)
    np.testing.assert_allclose(found[1], abs(rate) / 3.5068, rtol=1e-9)


def test_van_der_pol_steps_have_the_computed_estimates():
    run = estimator(van_der_pol)
    penalty, stiffness, y1 = run(1e-4, jnp.array([2.0, 0.0]), 0.2, 1.0)
    np.testing.assert_allclose(y1, [1.9669500773, -0.3007325467], atol=1e-10)
    np.testing.assert_allclose([penalty, stiffness], [0.0355053474, 0.8438646385], rtol=1e-8)
    penalty, stiffness, _ = run(1e-4, jnp.array([1.0, 1.0]), 0.1, 5.0)
    np.testing.assert_allclose([penalty, stiffness], [5.434001592e-4, 1.858211210], rtol=1e-9)


def test_the_estimates_are_those_of_a_step_written_out_from_the_tableau():
    tableau = diffrax.Dopri5().tableau
    y, h, mu = np.array([1.5, -0.4]), 0.15, 2.0
    k, g = [], []
    for i in range(7):
        row = np.zeros(0) if i == 0 else tableau.a_lower[i - 1]
        g.append(y + h * sum((a * b for a, b in zip(row, k)), np.zeros(2)))
        k.append(np.asarray(van_der_pol(0.0, g[-1], mu)))
    y1 = y + h * sum(b * x for b, x in zip(tableau.b_sol, k))
    error = h * sum(b * x for b, x in zip(tableau.b_error, k))
    scaled = error / (1e-5 + 1e-5 * np.maximum(abs(y), abs(y1)))
    stiff = np.linalg.norm(k[6] - k[5]) / np.linalg.norm(g[6] - g[5]) / 3.3066
    found = estimator(van_der_pol, diffrax.Dopri5)(1e-5, jnp.asarray(y), h, mu)
    np.testing.assert_allclose(found[2], y1, rtol=1e-14)
    np.testing.assert_allclose(found[0], h * np.sqrt(np.mean(scaled**2)), rtol=1e-9)
    np.testing.assert_allclose(found[1], stiff, rtol=1e-9)


@pytest.mark.parametrize(
    "solver", [diffrax.Tsit5, diffrax.Dopri5, pytest.param(diffrax.Dopri8, marks=pytest.mark.slow)]
)
def test_the_method_ceases_to_be_stable_where_h_times_the_stiffness_is_one(solver):
    h = 0.1
    _, per_unit, _ = estimator(linear, solver)(1e-3, jnp.array(1.0), h, -1.0)
    limit = 1 / (h * float(per_unit))
    growth = [
        abs(float(estimator(linear, solver)(1e-3, jnp.array(1.0), h, -x * limit)[2]))
        for x in (0.2, 0.6, 0.999, 1.001)
    ]
    assert max(growth[:3]) < 1 < growth[3]


def test_the_error_falls_by_2_to_the_5_or_6_per_halving_of_the_step():
    run = estimator(van_der_pol)
    errors = [float(run(1e-4, jnp.array([1.0, 0.5]), h, 1.0)[0]) / h for h in (0.2, 0.1, 0.05)]
    assert all(28 < a / b < 70 for a, b in itertools.pairwise(errors))


def test_the_gradient_is_that_of_central_differences_in_both_modes():
    field = lambda t, y, theta: jnp.tanh(theta * y)
    penalty = lambda theta: estimator(field)(1e-4, jnp.array([1.0, 0.5]), 0.3, theta)[:2]
    value, gradient = jax.value_and_grad(lambda x: penalty(x)[0])(1.3)
    np.testing.assert_allclose(value, 4.623546285e-4, rtol=1e-9)
    np.testing.assert_allclose(gradient, -1.4725526e-4, rtol=1e-7)
    step = 1e-4
    high, low = penalty(1.3 + step), penalty(1.3 - step)
    tangents = jax.jvp(penalty, (1.3,), (1.0,))[1]
    np.testing.assert_allclose(gradient, tangents[0], rtol=1e-8)
    for tangent, a, b in zip(tangents, high, low):
        np.testing.assert_allclose(tangent, (a - b) / (2 * step), rtol=1e-6)


def test_a_step_at_rest_has_no_error_no_stiffness_and_a_finite_gradient():
    run = lambda theta: estimator(linear)(1e-4, jnp.zeros(2), 0.3, theta)
    assert float(run(1.0)[0]) == float(run(1.0)[1]) == 0
    assert jnp.isfinite(jax.grad(lambda x: run(x)[0] + run(x)[1])(1.0))


def test_float32_stays_float32():
    y = jnp.ones(2, jnp.float32)
    theta = jnp.float32(-2.0)
    estimates = step_estimates(
        diffrax.ODETerm(linear), diffrax.Tsit5(), 0.0, y, 0.1, theta, pid(1e-3)
    )
    assert {x.dtype for x in estimates if x is not None} == {jnp.dtype("float32")}


def test_without_a_controller_errors_are_relative_to_one_plus_the_state():
    y, h = jnp.array([1.0, 3.0]), 0.1
    term = diffrax.ODETerm(linear)
    found = step_estimates(term, diffrax.Heun(), 0.0, y, h, -1.0)
    error = 0.5 * h**2 * np.asarray(y)  # Heun's second-order term
    np.testing.assert_allclose(
        found.error, np.sqrt(np.mean((error / (1 + np.asarray(y))) ** 2)), rtol=1e-12
    )
    assert found.stiffness is None


def test_an_exponential_step_compares_norms():
    grid = FourierGrid((16,), (2 * np.pi,))
    (x,) = grid.x
    term = SemilinearTerm(-grid.k2, lambda t, u, args: grid.fft(grid.ifft(u) ** 2))
    controller = SpectralPIDController(1e-3, 1e-6, grid.norm)
    u = grid.fft(jnp.cos(x))
    solver, h = ETDRK4(), 0.1
    u1, error, _, _, _ = solver.step(
        term, 0.0, h, u, None, solver.init(term, 0.0, h, u, None), False
    )
    found = step_estimates(term, solver, 0.0, u, h, None, controller)
    size = 1e-6 + 1e-3 * jnp.maximum(grid.norm(u), grid.norm(u1))
    np.testing.assert_allclose(found.error, grid.norm(error) / size, rtol=1e-10)


def test_a_solver_without_estimates_gives_none():
    found = step_estimates(diffrax.ODETerm(linear), diffrax.Euler(), 0.0, jnp.ones(2), 0.1, -1.0)
    assert found.error is None
    assert found.stiffness is None
    found = step_estimates(SemilinearTerm(-1.0), CNAB2(), 0.0, jnp.ones(2), 0.1)
    assert found.error is None


@pytest.mark.slow
def test_an_implicit_solver_takes_the_tolerances_of_the_controller():
    term = diffrax.ODETerm(linear)
    found = step_estimates(term, diffrax.Kvaerno3(), 0.0, jnp.ones(1), 0.1, -2.0, pid(1e-6))
    assert found.error > 0
    np.testing.assert_allclose(found.y1, np.exp(-0.2), rtol=1e-4)


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    call = diffrax.ODETerm(linear), diffrax.Tsit5(), 0.0, jnp.ones(2)
    with pytest.raises(ValueError, match="`h` must be positive"):
        step_estimates(*call, 0.0)
    with pytest.raises(ValueError, match=r"must have tolerances.*ConstantStepSize"):
        step_estimates(*call, 0.1, -1.0, diffrax.ConstantStepSize())
