import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import DiagonalPropagator

SYMBOLS = {
    "real": np.array([-900.0, -3.0, -1e-9, 0.0, 0.4]),
    "imaginary": np.array([-40j, -0.3j, 0, 1e-8j, 12j]),
    "complex": np.array([-2 + 1j, -30 - 7j, 0.1 + 5j, -1e-3 + 1e-3j, 0]),
}


def moment(symbol, t0, t1, k):
    """int_t0^t1 exp((t1 - s) L) (s - t0)^k/k! ds by Gauss-Legendre quadrature on 40 panels."""
    nodes, weights = np.polynomial.legendre.leggauss(30)
    edges = np.linspace(t0, t1, 41)
    s = (edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2).ravel()
    w = (np.diff(edges)[:, None] * weights / 2).ravel()
    return np.exp((t1 - s) * symbol[:, None]) * (s - t0) ** k / math.factorial(k) @ w


@pytest.mark.parametrize("kind", SYMBOLS)
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 0.3), (1.5, 1.51), (0.7, 0.6)])
def test_propagate_and_moments_are_their_integrals(kind, t0, t1):
    symbol = SYMBOLS[kind]
    linear = DiagonalPropagator(symbol)
    if t1 < t0:
        symbol = np.where(symbol.real < -100, -100, symbol)
        linear = DiagonalPropagator(symbol)
    np.testing.assert_allclose(linear.propagate(t0, t1), np.exp((t1 - t0) * symbol), rtol=1e-12)
    moments = linear.moments(t0, t1, 5)
    assert len(moments) == 5
    for k, value in enumerate(moments):
        np.testing.assert_allclose(value, moment(symbol, t0, t1, k), rtol=1e-11)


def test_coefficients_of_a_real_symbol_are_real_and_of_its_precision():
    for dtype in (np.float32, np.float64):
        linear = DiagonalPropagator(jnp.asarray([-1.0, -2.0], dtype))
        for value in (linear.propagate(0.0, 0.1), *linear.moments(0.0, 0.1, 3)):
            assert value.dtype == dtype


def test_apply_and_solve_are_inverse_to_each_other():
    linear = DiagonalPropagator(jnp.asarray([-3.0, 2j, -1 + 1j]))
    u = jnp.asarray([1.0, 2 - 1j, 0.5j])
    rhs = u - 0.3 * linear.apply(0.0, u)
    np.testing.assert_allclose(linear.solve(0.0, 0.3, rhs), u, rtol=1e-15)
    np.testing.assert_allclose(linear.apply(0.0, u), [-3.0, 2 + 4j, -0.5 - 0.5j], rtol=1e-15)


def test_a_symbol_may_be_a_prefix_of_the_state_and_broadcast():
    linear = DiagonalPropagator({"a": -1.0, "b": jnp.asarray([[-2.0], [-3.0]])})
    u = {"a": (jnp.ones(2), jnp.ones(())), "b": jnp.ones((2, 4))}
    new = linear.act(linear.propagate(0.0, 1.0), u)
    np.testing.assert_allclose(new["a"][0], np.exp(-1.0) * np.ones(2), rtol=1e-15)
    np.testing.assert_allclose(new["a"][1], np.exp(-1.0), rtol=1e-15)
    np.testing.assert_allclose(new["b"][:, 2], np.exp([-2.0, -3.0]), rtol=1e-15)
    m0, m1 = linear.moments(0.0, 1.0, 2)
    np.testing.assert_allclose(linear.act(m0, u)["a"][1], 1 - np.exp(-1.0), rtol=1e-15)
    np.testing.assert_allclose(linear.act(m1, u)["a"][1], np.exp(-1.0), rtol=1e-15)


def test_a_state_of_single_precision_stays_so():
    linear = DiagonalPropagator(jnp.asarray([-1.0, -2.0]))
    u = jnp.ones(2, jnp.complex64)
    assert linear.apply(0.0, u).dtype == jnp.complex64
    assert linear.solve(0.0, 0.1, u).dtype == jnp.complex64
    assert linear.solve(0.0, 0.1, u.real).dtype == jnp.float32


def test_derivatives_reach_the_parameters_of_a_symbol_function():
    class Decay(eqx.Module):
        rate: jax.Array

        def symbol(self):
            return -self.rate * jnp.arange(3.0)

    def end(rate):
        return DiagonalPropagator(Decay(rate).symbol).propagate(0.0, 0.5)

    slope = jax.jacobian(end)(jnp.asarray(0.7))
    np.testing.assert_allclose(
        slope, -0.5 * np.arange(3) * np.exp(-0.35 * np.arange(3)), rtol=1e-14
    )
    linear = DiagonalPropagator(Decay(jnp.asarray(0.7)).symbol)
    np.testing.assert_array_equal(linear.diagonal, -0.7 * np.arange(3.0))
    assert linear.constant


def test_moments_may_be_differentiated_with_respect_to_both_times():
    # d/dt1 M_0 = exp(h L), d/dt0 M_0 = -exp(h L).
    linear = DiagonalPropagator(jnp.asarray([-4.0, 0.0, 3.0]))
    m0 = lambda t0, t1: linear.moments(t0, t1, 1)[0]
    d0, d1 = jax.jacobian(m0, argnums=(0, 1))(0.2, 0.5)
    np.testing.assert_allclose(d1, np.exp([-1.2, 0.0, 0.9]), rtol=1e-13)
    np.testing.assert_allclose(d0, -np.exp([-1.2, 0.0, 0.9]), rtol=1e-13)
