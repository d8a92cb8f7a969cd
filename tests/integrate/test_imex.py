import jax.numpy as jnp
import numpy as np
import pytest

from integrate.semilinear_problems import convergence, orders
from jaxsci.integrate import CNAB2, CNRK2, CNRK4, rollout, SBDF2, SemilinearTerm

SYMBOL = np.array([-1e4, -2.0, 3j, 0.0])
U0 = np.array([1.0, 0.5, 0.4 + 0.1j, 0.3])
H = 0.1


def n(t, u):
    return np.cos(t) - u**2


def run(solver, num_steps, nonlinear=True):
    function = (lambda t, u, args: jnp.cos(t) - u**2) if nonlinear else None
    return rollout(
        solver, SemilinearTerm(SYMBOL, function), jnp.asarray(U0), dt=H, num_steps=num_steps
    )


@pytest.mark.parametrize("solver", [SBDF2(), CNAB2(), CNRK2(), CNRK4()])
@pytest.mark.parametrize("problem", ["ks", "kdv"])
def test_the_order_is_two(solver, problem):
    assert solver.order(None) == 2
    np.testing.assert_allclose(orders(convergence(solver)[problem])[1:], 2, atol=0.07)


def test_cnrk4_is_of_order_four_without_a_linear_part():
    # u' = cos(t) u, u = exp(sin t).
    term = SemilinearTerm(0.0, lambda t, u, args: jnp.cos(t) * u)
    errors = [
        abs(rollout(CNRK4(), term, jnp.ones(1), dt=1 / m, num_steps=m)[-1, 0] - np.exp(np.sin(1)))
        for m in (10, 20)
    ]
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 4, atol=0.3)


def test_sbdf2_solves_its_difference_equation():
    u = run(SBDF2(), 3)
    before, now = U0, (U0 + H * n(0, U0)) / (1 - H * SYMBOL)
    np.testing.assert_allclose(u[0], now, rtol=1e-13)
    for j in (1, 2):
        rhs = 4 * now - before + 2 * H * (2 * n(j * H, now) - n((j - 1) * H, before))
        before, now = now, rhs / (3 - 2 * H * SYMBOL)
        np.testing.assert_allclose(u[j], now, rtol=1e-13)


def test_cnab2_solves_its_difference_equation():
    u = run(CNAB2(), 3)
    cn = lambda v, f: ((1 + H / 2 * SYMBOL) * v + H * f) / (1 - H / 2 * SYMBOL)
    before, now = U0, cn(U0, n(0, U0))
    np.testing.assert_allclose(u[0], now, rtol=1e-12)
    for j in (1, 2):
        f = 1.5 * n(j * H, now) - 0.5 * n((j - 1) * H, before)
        before, now = now, cn(now, f)
        np.testing.assert_allclose(u[j], now, rtol=1e-12)


def test_cnrk2_is_heuns_method_with_two_crank_nicolson_solves():
    cn = lambda f: ((1 + H / 2 * SYMBOL) * U0 + H * f) / (1 - H / 2 * SYMBOL)
    predicted = cn(n(0, U0))
    expected = cn((n(0, U0) + n(H, predicted)) / 2)
    np.testing.assert_allclose(run(CNRK2(), 1)[0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("solver", "factor"),
    [
        (CNAB2(), lambda z: (1 + z / 2) / (1 - z / 2)),
        (CNRK2(), lambda z: (1 + z / 2) / (1 - z / 2)),
    ],
)
def test_crank_nicolson_has_its_amplification_factor(solver, factor):
    u = run(solver, 4, nonlinear=False)
    np.testing.assert_allclose(u[-1], U0 * factor(H * SYMBOL) ** 4, rtol=1e-12)


def test_cnrk4_is_a_product_of_crank_nicolson_steps_without_a_nonlinear_part():
    times = np.array([0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1])
    z = np.diff(times)[:, None] * H * SYMBOL / 2
    expected = U0 * np.prod((1 + z) / (1 - z), axis=0)
    np.testing.assert_allclose(run(CNRK4(), 1, nonlinear=False)[0], expected, rtol=1e-12)


def test_sbdf2_damps_stiff_modes_and_crank_nicolson_does_not():
    assert abs(run(SBDF2(), 10, nonlinear=False)[-1, 0]) < 1e-14
    assert abs(run(CNAB2(), 10, nonlinear=False)[-1, 0]) > 0.9
