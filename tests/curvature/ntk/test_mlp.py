import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import ntk

X = jnp.array([[1, 2, -1], [0.5, -0.3, 2], [0, 1, 1]])
# Rows 0 of the tangent kernel at W_std 1, b_std 0.1, equal to neural-tangents to eight digits.
ROWS = [
    ("relu", 2, (2.02, 0.00537008, 0.39171008)),
    ("relu", 4, (1.0325, 0.1905981, 0.22851373)),
    ("erf", 4, (1.40196538, -0.32197952, 0.29220457)),
    ("sin", 2, (1.52406625, -0.27393832, 0.19630616)),
    ("gelu", 4, (0.65544588, 0.05710906, 0.0938705)),
    (ntk.ABReLU(1.0, 0.1), 4, (1.06320325, 0.14387355, 0.23158989)),
]


@functools.cache
def sphere():
    points = jax.random.normal(jax.random.key(3), (40, 3))
    return points / jnp.linalg.norm(points, axis=1, keepdims=True)


def smallest_eigenvalues(**options):
    return np.linalg.eigvalsh(ntk.mlp_kernels(sphere(), **options).ntk)


@pytest.mark.parametrize(("activation", "depth", "row"), ROWS)
def test_tangent_kernels_reproduce_published_rows(activation, depth, row):
    kernel = ntk.mlp_kernels(X, None, depth, activation).ntk
    np.testing.assert_allclose(kernel[0], row, atol=6e-9)


def test_relu_reproduces_a_published_diagonal_entry():
    kernel = ntk.mlp_kernels(X, depth=2, activation="relu").ntk
    np.testing.assert_allclose(kernel[1, 1], 1.46666667, atol=5e-9)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_without_biases_relu_halves_the_variance_in_every_layer(depth):
    x = jnp.sqrt(jnp.asarray([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]]))
    nngp, tangent = ntk.mlp_kernels(x, depth=depth, activation="relu", b_std=0.0)
    np.testing.assert_allclose(jnp.diag(nngp), 2.0 ** -(depth - 1))
    np.testing.assert_allclose(jnp.diag(tangent), depth * 2.0 ** -(depth - 1))


@pytest.mark.parametrize("b_std", [0.0, 0.3])
def test_a_deep_linear_network_has_a_polynomial_kernel(b_std):
    w_std, depth = 1.2, 4
    first = w_std**2 * X @ X.T / 3 + b_std**2
    covariances = [first]
    for _ in range(depth - 1):
        covariances.append(w_std**2 * covariances[-1] + b_std**2)
    expected = sum(w_std ** (2 * (depth - 1 - i)) * k for i, k in enumerate(covariances))
    nngp, tangent = ntk.mlp_kernels(X, None, depth, "identity", w_std, b_std)
    np.testing.assert_allclose(nngp, covariances[-1], rtol=1e-14)
    np.testing.assert_allclose(tangent, expected, rtol=1e-14)
    if b_std == 0:
        np.testing.assert_allclose(tangent, depth * w_std ** (2 * depth) * X @ X.T / 3, rtol=1e-14)


def test_two_sets_of_points_agree_with_one():
    whole = ntk.mlp_kernels(X, depth=3, activation="relu")
    cross = ntk.mlp_kernels(X[:2], X, depth=3, activation="relu")
    np.testing.assert_allclose(cross.nngp, whole.nngp[:2], atol=1e-8)
    np.testing.assert_allclose(cross.ntk, whole.ntk[:2], atol=1e-8)


def test_the_kernel_is_positive_definite_on_the_sphere_unless_the_activation_is_a_polynomial():
    assert smallest_eigenvalues(depth=2, activation="relu")[0] > 1e-4
    assert smallest_eigenvalues(depth=2, activation="erf")[0] > 1e-11
    for activation, b_std, rank in (
        ("square", 0.0, 6),
        ("square", 0.1, 9),
        ("identity", 0.0, 3),
        ("identity", 0.1, 4),
    ):
        w = smallest_eigenvalues(depth=2, activation=activation, b_std=b_std)
        assert np.sum(w > 1e-12 * w[-1]) == rank


@pytest.mark.parametrize(("dimension", "expected"), [(2, 0.0537), (3, 0.0559)])
def test_biases_separate_an_antipodal_pair_under_an_odd_activation(dimension, expected):
    pair = jnp.stack([jnp.eye(dimension)[0], -jnp.eye(dimension)[0]])
    kernel = lambda b_std: ntk.mlp_kernels(pair, depth=2, activation="erf", b_std=b_std).ntk
    assert abs(np.linalg.eigvalsh(kernel(0.0))[0]) < 1e-15
    np.testing.assert_allclose(np.linalg.eigvalsh(kernel(0.1))[0], expected, atol=5e-5)


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu"])
def test_gradients_are_finite_where_points_coincide(activation):
    def total(x1, x2, w_std, b_std):
        return ntk.mlp_kernels(x1, x2, 3, activation, w_std, b_std).ntk.sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(X, X, 1.3, 0.1)
    assert all(jnp.all(jnp.isfinite(g)) for g in gradients)
    h = 1e-6
    difference = (total(X, X, 1.3, 0.1 + h) - total(X, X, 1.3, 0.1 - h)) / (2 * h)
    np.testing.assert_allclose(gradients[3], difference, rtol=1e-7)


def test_float32_stays_float32_and_integers_become_floating():
    x = X.astype(jnp.float32)
    assert ntk.mlp_kernels(x, depth=3, w_std=jnp.float32(1.2)).ntk.dtype == jnp.float32
    assert ntk.mlp_kernels(jnp.eye(2, dtype=int)).nngp.dtype == jnp.float64


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`depth` must be at least 1, got 0"):
        ntk.mlp_kernels(X, depth=0)
    with pytest.raises(ValueError, match="`b_std` must be at least zero"):
        ntk.mlp_kernels(X, depth=2, b_std=-0.1)
    with pytest.raises(ValueError, match="`w_std` must be at least zero"):
        ntk.mlp_kernels(X, depth=2, w_std=-1.0)
    with pytest.raises(ValueError, match="points of one shape"):
        ntk.mlp_kernels(X, X[:, :2])
    with pytest.raises(ValueError, match="`x1` must have shape"):
        ntk.mlp_kernels(X[0])
    with pytest.raises(TypeError, match="`x1` must be real"):
        ntk.mlp_kernels(X * 1j)
