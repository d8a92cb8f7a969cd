import jax.numpy as jnp
import numpy as np

from integrate.semilinear_problems import convergence, orders
from jaxsci.integrate import ETDRK4, IFRK4, rollout, SemilinearTerm


def test_errors_on_kuramoto_sivashinsky_are_the_published_ones():
    errors = convergence(IFRK4())["ks"]
    np.testing.assert_allclose(errors[[0, -1]], [1.07e-4, 1.58e-7], rtol=6e-3)
    assert orders(errors)[-1] > 3.4


def test_the_order_is_four_on_korteweg_de_vries():
    np.testing.assert_allclose(orders(convergence(IFRK4())["kdv"])[-1], 4, atol=0.2)


def test_a_step_is_classical_runge_kutta_in_rotated_variables():
    symbol, h, u0 = np.array([-2.0, 3j]), 0.2, np.array([0.5, 0.4 + 0.1j])
    n = lambda t, u: np.cos(t) - u**2

    def f(t, v):
        return np.exp(-t * symbol) * n(t, np.exp(t * symbol) * v)

    k1 = f(0, u0)
    k2 = f(h / 2, u0 + h / 2 * k1)
    k3 = f(h / 2, u0 + h / 2 * k2)
    k4 = f(h, u0 + h * k3)
    expected = np.exp(h * symbol) * (u0 + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    term = SemilinearTerm(symbol, lambda t, u, args: jnp.cos(t) - u**2)
    u1 = rollout(IFRK4(), term, jnp.asarray(u0), dt=h, num_steps=1)[0]
    np.testing.assert_allclose(u1, expected, rtol=1e-14)


def test_it_moves_fixed_points_that_etd_methods_keep():
    term = SemilinearTerm(-5.0, lambda t, u, args: 5 * jnp.ones_like(u))
    moved = rollout(IFRK4(), term, jnp.ones(1), dt=0.5, num_steps=20, save_every=20)
    kept = rollout(ETDRK4(), term, jnp.ones(1), dt=0.5, num_steps=20, save_every=20)
    assert abs(moved[0, 0] - 1) > 1e-2
    assert abs(kept[0, 0] - 1) < 1e-14
