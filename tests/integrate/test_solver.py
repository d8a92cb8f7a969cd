import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

from integrate.semilinear_problems import KDV, KDV_GRID, kdv_initial
from jaxsci.integrate import (
    CNAB2,
    CNRK2,
    ETDMultistep,
    ETDRK1,
    ETDRK2,
    ETDRK3,
    ETDRK4,
    IFRK4,
    rollout,
    SBDF2,
    SemilinearTerm,
)

ETD = [ETDRK1(), ETDRK2(), ETDRK3(), ETDRK4(), ETDRK4("cox-matthews"), ETDMultistep(3)]
SYMBOL = np.array([-1e3, -0.7, 5j, -1 + 2j, 0.0])


@pytest.mark.parametrize("solver", [*ETD, IFRK4()])
def test_linear_problems_are_solved_exactly_at_any_step(solver):
    u0 = jnp.asarray([1.0, 2.0, 1 + 1j, 0.5, 3.0])
    u = rollout(solver, SemilinearTerm(SYMBOL), u0, dt=1.7, num_steps=3)[-1]
    np.testing.assert_allclose(u, np.exp(5.1 * SYMBOL) * u0, rtol=1e-13, atol=1e-13)


def test_the_free_schroedinger_equation_returns_to_its_start():
    k2 = KDV_GRID.with_layout(real=False).k2
    u0 = jnp.asarray(np.random.default_rng(0).normal(size=128) + 0j)
    term = SemilinearTerm(-1j * k2)
    there = diffrax.diffeqsolve(term, ETDRK4(), 0.0, 2.0, 0.1, u0).ys[0]
    back = diffrax.diffeqsolve(term, ETDRK4(), 2.0, 0.0, -0.1, there).ys[0]
    assert jnp.max(jnp.abs(there - u0)) > 0.1
    np.testing.assert_allclose(back, u0, atol=1e-11)


@pytest.mark.slow
def test_korteweg_de_vries_runs_backwards_to_truncation_error():
    there = rollout(ETDRK4(), KDV, kdv_initial(), dt=0.0025, num_steps=200, save_every=200)[0]
    back = diffrax.diffeqsolve(KDV, ETDRK4(), 0.5, 0.0, -0.0025, there).ys[0]
    scan = rollout(ETDRK4(), KDV, there, dt=-0.0025, t0=0.5, num_steps=200, save_every=200)[0]
    assert KDV_GRID.norm(back - kdv_initial()) < 2e-9
    assert KDV_GRID.norm(back - scan) < 1e-12


def manufactured(t0=0.0):
    """u' = L u - u^2 + g(t) with u = 2 + sin t + i cos 2t."""
    symbol = np.array([-3.0, 2j])
    exact = lambda t: 2 + jnp.sin(t) + 1j * jnp.cos(2 * t) + jnp.zeros(2)
    rate = lambda t: jnp.cos(t) - 2j * jnp.sin(2 * t)

    def nonlinear(t, u, args):
        return rate(t) - symbol * exact(t) + exact(t) ** 2 - u**2

    return SemilinearTerm(symbol, nonlinear), exact


@pytest.mark.parametrize("solver", [*ETD, ETDMultistep(2), IFRK4(), SBDF2(), CNAB2(), CNRK2()])
def test_a_nonlinear_part_that_depends_on_time_keeps_the_order(solver):
    term, exact = manufactured()
    errors = []
    for n in (40, 80):
        u = rollout(solver, term, exact(0.5), dt=1 / n, t0=0.5, num_steps=n, save_every=n)[0]
        errors.append(float(jnp.max(jnp.abs(u - exact(1.5)))))
    assert np.log2(errors[0] / errors[1]) > solver.order(None) - 0.25


@pytest.mark.parametrize("solver", [SBDF2(), CNAB2(), ETDMultistep(2), ETDMultistep(4)])
def test_multistep_methods_keep_their_order_at_variable_steps(solver):
    term, exact = manufactured()
    errors = []
    for n in (30, 60):
        steps = np.tile([1.0, 2.0, 1.5], n // 3)
        ts = jnp.asarray(np.concatenate([[0.0], np.cumsum(steps) / steps.sum()]))
        controller = diffrax.StepTo(ts)
        sol = diffrax.diffeqsolve(
            term, solver, ts[0], ts[-1], None, exact(0.0), stepsize_controller=controller
        )
        errors.append(float(jnp.max(jnp.abs(sol.ys[0] - exact(1.0)))))
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), solver.order(None), atol=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [SBDF2(), ETDMultistep(3), ETDRK4()])
def test_a_jump_restarts_the_method(solver):
    term, exact = manufactured()
    state = solver.init(term, 0.0, 0.1, exact(0.0), None)
    for t in (-0.2, -0.1, 0.0):
        state = solver.step(term, t, t + 0.1, exact(0.0), None, state, False)[3]
    other = exact(0.7)
    jumped = solver.step(term, 0.1, 0.2, other, None, state, jnp.array(True))[0]
    fresh = solver.init(term, 0.1, 0.2, other, None)
    expected = solver.step(term, 0.1, 0.2, other, None, fresh, False)[0]
    np.testing.assert_allclose(jumped, expected, rtol=1e-12)
    kept = solver.step(term, 0.1, 0.2, other, None, state, jnp.array(False))[0]
    assert jnp.max(jnp.abs(kept - expected)) > 1e-6


def test_another_step_length_recomputes_the_coefficients():
    term, exact = manufactured()
    state = ETDRK3().init(term, 0.0, 0.1, exact(0.0), None)
    u = ETDRK3().step(term, 0.0, 0.03, exact(0.0), None, state, False)[0]
    expected = rollout(ETDRK3(), term, exact(0.0), dt=0.03, num_steps=1)[0]
    np.testing.assert_allclose(u, expected, rtol=1e-14)
