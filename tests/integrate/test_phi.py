import math
from decimal import Decimal, localcontext
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import phi, phi_functions

ORDERS = (1, 2, 3, 4, 5, 6)
MODULI = np.concatenate(
    [np.logspace(-8, 0, 17), np.linspace(0.7, 3.2, 26), np.logspace(0.6, 1.9, 12)]
)
RAYS = {
    "negative": -1.0,
    "positive": 1.0,
    "imaginary": 1j,
    "left half plane": np.exp(2j),
    "right half plane": np.exp(-1j),
}


def _product(a, b):
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


@cache
def exact(order, z):
    """phi_order(z) = sum_k z^k/(k + order)! in decimal arithmetic of 150 digits."""
    with localcontext() as context:
        context.prec = 150
        x = Decimal(complex(z).real), Decimal(complex(z).imag)
        power, total, k = (Decimal(1), Decimal(0)), [Decimal(0), Decimal(0)], 0
        while True:
            factorial = Decimal(math.factorial(k + order))
            total = [t + p / factorial for t, p in zip(total, power)]
            power, k = _product(power, x), k + 1
            if k > 40 and sum(abs(p) for p in power) / factorial < Decimal(10) ** -60:
                return complex(float(total[0]), float(total[1]))


def exact_far(order, z):
    """phi_order of a real z far from zero, by the recurrence in decimal arithmetic."""
    with localcontext() as context:
        context.prec = 100
        x = Decimal(float(z))
        value = x.exp()
        for j in range(order):
            value = (value - 1 / Decimal(math.factorial(j))) / x
        return float(value)


@pytest.mark.parametrize("ray", RAYS)
@pytest.mark.parametrize("order", ORDERS)
def test_phi_is_accurate_to_rounding_in_every_direction(order, ray):
    z = MODULI * RAYS[ray]
    if np.isrealobj(z) or ray == "negative":
        z = z.real
    values = phi_functions(order, z)
    assert len(values) == order + 1
    for j in range(1, order + 1):
        expected = np.array([exact(j, complex(x)) for x in z])
        # On the imaginary axis phi_1 has zeros; its size is 2/|z| there.
        scale = np.maximum(np.abs(expected), 1 / (1 + np.abs(z)))
        error = np.abs(np.asarray(values[j]) - expected) / scale
        assert error.max() < (1e-13 if j == 1 and ray != "negative" else 3e-14), (j, error.max())


def test_phi_of_stiff_negative_z_reaches_the_published_accuracy():
    z = -np.logspace(-6, 5, 400)
    for dtype, bounds in ((np.float64, (2e-14, 2e-15, 4e-15)), (np.float32, (2e-7, 2e-7, 3e-7))):
        values = phi_functions(3, jnp.asarray(z.astype(dtype)))
        for order, bound in zip((1, 2, 3), bounds):
            rounded = z.astype(dtype).astype(float)
            expected = np.array(
                [exact(order, x).real if x > -50 else exact_far(order, x) for x in rounded]
            )
            assert values[order].dtype == dtype
            error = np.abs(np.asarray(values[order], float) - expected) / np.abs(expected)
            assert error.max() < bound, (order, dtype, error.max())


def test_phi_on_the_imaginary_axis_in_single_precision():
    z = (1j * np.logspace(-6, 2, 300)).astype(np.complex64)
    values = phi_functions(3, jnp.asarray(z))
    for order in (1, 2, 3):
        expected = np.array([exact(order, complex(x)) for x in z])
        assert values[order].dtype == np.complex64
        scale = np.maximum(np.abs(expected), 1 / np.abs(z) * (np.abs(z) > 1))
        assert np.max(np.abs(values[order] - expected) / scale) < 5e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_phi_at_zero_is_one_over_the_factorial(dtype):
    for order, value in enumerate(phi_functions(6, jnp.zeros(3, dtype))):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, 1 / math.factorial(order), rtol=1e-6)


def test_all_orders_obey_the_recurrence_and_the_integral():
    z = np.array([-7.3, -0.4, 2.1, 0.3 + 4j, -2 - 9j])
    nodes, weights = np.polynomial.legendre.leggauss(60)
    s = (nodes + 1) / 2
    values = phi_functions(6, z)
    np.testing.assert_allclose(values[0], np.exp(z), rtol=1e-15)
    for j in range(1, 7):
        integrand = np.exp((1 - s) * z[:, None]) * s ** (j - 1) / math.factorial(j - 1)
        np.testing.assert_allclose(values[j], integrand @ weights / 2, rtol=1e-12)
        np.testing.assert_allclose(phi(j, z), values[j], rtol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_derivatives_are_finite_and_exact_at_zero_and_across_the_branch(order):
    # phi_j' = phi_j - j phi_{j+1}, from the integral.
    radius = {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.5, 5: 2.0, 6: 2.5}[order]
    z = np.array([0.0, 1e-300, -1e-9, 0.3, -radius, np.nextafter(radius, 0), radius, -40.0, -1e5])
    slope = jax.vmap(jax.grad(lambda x: phi(order, x)))(jnp.asarray(z))
    expected = [
        (exact(order, x) - order * exact(order + 1, x)).real
        if x > -50
        else exact_far(order, x) - order * exact_far(order + 1, x)
        for x in z
    ]
    np.testing.assert_allclose(slope, expected, rtol=1e-10)
    second = jax.vmap(jax.grad(jax.grad(lambda x: phi(order, x))))(jnp.asarray(z))
    assert np.all(np.isfinite(second))
    np.testing.assert_allclose(
        second[0], 2 * math.factorial(1) / math.factorial(order + 2), rtol=1e-12
    )


def test_values_are_continuous_where_the_branches_meet():
    for order, radius in {1: 1.0, 3: 1.0, 4: 1.5, 5: 2.0, 6: 2.5}.items():
        for direction in (1.0, -1.0, 1j, np.exp(2.5j)):
            z = direction * radius * np.array([1 - 1e-15, 1 + 1e-15])
            inside, outside = phi(order, z)
            assert abs(inside - outside) < 1e-13 * abs(inside)


def test_numpy_in_numpy_out():
    assert isinstance(phi(2, np.linspace(-3, 0, 4)), np.ndarray)
    assert isinstance(phi(2, jnp.linspace(-3, 0, 4)), jax.Array)
    np.testing.assert_allclose(phi(1, 1.0), math.e - 1, rtol=1e-15)
    np.testing.assert_allclose(jax.jit(lambda z: phi(1, z))(1.0), math.e - 1, rtol=1e-15)


@pytest.mark.bad_input
@pytest.mark.parametrize("order", [-1, 7])
def test_orders_out_of_range_are_refused(order):
    with pytest.raises(ValueError, match=rf"`order` must be .*got {order}"):
        phi(order, 1.0)
