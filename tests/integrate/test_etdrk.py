import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from integrate.semilinear_problems import convergence, KS, KS_GRID, ks_initial, orders
from jaxsci.integrate import (
    DiagonalPropagator,
    ETDRK1,
    ETDRK2,
    ETDRK3,
    ETDRK4,
    rollout,
    SemilinearTerm,
)

COX_MATTHEWS = ETDRK4("cox-matthews")


@pytest.mark.parametrize(
    ("solver", "errors", "order"),
    [
        (ETDRK2(), (8.19e-4, None, None, 1.36e-5), (1.95, 1.97, 1.99)),
        (ETDRK3(), (5.17e-5, None, None, 1.46e-7), (2.73, 2.84, 2.89)),
        (COX_MATTHEWS, (2.37e-6, None, None, 1.81e-9), (3.2, 3.5, 3.7)),
        (ETDRK4(), (7.71e-7, None, None, 3.97e-10), (3.5, 3.7, 3.8)),
    ],
)
def test_errors_on_kuramoto_sivashinsky_are_the_published_ones(solver, errors, order):
    measured = convergence(solver)["ks"]
    for value, expected in zip(measured, errors):
        if expected is not None:
            np.testing.assert_allclose(value, expected, rtol=6e-3)
    np.testing.assert_allclose(orders(measured), order, atol=0.06)


@pytest.mark.parametrize(
    ("solver", "errors"),
    [
        (ETDRK2(), (1.25e-3, None, None, 1.99e-5)),
        (ETDRK4(), (2.04e-6, 1.56e-7, 9.79e-9, 6.36e-10)),
    ],
)
def test_errors_on_korteweg_de_vries_are_the_published_ones(solver, errors):
    for value, expected in zip(convergence(solver)["kdv"], errors):
        if expected is not None:
            np.testing.assert_allclose(value, expected, rtol=6e-3)


@pytest.mark.parametrize(
    ("solver", "order"),
    [(ETDRK1(), 1), (ETDRK2(), 2), (ETDRK3(), 3), (COX_MATTHEWS, 4), (ETDRK4(), 4)],
)
def test_the_order_is_the_stated_one_for_an_imaginary_linear_part(solver, order):
    assert solver.order(None) == order
    np.testing.assert_allclose(orders(convergence(solver)["kdv"])[1:], order, atol=0.07)


def test_krogstads_variant_is_the_more_accurate_on_both():
    for problem in ("ks", "kdv"):
        assert np.all(convergence(ETDRK4())[problem] < convergence(COX_MATTHEWS)[problem])


class RealPartOfPhi(DiagonalPropagator):
    """The classic mistake: only the real part of the phi functions is kept."""

    def moments(self, t0, t1, num):
        return tuple(m.real.astype(m.dtype) for m in super().moments(t0, t1, num))


@pytest.mark.parametrize("solver", [ETDRK2(), ETDRK4()])
def test_keeping_only_the_real_part_of_phi_has_order_one(solver):
    # u' = 2i u + u^2 has the solution 1/u = (1/u0 - i/2) e^{-2 i t} + i/2.
    u0 = jnp.asarray([0.5 + 0j])
    exact = 1 / ((1 / 0.5 - 0.5j) * np.exp(-2j) + 0.5j)

    def observed(linear):
        term = SemilinearTerm(linear, lambda t, u, args: u**2)
        errors = []
        for n in (40, 80):
            u = rollout(solver, term, u0, dt=1 / n, num_steps=n, save_every=n)[0]
            errors.append(abs(complex(u[0]) - exact))
        return np.log2(errors[0] / errors[1])

    np.testing.assert_allclose(observed(RealPartOfPhi(jnp.asarray([2j]))), 1, atol=0.15)
    right = DiagonalPropagator(jnp.asarray([2j]))
    np.testing.assert_allclose(observed(right), solver.order(None), atol=0.15)


@pytest.fixture(scope="module")
def developed():
    return rollout(ETDRK4(), KS, ks_initial(), dt=0.005, num_steps=1000, save_every=1000)[0]


def test_error_estimates_on_kuramoto_sivashinsky_are_the_published_ones(developed):
    # Largest errors over the grid from the state at t = 5.
    @jax.jit
    def step(h):
        state = COX_MATTHEWS.init(KS, 0.0, h, developed, None)
        u1, error, _, _, _ = COX_MATTHEWS.step(KS, 0.0, h, developed, None, state, False)
        exact = rollout(ETDRK4(), KS, developed, dt=h / 16, num_steps=16, save_every=16)[0]
        largest = lambda u: jnp.max(jnp.abs(KS_GRID.ifft(u)))
        return largest(error), largest(u1 - exact)

    measured = np.array([step(h) for h in (0.2, 0.1, 0.05, 0.025)]).T
    np.testing.assert_allclose(measured[0], [1.8e-5, 2.1e-6, 2.3e-7, 2.3e-8], rtol=0.03)
    np.testing.assert_allclose(measured[1], [1.1e-5, 1.4e-6, 1.4e-7, 1.3e-8], rtol=0.03)


@pytest.mark.parametrize(
    ("solver", "power"),
    [(ETDRK2(), 2), (ETDRK3(), 3), (ETDRK4(), 4), (COX_MATTHEWS, 4)],
)
def test_error_estimates_vanish_with_the_step_at_the_order_of_the_method(solver, power):
    term = SemilinearTerm(jnp.asarray([-1.0, 2j]), lambda t, u, args: jnp.cos(t) - u**2)
    u0 = jnp.asarray([0.7 + 0j, 0.4 + 0.1j])
    sizes = []
    for h in (0.02, 0.01):
        state = solver.init(term, 0.3, 0.3 + h, u0, None)
        error = solver.step(term, 0.3, 0.3 + h, u0, None, state, False)[1]
        sizes.append(float(jnp.max(jnp.abs(error))))
    np.testing.assert_allclose(np.log2(sizes[0] / sizes[1]), power, atol=0.3)


def test_etdrk4_evaluates_the_nonlinear_part_four_times_a_step():
    calls = []
    term = SemilinearTerm(-1.0, lambda t, u, args: (calls.append(1), -(u**2))[1])
    u0 = jnp.ones(2)
    state = ETDRK4().init(term, 0.0, 0.1, u0, None)
    calls.clear()
    ETDRK4().step(term, 0.0, 0.1, u0, None, state, False)
    assert len(calls) == 4


@pytest.mark.parametrize("solver", [ETDRK1(), ETDRK2(), ETDRK3(), ETDRK4(), COX_MATTHEWS])
def test_without_a_linear_part_it_is_the_classical_method(solver):
    # u' = u from 1: the stability polynomial of the Runge-Kutta method, sum z^k/k! to its order.
    term = SemilinearTerm(0.0, lambda t, u, args: u)
    u1 = rollout(solver, term, jnp.ones(1), dt=0.5, num_steps=1)[0, 0]
    polynomial = np.cumsum([1, 0.5, 0.125, 0.125 / 6, 0.0625 / 24])
    np.testing.assert_allclose(u1, polynomial[solver.order(None)], rtol=1e-14)


@pytest.mark.bad_input
def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="`variant` must be one of 'krogstad', 'cox-matthews'"):
        ETDRK4("rk4")


@pytest.mark.bad_input
@pytest.mark.parametrize("solver", [ETDRK1()])
def test_a_solver_without_an_error_estimate_refuses_a_controller(solver):
    with pytest.raises((ValueError, RuntimeError), match="error"):
        diffrax.diffeqsolve(
            SemilinearTerm(-1.0),
            solver,
            0.0,
            1.0,
            0.1,
            jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        )
