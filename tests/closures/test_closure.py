import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.closures import (
    BinghamClosure,
    contracted_moment,
    fourth_moment,
    IsotropicFourthHarmonic,
    LearnedFourthHarmonic,
    QuadraticFourthHarmonic,
    QuadraticTensorClosure,
    second_moment,
    sine_mlp,
    TensorBasisClosure,
    traceless_to_tensor,
)

CLOSURES = {
    "bingham": BinghamClosure(),
    "isotropic": IsotropicFourthHarmonic(),
    "quadratic": QuadraticFourthHarmonic(),
    "quadratic tensor": QuadraticTensorClosure(),
    "tensor basis": TensorBasisClosure(sine_mlp(3, 5, key=jax.random.key(0))),
    "learned": LearnedFourthHarmonic(sine_mlp(3, 3, key=jax.random.key(1))),
}
FOURTH = [name for name, c in CLOSURES.items() if hasattr(c, "contractions") and callable(c)]
FOURTH.remove("tensor basis")


def states(n=50, seed=0):
    rng = np.random.default_rng(seed)
    c = rng.uniform(0.4, 2, n)
    z = c * np.sqrt(rng.uniform(size=n)) * np.exp(2j * np.pi * rng.uniform(size=n))
    eps = rng.normal(size=n) + 1j * rng.normal(size=n)
    return jnp.asarray(c), jnp.asarray(z), jnp.asarray(eps)


@pytest.mark.parametrize("name", CLOSURES)
def test_a_rotation_of_the_directions_rotates_the_contractions(name):
    c, z, eps = states()
    closure = CLOSURES[name]
    turn = np.exp(2j * 0.7)
    plain = closure.contractions(c, z, eps)
    turned = closure.contractions(c, turn * z, turn * eps)
    for a, b in zip(plain, turned):
        np.testing.assert_allclose(b, turn * a, atol=1e-13)
    for a, b in zip(closure.traces(c, z, eps), closure.traces(c, turn * z, turn * eps)):
        np.testing.assert_allclose(b, a, atol=1e-13)


@pytest.mark.parametrize("name", CLOSURES)
def test_a_reflection_reflects_the_contractions(name):
    c, z, eps = states()
    closure = CLOSURES[name]
    plain = closure.contractions(c, z, eps)
    mirrored = closure.contractions(c, z.conj(), eps.conj())
    for a, b in zip(plain, mirrored):
        np.testing.assert_allclose(b, a.conj(), atol=1e-13)


@pytest.mark.parametrize("name", FOURTH)
def test_the_fourth_harmonic_turns_four_times(name):
    c, z, eps = states()
    closure = CLOSURES[name]
    turn = np.exp(1j * 0.7)
    a4 = closure(c, turn**2 * z, turn**2 * eps)
    np.testing.assert_allclose(a4, turn**4 * closure(c, z, eps), atol=1e-13)


@pytest.mark.parametrize("name", CLOSURES)
def test_the_contractions_scale_with_the_density(name):
    c, z, eps = states()
    closure = CLOSURES[name]
    strain, moment = closure.contractions(c, z, eps)
    strain2, moment2 = closure.contractions(3 * c, 3 * z, eps)
    np.testing.assert_allclose(strain2, 3 * strain, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moment2, 9 * moment, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FOURTH)
def test_s_contracted_with_t_equals_the_tensor_contraction(name):
    c, z, eps = states()
    closure = CLOSURES[name]
    zeta = jnp.asarray(0.6)
    s = fourth_moment(c, z, closure(c, z, eps))
    t = traceless_to_tensor(eps) + 2 * zeta * second_moment(c, z)
    full = np.einsum("ijkln,kln->ijn", s, t)
    got = contracted_moment(closure, c, z, eps, zeta)
    np.testing.assert_allclose(got, [full[0, 0], full[0, 1], full[1, 1]], atol=1e-13)


def test_the_quadratic_tensor_closure_is_dd_over_c():
    c, z, eps = states()
    zeta = jnp.asarray(0.6)
    d = np.asarray(second_moment(c, z))
    s = np.einsum("ijn,kln->ijkln", d, d) / np.asarray(c)
    t = np.asarray(traceless_to_tensor(eps)) + 2 * 0.6 * d
    full = np.einsum("ijkln,kln->ijn", s, t)
    got = contracted_moment(QuadraticTensorClosure(), c, z, eps, zeta)
    np.testing.assert_allclose(got, [full[0, 0], full[0, 1], full[1, 1]], atol=1e-13)


@pytest.mark.parametrize("name", ["bingham", "quadratic", "learned"])
def test_the_fourth_harmonic_is_that_of_a_density(name):
    """|a_4 - z^2/c| <= c - |z|^2/c, and the 3x3 Toeplitz matrix is positive semi-definite."""
    c, z, eps = states(2000)
    a4 = np.asarray(CLOSURES[name](c, z, 10 * eps))
    c, z = np.asarray(c), np.asarray(z)
    assert np.all(np.abs(a4 - z**2 / c) <= c - np.abs(z) ** 2 / c + 1e-12)
    toeplitz = np.array([[c, z, a4], [z.conj(), c, z], [a4.conj(), z.conj(), c]]).transpose(2, 0, 1)
    assert np.linalg.eigvalsh(toeplitz).min() > -1e-12


@pytest.mark.parametrize("name", CLOSURES)
def test_whether_the_stress_is_linear_in_the_strain_is_declared(name):
    c, z, eps = states()
    closure = CLOSURES[name]
    strain, moment = closure.contractions(c, z, eps)
    strain2, moment2 = closure.contractions(c, z, 2 * eps)
    linear = np.allclose(strain2, 2 * strain) and np.allclose(moment2, moment)
    assert linear == closure.linear_in_strain


@pytest.mark.parametrize("name", CLOSURES)
def test_float32_stays_float32_and_gradients_are_finite_at_isotropy(name):
    c, z = jnp.ones(2, jnp.float32), jnp.zeros(2, jnp.complex64)
    for part in CLOSURES[name].contractions(c, z, z):
        assert part.dtype == jnp.complex64

    def size(z):
        return sum(jnp.sum(jnp.abs(1 + x) ** 2) for x in CLOSURES[name].contractions(c, z, z))

    assert np.all(np.isfinite(jax.grad(size)(z)))
