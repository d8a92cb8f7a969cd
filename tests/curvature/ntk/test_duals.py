import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import ntk

# K and K_dot at variances 1.3, 0.7 and covariance 0.5, from two-dimensional quadrature.
PUBLISHED = {
    "relu": (0.29820159977961047, 0.3378070255659793),
    "erf": (0.22099422849465422, 0.460641900512224),
    "sin": (0.19170024978210182, 0.4148304099305316),
    "gelu": (0.22152597254372347, 0.34460398039752443),
    "square": (1.41, 2.0),
    "exp": (4.4816890703380645, 4.4816890703380645),
    "identity": (0.5, 1.0),
}
FUNCTIONS = {
    "erf": jax.scipy.special.erf,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "exp": jnp.exp,
    "square": jnp.square,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


def hermite_mean(f, g, q, q2, c, nodes=120):
    """E[f(u) g(v)] by a tensor-product rule in the Cholesky coordinates of (u, v), in NumPy."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    u = np.sqrt(q) * x[:, None]
    v = c / np.sqrt(q) * x[:, None] + np.sqrt(max(q2 - c**2 / q, 0)) * x[None, :]
    return np.einsum("i,j,ij->", w, w, np.asarray(f(u)) * np.asarray(g(v)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_closed_forms_reproduce_published_values(name):
    np.testing.assert_allclose(ntk.dual(name)(1.3, 0.7, 0.5), PUBLISHED[name], rtol=1e-14)


def test_leaky_relu_reproduces_its_published_value_however_it_is_given():
    expected = (0.2915432958214845, 0.37362369070844326)
    for activation in (
        ntk.ABReLU(1.0, 0.1),
        functools.partial(jax.nn.leaky_relu, negative_slope=0.1),
    ):
        np.testing.assert_allclose(ntk.dual(activation)(1.3, 0.7, 0.5), expected, rtol=1e-14)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_smooth_closed_forms_equal_a_tensor_product_rule(name):
    fn, c = FUNCTIONS[name], -0.6
    slope = jnp.vectorize(jax.grad(fn))
    expected = [hermite_mean(fn, fn, 0.9, 0.6, c), hermite_mean(slope, slope, 0.9, 0.6, c)]
    np.testing.assert_allclose(ntk.dual(name)(0.9, 0.6, c), expected, atol=1e-9)


def test_abs_is_the_sum_of_a_relu_and_its_mirror_image():
    relu, absolute = (ntk.dual(name) for name in ("relu", "abs"))
    q, q2, c = 1.3, 0.7, 0.4
    value, slope = relu(q, q2, c)
    mirrored, mirrored_slope = relu(q, q2, -c)
    np.testing.assert_allclose(
        absolute(q, q2, c), (2 * (value + mirrored), 2 * (slope - mirrored_slope))
    )


def test_the_diagonal_is_exact_and_its_derivatives_finite():
    names = ("relu", "abs", "leaky_relu", "erf", "sin", "cos", "gelu")
    q = jnp.asarray([0.3, 1.0, 7.0])

    @jax.jit
    def evaluate(q, q2, c):
        def total(*variances):
            pairs = [ntk.dual(name)(*variances) for name in names]
            return sum(k.sum() + slope.sum() for k, slope in pairs), [k for k, _ in pairs]

        return jax.grad(total, argnums=(0, 1, 2), has_aux=True)(q, q2, c)

    slopes, values = evaluate(q, q, q)
    one_dimensional = {
        "relu": q / 2,
        "abs": q,
        "leaky_relu": q * (1 + 0.01**2) / 2,
        "erf": 2 / jnp.pi * jnp.arcsin(2 * q / (1 + 2 * q)),
        "sin": (1 - jnp.exp(-2 * q)) / 2,
        "cos": (1 + jnp.exp(-2 * q)) / 2,
    }
    for value, expected in zip(values, one_dimensional.values()):
        np.testing.assert_allclose(value, expected, rtol=4e-15)
    assert jnp.all(jnp.isfinite(jnp.stack(slopes)))


def test_a_zero_variance_gives_finite_values_and_derivatives():
    def total(q, q2, c):
        values = [
            ntk.dual(name)(q, q2, c) for name in ("relu", "abs", "erf", "sin", "gelu", "tanh")
        ]
        return sum(value + slope for value, slope in values)

    slopes = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(0.0, 1.0, 0.0)
    assert all(jnp.isfinite(s) for s in jax.tree.leaves(slopes))


def test_sine_and_cosine_survive_large_variances():
    sine, cosine = ntk.dual("sin"), ntk.dual("cos")
    for c in (999.0, -999.0):
        np.testing.assert_allclose(sine(1000.0, 1000.0, c)[0], np.sign(c) * np.exp(-1) / 2)
        np.testing.assert_allclose(cosine(1000.0, 1000.0, c)[0], np.exp(-1) / 2)
    # Relative accuracy where the covariance is tiny, and the slope at zero.
    np.testing.assert_allclose(sine(1.0, 1.0, 1e-12)[0], np.exp(-1) * 1e-12, rtol=1e-14)
    np.testing.assert_allclose(jax.grad(lambda c: sine(1.0, 1.0, c)[0])(0.0), np.exp(-1))


def test_relu_is_accurate_for_nearly_parallel_and_antiparallel_inputs():
    angle = 1e-6
    for sign in (1, -1):
        theta = angle if sign == 1 else np.pi - angle
        _, slope = ntk.dual("relu")(2.0, 2.0, sign * 2 * np.cos(angle))
        np.testing.assert_allclose(slope, (np.pi - theta) / (2 * np.pi), atol=1e-10)


def test_the_slopes_of_abrelu_are_differentiable():
    grad = jax.grad(lambda a: ntk.dual(ntk.ABReLU(a, 0.1))(1.3, 0.7, 0.5)[0])(1.0)
    relu = PUBLISHED["relu"][0]
    np.testing.assert_allclose(grad, 0.1 * 0.5 + 2 * 0.9 * relu, rtol=1e-12)


def test_the_default_gelu_of_jax_is_taken_as_the_approximation_it_is():
    approximate = ntk.dual(jax.nn.gelu)(1.3, 0.7, 0.5)[0]
    difference = abs(float(approximate) - PUBLISHED["gelu"][0])
    assert 1e-8 < difference < 1e-3


def test_a_registered_dual_is_used():
    def cube(x):
        return x**3

    expected = ntk.dual(cube, num_nodes=6)(1.3, 0.7, 0.5)
    ntk.register_dual(cube, lambda q, q2, c: (9 * q * q2 * c + 6 * c**3, 9 * (q * q2 + 2 * c**2)))
    np.testing.assert_allclose(ntk.dual(cube)(1.3, 0.7, 0.5), expected, rtol=1e-12)


def test_float32_stays_float32():
    q = jnp.asarray([0.5, 1.0], jnp.float32)
    for name in ("relu", "erf", "gelu"):
        assert all(part.dtype == jnp.float32 for part in ntk.dual(name)(q, q, q))


@pytest.mark.bad_input
def test_unknown_activations_are_refused():
    with pytest.raises(ValueError, match=r"`activation`.*'relu'.*got 'rule'"):
        ntk.dual("rule")
    with pytest.raises(TypeError, match="`activation` must be a name or a function"):
        ntk.dual(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`evaluate` must be callable"):
        ntk.register_dual(jnp.tanh, 1.0)  # pyright: ignore[reportArgumentType]
