import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special as sp

from jaxsci.closures import bingham_ratio, BinghamClosure

KAPPA = np.array([0.1, 1, 2, 5, 20])
R = np.array(
    [0.0499376039879389, 0.446389965896535, 0.697774657964008, 0.893383137044085, 0.974670507889807]
)
G = np.array(
    [0.500416276388595, 0.53808047272676, 0.620726794501403, 0.805187104543273, 0.950052085383888]
)


def test_the_ratio_has_its_tabulated_values():
    np.testing.assert_allclose(bingham_ratio(jnp.asarray(R**2)), G, atol=2e-14)


def test_the_ratio_equals_quotients_of_bessel_functions_to_1e_13():
    kappa = np.logspace(-2, 5, 2000)
    i0, i1, i2 = (sp.ive(n, kappa) for n in range(3))
    # The mean of cos 4 theta over r^2, as a product of ratios to keep the digits at small kappa.
    g = (i2 / i1) / (i1 / i0)
    np.testing.assert_allclose(bingham_ratio(jnp.asarray((i1 / i0) ** 2)), g, atol=1e-13)


def test_the_closure_is_the_fourth_mode_of_the_bingham_density_by_quadrature():
    theta = 2 * np.pi * np.arange(400) / 400
    for kappa, angle, c in [(0.3, 0.2, 1.0), (3.0, -1.0, 0.7), (30.0, 2.0, 1.9)]:
        psi = np.exp(kappa * (np.cos(2 * (theta - angle)) - 1))
        psi *= c / (psi.sum() * 2 * np.pi / 400)
        z, a4 = ((psi * np.exp(1j * m * theta)).sum() * 2 * np.pi / 400 for m in (2, 4))
        got = BinghamClosure()(jnp.asarray(c), jnp.asarray(z), jnp.asarray(0j))
        np.testing.assert_allclose(got, a4, atol=1e-13)


def test_the_ratio_increases_from_one_half_to_one():
    g = np.asarray(bingham_ratio(jnp.linspace(0, 1, 4001)))
    np.testing.assert_allclose(g[[0, -1]], [0.5, 1.0], atol=1e-13)
    assert np.all(np.diff(g) > 0)


def test_the_first_derivatives_at_isotropy_are_those_of_the_series():
    # r = k/2 - k^3/16 + k^5/96 and I_2/I_0 = k^2/8 - k^4/48 + ... give g = 1/2 + rho/6 + ...
    slope = jax.grad(bingham_ratio)(jnp.asarray(0.0))
    np.testing.assert_allclose(slope, 1 / 6, atol=1e-10)


def test_every_derivative_is_finite_at_isotropy_and_at_full_alignment():
    closure = BinghamClosure()

    def a4(x):
        out = closure(x[0], jax.lax.complex(x[1], x[2]), jnp.asarray(0j))
        return jnp.stack([out.real, out.imag])

    x = jnp.asarray([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.6, 0.8], [0.5, 0.6, 0.2]])
    first = jax.jit(jax.vmap(jax.jacrev(a4)))(x)
    second = jax.jit(jax.vmap(jax.jacfwd(jax.jacrev(a4))))(x)
    assert np.all(np.isfinite(first))
    assert np.all(np.isfinite(second))
    # a_4 = z^2/(2c) + O(|z|^4): the second derivative at isotropy.
    np.testing.assert_allclose(second[0, 0, 1:, 1:], [[1, 0], [0, -1]], atol=1e-12)


def test_derivatives_equal_central_differences():
    rho = jnp.asarray([0.05, 0.3, 0.7, 0.99])
    slope = jax.vmap(jax.grad(bingham_ratio))(rho)
    h = 1e-5
    difference = (bingham_ratio(rho + h) - bingham_ratio(rho - h)) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-7)


def test_float32_keeps_its_precision_and_dtype_with_x64_on():
    g = bingham_ratio(jnp.asarray(R**2, jnp.float32))
    assert g.dtype == jnp.float32
    np.testing.assert_allclose(g, G, atol=1e-6)
    a4 = BinghamClosure()(jnp.ones(2, jnp.float32), jnp.ones(2, jnp.complex64), jnp.zeros(2, "F"))
    assert a4.dtype == jnp.complex64


def test_orders_beyond_one_are_taken_as_full_alignment():
    np.testing.assert_allclose(bingham_ratio(jnp.asarray([1.0, 1.01, 3.0])), 1, atol=1e-13)


def test_the_coefficients_of_the_published_invariant_basis_follow():
    """S:D = b0 I + b1 D and S:E = a0 I + a1 D + a2 E for c = 1."""
    rng = np.random.default_rng(1)
    z = jnp.asarray(0.9 * np.sqrt(rng.uniform(size=20)) * np.exp(2j * np.pi * rng.uniform(size=20)))
    eps = jnp.asarray(rng.normal(size=20) + 1j * rng.normal(size=20))
    c = jnp.ones(20)
    with_strain, with_moment = BinghamClosure().contractions(c, z, eps)
    r2 = np.abs(z) ** 2
    g = np.asarray(bingham_ratio(jnp.asarray(r2)))
    de = (z * eps.conj()).real
    b1, a1, a2 = (3 + g * r2) / 4, g * de, (1 - g * r2) / 4
    np.testing.assert_allclose(with_moment, b1 * z / 2, atol=1e-13)
    np.testing.assert_allclose(with_strain, a1 * z / 2 + a2 * eps, atol=1e-13)
    strain_trace, moment_trace = BinghamClosure().traces(c, z, eps)
    b0, a0 = ((1 + r2) / 2 - b1) / 2, (1 - g) * de / 2
    np.testing.assert_allclose(moment_trace, 2 * b0 + b1, atol=1e-13)
    np.testing.assert_allclose(strain_trace, 2 * a0 + a1, atol=1e-13)


@pytest.mark.parametrize("c", [0.3, 1.0, 2.5])
def test_the_closure_scales_with_the_concentration(c):
    z = jnp.asarray(0.5 - 0.3j)
    closure = BinghamClosure()
    zero, one = jnp.asarray(0j), jnp.asarray(1.0)
    np.testing.assert_allclose(
        closure(jnp.asarray(c), c * z, zero), c * closure(one, z, zero), rtol=1e-13
    )
