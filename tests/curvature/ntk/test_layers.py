import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import ntk

SLOW = pytest.mark.slow
kernels = eqx.filter_jit(ntk.kernels)
X = jnp.array([[1, 2, -1], [0.5, -0.3, 2], [0, 1, 1]])


def relu_dual(q, q2, c):
    theta = np.arccos(np.clip(c / np.sqrt(q * q2), -1, 1))
    s = np.sqrt(max(q * q2 - c * c, 0))
    return (s + (np.pi - theta) * c) / (2 * np.pi), (np.pi - theta) / (2 * np.pi)


class PatchRecursion:
    """Kernels of a 1-D convolutional network between all pairs of positions, entry by entry."""

    def __init__(self, x):
        self.points = [np.asarray(p) for p in x]
        channels = self.points[0].shape[0]
        n = len(self.points)
        self.k = {
            (i, j): self.points[i].T @ self.points[j] / channels for i in range(n) for j in range(n)
        }
        self.t = {ij: np.zeros_like(k) for ij, k in self.k.items()}

    def conv(self, size, w, b, stride, padding):
        length = next(iter(self.k.values())).shape[0]
        if padding == "valid":
            out, before = (length - size) // stride + 1, 0
        else:
            out = -(-length // stride)
            before = max((out - 1) * stride + size - length, 0) // 2

        def average(k):
            new = np.zeros((out, out))
            for s in range(out):
                for u in range(out):
                    for tap in range(size):
                        p, q = s * stride + tap - before, u * stride + tap - before
                        if padding == "circular":
                            p, q = p % length, q % length
                        if 0 <= p < length and 0 <= q < length:
                            new[s, u] += k[p, q] / size
            return new

        self.k = {ij: w**2 * average(k) + b**2 for ij, k in self.k.items()}
        self.t = {ij: w**2 * average(t) + self.k[ij] for ij, t in self.t.items()}

    def relu(self):
        old = self.k
        self.k, self.t = {}, dict(self.t)
        for i, j in old:
            shape = old[i, j].shape
            pairs = [
                [
                    relu_dual(old[i, i][s, s], old[j, j][u, u], old[i, j][s, u])
                    for u in range(shape[1])
                ]
                for s in range(shape[0])
            ]
            values = np.asarray(pairs)
            self.k[i, j] = values[..., 0]
            self.t[i, j] = self.t[i, j] * values[..., 1]

    def read(self, reduce):
        n = len(self.points)
        return tuple(
            np.array([[reduce(part[i, j]) for j in range(n)] for i in range(n)])
            for part in (self.k, self.t)
        )


def reduced(end, k):
    return np.mean(k) if end == "pool" else np.mean(np.diag(k))


@functools.cache
def signals():
    return jax.random.normal(jax.random.key(0), (3, 2, 6))


@pytest.mark.parametrize(
    ("size", "stride", "padding", "end"),
    [
        (3, 1, "same", "pool"),
        (2, 2, "valid", "flatten"),
        pytest.param(3, 1, "same", "flatten", marks=SLOW),
        pytest.param(2, 2, "valid", "pool", marks=SLOW),
        pytest.param(3, 2, "same", "pool", marks=SLOW),
        pytest.param(3, 2, "same", "flatten", marks=SLOW),
        pytest.param(3, 1, "circular", "pool", marks=SLOW),
        pytest.param(3, 1, "circular", "flatten", marks=SLOW),
    ],
)
def test_convolutions_follow_the_recursion_written_out_entry_by_entry(size, stride, padding, end):
    reference = PatchRecursion(signals())
    reference.conv(size, 1.3, 0.2, stride, padding)
    reference.relu()
    reference.conv(2, 1.1, 0.1, 1, "same")
    reference.relu()
    expected = reference.read(functools.partial(reduced, end))
    network = ntk.serial(
        ntk.conv1d(size, 1.3, 0.2, strides=stride, padding=padding),
        ntk.activation("relu"),
        ntk.conv1d(2, 1.1, 0.1),
        ntk.activation("relu"),
        ntk.global_average_pool() if end == "pool" else ntk.flatten(),
    )
    x = signals()
    np.testing.assert_allclose(kernels(network, x), expected, atol=1e-8)
    if padding == "same":
        cross = kernels(network, x[:2], x)
        np.testing.assert_allclose(cross, np.asarray(expected)[:, :2], atol=1e-7)


@pytest.mark.parametrize("end", [ntk.global_average_pool, pytest.param(ntk.flatten, marks=SLOW)])
def test_a_two_dimensional_convolution_along_one_axis_is_the_one_dimensional_one(end):
    def network(first, second):
        return ntk.serial(first, ntk.activation("relu"), second, end(), ntk.dense())

    line = kernels(network(ntk.conv1d(3, 1.2), ntk.conv1d(2, strides=2)), signals())
    for axis in (2, 3):
        size, half = ((1, 3), (1, 2)) if axis == 2 else ((3, 1), (2, 1))
        net = network(ntk.conv2d(size, 1.2), ntk.conv2d(half, strides=half))
        plane = kernels(net, jnp.expand_dims(signals(), axis))
        np.testing.assert_allclose(plane, line, atol=1e-8)


def test_a_square_filter_averages_over_its_patch():
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 4))
    network = ntk.serial(ntk.conv2d(3, 1.5, 0.0, padding="valid"), ntk.flatten())
    nngp, tangent = kernels(network, x)
    corners = [(i, j) for i in range(2) for j in range(2)]
    patches = [x[:, :, i : i + 3, j : j + 3].reshape(2, -1) for i, j in corners]
    expected = 1.5**2 * np.mean([p @ p.T for p in patches], axis=0) / 27
    np.testing.assert_allclose(nngp, expected, rtol=1e-12)
    np.testing.assert_allclose(tangent, expected, rtol=1e-12)


def test_dense_layers_on_features_are_a_perceptron():
    layers = [ntk.dense(1.2, 0.3), ntk.activation("erf"), ntk.dense(1.2, 0.3)]
    np.testing.assert_allclose(
        kernels(ntk.serial(*layers), X),
        ntk.mlp_kernels(X, None, 2, "erf", 1.2, 0.3),
        rtol=1e-14,
    )


def test_a_residual_block_adds_the_kernels_of_its_branches():
    stem = ntk.dense(1.2, 0.1)
    branch = ntk.serial(ntk.activation("relu"), ntk.dense(0.7, 0.2))
    k, t = kernels(ntk.serial(stem, ntk.parallel_sum(ntk.identity(), branch)), X)
    k0, t0 = kernels(stem, X)
    k1, t1 = kernels(ntk.serial(stem, branch), X)
    np.testing.assert_allclose(k, k0 + k1, rtol=1e-14)
    np.testing.assert_allclose(t, t0 + t1, rtol=1e-14)


def test_layer_norm_makes_every_variance_one_and_removes_the_scale_of_the_input():
    network = ntk.serial(ntk.dense(1.7, 0.0), ntk.layer_norm(), ntk.activation("erf"), ntk.dense())
    scale = jnp.asarray([[1.0], [0.1], [30.0]])
    k, t = kernels(network, X)
    scaled_k, scaled_t = kernels(network, scale * X)
    np.testing.assert_allclose(scaled_k, k, rtol=1e-12)
    np.testing.assert_allclose(scaled_t, t, rtol=1e-12)
    normed, tangent = kernels(ntk.serial(ntk.dense(1.7, 0.3), ntk.layer_norm()), X)
    np.testing.assert_allclose(jnp.diag(normed), 1, rtol=1e-15)
    np.testing.assert_allclose(tangent, normed, rtol=1e-14)


def test_layer_norm_over_channels_normalises_every_position():
    network = ntk.serial(ntk.conv1d(3), ntk.layer_norm(), ntk.flatten())
    np.testing.assert_allclose(jnp.diag(kernels(network, signals()).nngp), 1, rtol=1e-14)
    pooled = ntk.serial(ntk.conv1d(3), ntk.layer_norm(), ntk.global_average_pool())
    assert jnp.all(jnp.diag(kernels(pooled, signals()).nngp) < 1)


@SLOW
def test_scales_and_inputs_are_differentiable_through_a_convolutional_network():
    def total(x, w_std, b_std):
        network = ntk.serial(
            ntk.conv1d(3, w_std, b_std),
            ntk.activation("relu"),
            ntk.global_average_pool(),
            ntk.dense(w_std, b_std),
        )
        return kernels(network, x).ntk.sum()

    x = signals()
    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(x, 1.3, 0.2)
    h = 1e-5
    np.testing.assert_allclose(
        gradients[1], (total(x, 1.3 + h, 0.2) - total(x, 1.3 - h, 0.2)) / (2 * h), rtol=1e-7
    )
    assert jnp.all(jnp.isfinite(gradients[0]))


@pytest.mark.slow
def test_wide_convolutional_networks_approach_their_limit():
    width, x = 400, signals()
    network = ntk.serial(
        ntk.conv1d(3, 1.4, 0.3),
        ntk.activation("relu"),
        ntk.conv1d(3, 1.4, 0.3),
        ntk.activation("relu"),
        ntk.global_average_pool(),
        ntk.dense(1.0, 0.0),
    )
    expected = kernels(network, x).ntk

    def init(key):
        k = jax.random.split(key, 5)
        normal = jax.random.normal
        return {
            "w1": normal(k[0], (width, 2, 3)),
            "b1": normal(k[1], (width, 1)),
            "w2": normal(k[2], (width, width, 3)),
            "b2": normal(k[3], (width, 1)),
            "w3": normal(k[4], (1, width)),
        }

    def apply(p, x):
        for w, b in ((p["w1"], p["b1"]), (p["w2"], p["b2"])):
            scale = 1.4 / np.sqrt(w.shape[1] * 3)
            conv = jax.lax.conv_general_dilated(x[None], w, (1,), "SAME")[0]
            x = jax.nn.relu(scale * conv + 0.3 * b)
        return p["w3"] @ x.mean(1) / np.sqrt(width)

    kernel = jax.jit(lambda key: ntk.empirical_ntk(apply, init(key), x, outputs="trace"))
    mean = np.mean([kernel(k) for k in jax.random.split(jax.random.key(1), 20)], axis=0)
    np.testing.assert_allclose(mean, expected, rtol=0.04)


@pytest.mark.bad_input
def test_networks_that_have_no_closed_form_are_refused():
    dense, relu, branch = ntk.dense(), ntk.activation("relu"), ntk.parallel_sum
    x = signals()
    for network, points, message in (
        (relu, X, "needs Gaussian features"),
        (ntk.serial(dense, relu, ntk.layer_norm()), X, "`layer_norm` has a closed form"),
        (branch(ntk.identity(), ntk.identity()), X, "at most one may have no weights"),
        (
            ntk.serial(dense, branch(relu, ntk.serial(dense, relu))),
            X,
            "at most one may end without",
        ),
        (dense, x, "`dense` needs features without positions"),
        (ntk.conv1d(), X, r"`conv1d` needs inputs of shape"),
        (ntk.conv1d(), x, "ends in 1 axes of positions"),
        (ntk.conv1d(9, padding="valid"), x, "`size`"),
    ):
        with pytest.raises(ValueError, match=message):
            ntk.kernels(network, points)


@pytest.mark.bad_input
def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="`padding` must be one of 'same'"):
        ntk.conv1d(padding="SAME")
    with pytest.raises(ValueError, match="`size` must be 2 positive integers"):
        ntk.conv2d((3,))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`strides` must be 1 positive integers"):
        ntk.conv1d(strides=0)
    with pytest.raises(ValueError, match="`w_std` must be at least zero"):
        ntk.conv1d(3, -1.0)
    with pytest.raises(ValueError, match="at least one branch"):
        ntk.parallel_sum()
