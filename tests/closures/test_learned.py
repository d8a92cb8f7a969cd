import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.closures import (
    bingham_ratio,
    BinghamClosure,
    contracted_moment,
    LearnedFourthHarmonic,
    second_moment,
    sine_mlp,
    TensorBasisClosure,
    traceless_to_tensor,
)


def states(n=40):
    rng = np.random.default_rng(0)
    c = rng.uniform(0.4, 2, n)
    z = c * np.sqrt(rng.uniform(size=n)) * np.exp(2j * np.pi * rng.uniform(size=n))
    eps = rng.normal(size=n) + 1j * rng.normal(size=n)
    return jnp.asarray(c), jnp.asarray(z), jnp.asarray(eps)


def test_the_published_network_has_10655_parameters_zero_biases_and_xavier_weights():
    mlp = sine_mlp(3, 5, key=jax.random.key(0))
    leaves = jax.tree.leaves(eqx.filter(mlp, eqx.is_inexact_array))
    assert sum(x.size for x in leaves) == 10655
    assert all(np.all(layer.bias == 0) for layer in mlp.layers)
    np.testing.assert_allclose(jnp.std(mlp.layers[2].weight), np.sqrt(2 / 100), rtol=0.05)
    x = jnp.asarray([0.3, -0.2, 0.9])
    y = np.asarray(x)
    for layer in mlp.layers[:-1]:
        y = np.sin(np.asarray(layer.weight) @ y)
    np.testing.assert_allclose(mlp(x), np.asarray(mlp.layers[-1].weight) @ y, atol=1e-14)


def bingham_coefficients(invariants):
    """The five coefficients of the Bingham closure, in closed form, for c = 1."""
    d2, _, de = invariants
    r2 = 2 * d2 - 1
    g = bingham_ratio(r2)
    b1 = (3 + g * r2) / 4
    return jnp.stack([((1 + r2) / 2 - b1) / 2, b1, (1 - g) * de / 2, g * de, (1 - g * r2) / 4])


def test_the_tensor_basis_reproduces_bingham_from_its_coefficients_for_any_concentration():
    c, z, eps = states()
    closure, bingham = TensorBasisClosure(bingham_coefficients), BinghamClosure()
    for a, b in zip(closure.contractions(c, z, eps), bingham.contractions(c, z, eps)):
        np.testing.assert_allclose(a, b, atol=1e-12)
    for a, b in zip(closure.traces(c, z, eps), bingham.traces(c, z, eps)):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_tensor_form_equals_the_complex_form():
    c, z, eps = states()
    closure = TensorBasisClosure(sine_mlp(3, 5, key=jax.random.key(2)))
    full = closure(second_moment(c, z), traceless_to_tensor(eps), 0.7)
    parts = contracted_moment(closure, c, z, eps, jnp.asarray(0.7))
    np.testing.assert_allclose(jnp.stack([full[0, 0], full[0, 1], full[1, 1]]), parts, atol=1e-13)
    np.testing.assert_allclose(full[0, 1], full[1, 0], atol=0)


def test_the_network_sees_tr_q2_tr_e2_and_tr_qe():
    c, z, eps = states()
    q = np.asarray(second_moment(c, z) / c)[..., 0]
    e = np.asarray(traceless_to_tensor(eps))[..., 0]
    want = [np.trace(q @ q), np.trace(e @ e), np.trace(q @ e)]
    echo = TensorBasisClosure(lambda x: jnp.stack([x[0], 0 * x[0], x[1], 0 * x[0], 0 * x[0]]))
    strain_trace, moment_trace = echo.traces(c[:1], z[:1], eps[:1])
    got = [moment_trace[0] / (2 * c[0] ** 2), strain_trace[0] / (2 * c[0])]
    np.testing.assert_allclose(got, want[:2], rtol=1e-13)
    echo = TensorBasisClosure(lambda x: jnp.stack([x[2], *jnp.zeros(4)]))
    np.testing.assert_allclose(
        echo.traces(c[:1], z[:1], eps[:1])[1][0] / (2 * c[0] ** 2), want[2], rtol=1e-12
    )


def test_a_float32_network_runs_inside_float64_fields():
    c, z, eps = states()
    closure = LearnedFourthHarmonic(sine_mlp(3, 3, key=jax.random.key(0)))
    single = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, closure
    )
    assert single(c, z, eps).dtype == jnp.complex128
    np.testing.assert_allclose(single(c, z, eps), closure(c, z, eps), atol=1e-5)


def test_the_learned_harmonic_fills_the_realisable_disc_and_no_more():
    c, z = jnp.asarray([0.5]), jnp.asarray([0.1 + 0.2j])
    radius = float(c[0] - jnp.abs(z[0]) ** 2 / c[0])
    for size in (0.1, 1.0, 30.0):
        closure = LearnedFourthHarmonic(lambda x, size=size: size * jnp.ones(3))
        distance = float(jnp.abs(closure(c, z, 1j * z) - z**2 / c)[0])
        assert distance <= radius * (1 + 1e-12)
    closure = LearnedFourthHarmonic(lambda x: 1e6 * jnp.ones(3))
    np.testing.assert_allclose(jnp.abs(closure(c, z, 1j * z) - z**2 / c)[0], radius, rtol=1e-6)


def test_the_bound_is_smooth_where_the_output_vanishes():
    closure = LearnedFourthHarmonic(lambda x: jnp.ones(3))

    def a4(x):
        out = closure(jnp.asarray(1.0), jax.lax.complex(x[0], x[1]), jnp.asarray(0j))
        return jnp.stack([out.real, out.imag])

    x = jnp.zeros(2)
    # a_4 = 2 z^2 to leading order: z^2 from the centre, z^2 from the network.
    second = jax.jit(jax.jacfwd(jax.jacrev(a4)))(x)
    np.testing.assert_allclose(second[0], [[4, 0], [0, -4]], atol=1e-12)
    for y in ([0.0999, 0.0], [0.1001, 0.0]):
        square = y[0] ** 2
        want = square + (1 - square) * np.tanh(square)
        np.testing.assert_allclose(a4(jnp.asarray(y))[0], want, rtol=1e-12)


@pytest.mark.bad_input
def test_a_network_of_the_wrong_size_is_reported():
    c, z, eps = states(3)
    closure = TensorBasisClosure(sine_mlp(3, 4, key=jax.random.key(0)))
    with pytest.raises(ValueError, match=r"`mlp` must map 3 numbers to 5, .*\(4,\)"):
        closure.contractions(c, z, eps)


@pytest.mark.bad_input
def test_sizes_of_the_network_must_be_positive():
    with pytest.raises(ValueError, match="`width` must be at least 1"):
        sine_mlp(3, 5, width=0, key=jax.random.key(0))
