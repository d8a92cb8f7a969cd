import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.closures import (
    contract_fourth_moment,
    contract_with_second_moment,
    contract_with_strain,
    fourth_moment,
    second_moment,
    tensor_to_traceless,
    traceless_to_tensor,
)


@pytest.fixture(scope="module")
def moments():
    """Moments of random positive densities by quadrature, with their defining tensors."""
    rng = np.random.default_rng(0)
    theta = 2 * np.pi * np.arange(64) / 64
    psi = rng.uniform(0.1, 2, (5, 64))
    p = np.array([np.cos(theta), np.sin(theta)])
    w = 2 * np.pi / 64
    d = np.einsum("it,jt,nt->ijn", p, p, psi) * w
    s = np.einsum("it,jt,kt,lt,nt->ijkln", p, p, p, p, psi) * w
    a = [jnp.asarray((psi * np.exp(1j * m * theta)).sum(-1) * w) for m in (0, 2, 4)]
    return a[0].real, a[1], a[2], d, s


def random_tensor(seed, trace):
    t = np.random.default_rng(seed).normal(size=(2, 2, 5))
    t = (t + t.transpose(1, 0, 2)) / 2
    return t - np.eye(2)[..., None] * (0 if trace else np.einsum("iin->n", t) / 2)


def traceless(t):
    return (t[0, 0] - t[1, 1]) / 2 + 1j * t[0, 1]


def test_the_second_and_fourth_moments_are_the_integrals_of_pp_and_pppp(moments):
    c, z, a4, d, s = moments
    np.testing.assert_allclose(second_moment(c, z), d, atol=1e-14)
    np.testing.assert_allclose(fourth_moment(c, z, a4), s, atol=1e-14)


def test_s_contracted_with_any_symmetric_tensor_has_the_stated_trace_and_traceless_part(moments):
    c, z, a4, _, s = moments
    t = random_tensor(1, trace=True)
    full = np.einsum("ijkln,kln->ijn", s, t)
    trace, part = contract_fourth_moment(
        c, z, a4, jnp.asarray(t[0, 0] + t[1, 1]), jnp.asarray(traceless(t))
    )
    np.testing.assert_allclose(trace, full[0, 0] + full[1, 1], atol=1e-13)
    np.testing.assert_allclose(part, traceless(full), atol=1e-13)


def test_contractions_with_the_strain_and_the_second_moment_are_special_cases(moments):
    c, z, a4, d, s = moments
    e = random_tensor(2, trace=False)
    se, sd = (np.einsum("ijkln,kln->ijn", s, x) for x in (e, d))
    np.testing.assert_allclose(
        contract_with_strain(c, z, a4, jnp.asarray(traceless(e))), traceless(se), atol=1e-14
    )
    np.testing.assert_allclose(contract_with_second_moment(c, z, a4), traceless(sd), atol=1e-13)


def test_tensors_and_complex_numbers_convert_back_and_forth():
    t = random_tensor(3, trace=False)
    np.testing.assert_allclose(tensor_to_traceless(jnp.asarray(t)), traceless(t), atol=1e-15)
    np.testing.assert_allclose(traceless_to_tensor(jnp.asarray(traceless(t))), t, atol=1e-15)


def test_a_trace_does_not_reach_the_traceless_part():
    t = random_tensor(4, trace=True)
    np.testing.assert_allclose(tensor_to_traceless(jnp.asarray(t)), traceless(t), atol=1e-15)


def test_float32_moments_stay_float32_with_x64_on():
    c, z = jnp.ones(3, jnp.float32), jnp.ones(3, jnp.complex64)
    assert second_moment(c, z).dtype == jnp.float32
    assert fourth_moment(c, z, z).dtype == jnp.float32
    assert contract_with_second_moment(c, z, z).dtype == jnp.complex64
    assert jax.eval_shape(contract_with_strain, c, z, z, z).dtype == jnp.complex64
