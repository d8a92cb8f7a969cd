import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import ETDRK4, rollout, SemilinearTerm, TimeVaryingPropagator

T0, T1 = 0.3, 0.4


def moment(exponent, t0, t1, k):
    """int_t0^t1 exp(int_s^t1 L) (s - t0)^k/k! ds by Gauss-Legendre quadrature, graded to t1."""
    nodes, weights = np.polynomial.legendre.leggauss(30)
    edges = t0 + (t1 - t0) * (1 - np.append(np.geomspace(1, 1e-9, 200), 0))
    s = (edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2).ravel()
    w = (np.diff(edges)[:, None] * weights / 2).ravel()
    return np.exp(exponent(s)) * (s - t0) ** k / math.factorial(k) @ w


# Entries that vary independently: L_i(t) = c_i + d_i sin(t), from slow over stiff to oscillating.
MEAN = np.array([-1e6, -1e3, -20.0, 0.0, -3 + 5j, 20j])
SLOPE = np.array([3e5, -200.0, 10.0, 0.5, 1 + 2j, -7j])


def symbol(t):
    return MEAN + SLOPE * jnp.sin(t)


def exponent(s):
    return MEAN[:, None] * (T1 - s) + SLOPE[:, None] * (np.cos(s) - np.cos(T1))


def test_propagate_is_the_exponential_of_the_integral_with_and_without_antiderivative():
    exact = np.exp(MEAN * (T1 - T0) + SLOPE * (np.cos(T0) - np.cos(T1)))
    quadrature = TimeVaryingPropagator(symbol)
    np.testing.assert_allclose(quadrature.propagate(T0, T1), exact, rtol=1e-13)
    given = TimeVaryingPropagator(symbol, lambda t: MEAN * t - SLOPE * jnp.cos(t))
    np.testing.assert_allclose(given.propagate(T0, T1), exact, rtol=1e-12)
    assert not quadrature.constant


def test_moments_are_their_integrals_for_stiff_and_oscillating_entries():
    moments = TimeVaryingPropagator(symbol).moments(T0, T1, 3)
    for k, value in enumerate(moments):
        np.testing.assert_allclose(value, moment(exponent, T0, T1, k), rtol=2e-7)


def test_a_constant_symbol_gives_the_moments_of_a_constant_propagator():
    values = np.array([-1e5, -300.0, -2.0, 0.0, 0.4])
    moments = TimeVaryingPropagator(lambda t: jnp.asarray(values)).moments(0.7, 0.9, 5)
    for k, value in enumerate(moments):
        exact = moment(lambda s: values[:, None] * (0.9 - s), 0.7, 0.9, k)
        np.testing.assert_allclose(value, exact, rtol=1e-9)


def test_apply_and_solve_use_the_symbol_of_their_time():
    linear = TimeVaryingPropagator(lambda t: jnp.stack([-t, 2j * t]))
    u = jnp.asarray([1 + 1j, 2.0])
    np.testing.assert_allclose(linear.apply(0.5, u), [-0.5 - 0.5j, 2j], rtol=1e-15)
    rhs = u - 0.3 * linear.apply(0.7, u)
    np.testing.assert_allclose(linear.solve(0.7, 0.3, rhs), u, rtol=1e-14)


@pytest.mark.slow
def test_the_order_is_four_where_the_entries_vary_independently():
    # Manufactured: u = cos(t) in every entry.
    rates = np.array([-1.0, -8.0])
    linear = TimeVaryingPropagator(lambda t: rates * (1 + jnp.stack([t, jnp.sin(3 * t)])))

    def nonlinear(t, u, args):
        forcing = -jnp.sin(t) - linear.diagonal(t) * jnp.cos(t) + jnp.cos(t) ** 2
        return forcing - u**2

    def error(num):
        term = SemilinearTerm(linear, nonlinear)
        u = rollout(ETDRK4(), term, jnp.ones(2), dt=1 / num, num_steps=num, save_every=num)
        return np.abs(np.asarray(u[0]) - np.cos(1.0))

    np.testing.assert_allclose(np.log2(error(16) / error(32)), 4, atol=0.4)


def test_gradients_of_parameters_held_by_a_module_are_those_of_the_closed_form():
    class Ramp(eqx.Module):
        rate: jax.Array

        def symbol(self, t):
            return -self.rate * t * jnp.arange(3.0)

    def end(rate):
        return TimeVaryingPropagator(Ramp(rate).symbol).propagate(0.0, 1.0)

    k = np.arange(3) / 2
    np.testing.assert_allclose(
        jax.jacobian(end)(jnp.asarray(0.7)), -k * np.exp(-0.7 * k), rtol=1e-13
    )


def test_single_precision_stays_so():
    linear = TimeVaryingPropagator(
        lambda t: -t.astype(jnp.float32) * jnp.arange(3, dtype=jnp.float32)
    )
    t0, t1 = jnp.float32(0.1), jnp.float32(0.2)
    for value in (linear.propagate(t0, t1), *linear.moments(t0, t1, 2)):
        assert value.dtype == jnp.float32


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="`symbol` must be a function"):
        TimeVaryingPropagator(3.0)
    with pytest.raises(ValueError, match="`points` must be at least 2"):
        TimeVaryingPropagator(lambda t: t, points=1)
