import jax.numpy as jnp
import numpy as np
import pytest

from integrate.semilinear_problems import convergence, orders
from jaxsci.integrate import ETDMultistep, ETDRK1, ETDRK2, ETDRK4, rollout, SemilinearTerm


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("problem", ["ks", "kdv"])
def test_the_order_is_the_number_of_values(order, problem):
    solver = ETDMultistep(order)
    assert solver.order(None) == order
    np.testing.assert_allclose(orders(convergence(solver)[problem])[1:], order, atol=0.06)


def test_order_one_is_exponential_euler():
    for problem in ("ks", "kdv"):
        np.testing.assert_allclose(
            convergence(ETDMultistep(1))[problem], convergence(ETDRK1())[problem], rtol=1e-9
        )


@pytest.mark.parametrize(
    ("order", "weights"),
    [
        (2, [3 / 2, -1 / 2]),
        (3, [23 / 12, -16 / 12, 5 / 12]),
        (4, [55 / 24, -59 / 24, 37 / 24, -9 / 24]),
        (5, [1901 / 720, -2774 / 720, 2616 / 720, -1274 / 720, 251 / 720]),
    ],
)
def test_without_a_linear_part_it_is_adams_bashforth(order, weights):
    f = lambda t, u: jnp.cos(t) - u**2
    term = SemilinearTerm(0.0, lambda t, u, args: f(t, u))
    h = 0.05
    u = rollout(ETDMultistep(order), term, jnp.ones(1), dt=h, num_steps=8, include_initial=True)
    for j in range(order - 1, 8):
        slope = sum(w * f((j - i) * h, u[j - i]) for i, w in enumerate(weights))
        np.testing.assert_allclose(u[j + 1], u[j] + h * slope, rtol=1e-13)


@pytest.mark.parametrize(("order", "starter"), [(2, ETDRK2()), (3, ETDRK4()), (5, ETDRK4())])
def test_it_is_started_by_exponential_runge_kutta_steps(order, starter):
    term = SemilinearTerm(jnp.asarray([-3.0, 2j]), lambda t, u, args: jnp.cos(t) - u**2)
    u0 = jnp.asarray([0.5 + 0j, 0.4 + 0.1j])
    u = rollout(ETDMultistep(order), term, u0, dt=0.1, num_steps=order)
    expected = rollout(starter, term, u0, dt=0.1, num_steps=order)
    np.testing.assert_allclose(u[: order - 1], expected[: order - 1], rtol=1e-13)
    assert jnp.max(jnp.abs(u[order - 1] - expected[order - 1])) > 1e-8


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_forcing_polynomial_in_time_is_integrated_exactly(order):
    # u' = L u + t^p with p < order and p <= 2, the degree that the starting method takes.
    power = min(order - 1, 2)
    symbol = np.array([-2.0, -30.0])
    term = SemilinearTerm(symbol, lambda t, u, args: jnp.full_like(u, t**power))
    u = rollout(ETDMultistep(order), term, jnp.ones(2), dt=0.25, num_steps=8)[-1]
    nodes, weights = np.polynomial.legendre.leggauss(80)
    s = nodes + 1
    integral = (np.exp((2 - s) * symbol[:, None]) * s**power) @ weights
    np.testing.assert_allclose(u, np.exp(2 * symbol) + integral, rtol=1e-12)


@pytest.mark.bad_input
@pytest.mark.parametrize("order", [0, 6, 2.0])
def test_orders_out_of_range_are_refused(order):
    with pytest.raises(ValueError, match=rf"`order` must be an integer from 1 to 5, got {order}"):
        ETDMultistep(order)
