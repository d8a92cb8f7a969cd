"""Networks of Flax Linen, Flax NNX and Equinox: nothing of theirs is known to the capture."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxsci.curvature import capture_layers
from jaxsci.interop import equinox_function, linen_function, nnx_function

IMAGE = jax.random.normal(jax.random.key(0), (6, 6, 2))
WORDS = jnp.array([3, 1, 4, 1])


class LinenCNN(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3), padding="SAME", param_dtype=float)(x))
        x = linen.relu(linen.Conv(4, (2, 2), strides=2, padding=0, param_dtype=float)(x))
        return linen.Dense(3, param_dtype=float)(x.reshape(-1))


class LinenTransformer(linen.Module):
    @linen.compact
    def __call__(self, words):
        x = linen.Embed(7, 8, param_dtype=float)(words)
        y = linen.LayerNorm(param_dtype=float)(x)
        x = x + linen.MultiHeadDotProductAttention(2, param_dtype=float)(y)
        y = linen.LayerNorm(param_dtype=float)(x)
        y = linen.gelu(linen.Dense(16, param_dtype=float)(y))
        x = x + linen.Dense(8, param_dtype=float)(y)
        return linen.Dense(7, use_bias=False, param_dtype=float)(x)


class NNXCNN(nnx.Module):
    def __init__(self, rngs):
        options = {"rngs": rngs, "param_dtype": jnp.float64}
        self.conv1 = nnx.Conv(2, 4, (3, 3), padding="SAME", **options)
        self.conv2 = nnx.Conv(4, 4, (2, 2), strides=2, padding=0, **options)
        self.dense = nnx.Linear(36, 3, **options)

    def __call__(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        return self.dense(x.reshape(-1))


class EquinoxCNN(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    dense: eqx.nn.Linear

    def __init__(self, key):
        self.conv1 = eqx.nn.Conv2d(2, 4, 3, padding="SAME", key=key)
        self.conv2 = eqx.nn.Conv2d(4, 4, 2, stride=2, key=key)
        self.dense = eqx.nn.Linear(36, 3, key=key)

    def __call__(self, x):
        x = jnp.moveaxis(x, -1, 0)
        x = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))
        return self.dense(jnp.moveaxis(x, 0, -1).reshape(-1))


@functools.cache
def networks():
    """The function and parameters of each network; the three CNNs with the same weights."""
    cnn, transformer = LinenCNN(), LinenTransformer()
    linen_cnn, params = linen_function(cnn, cnn.init(jax.random.key(0), IMAGE))
    names = {"Conv_0": "conv1", "Conv_1": "conv2", "Dense_0": "dense"}
    nnx_cnn, _ = nnx_function(NNXCNN(nnx.Rngs(0)))
    nnx_params = {new: params[old] for old, new in names.items()}
    equinox_cnn, equinox_params = equinox_function(EquinoxCNN(jax.random.key(0)))
    weights = [
        params["Conv_0"]["kernel"].transpose(3, 2, 0, 1),
        params["Conv_1"]["kernel"].transpose(3, 2, 0, 1),
        params["Dense_0"]["kernel"].T,
        *(params[name]["bias"].reshape(-1, 1, 1) for name in ("Conv_0", "Conv_1")),
        params["Dense_0"]["bias"],
    ]
    equinox_params = eqx.tree_at(
        lambda m: [
            *(getattr(m, name).weight for name in names.values()),
            *(getattr(m, name).bias for name in names.values()),
        ],
        equinox_params,
        weights,
    )
    return {
        "Linen": (linen_cnn, params, IMAGE),
        "NNX": (nnx_cnn, nnx_params, IMAGE),
        "Equinox": (equinox_cnn, equinox_params, IMAGE),
        "transformer": (
            *linen_function(transformer, transformer.init(jax.random.key(1), WORDS)),
            WORDS,
        ),
    }


@functools.cache
def results():
    """Grams, rebuilt and true gradients of every network."""

    def of_network(fn, params, x):
        sites = capture_layers(fn, params, x)
        outputs, inputs, pullback = sites.vjp(params, x)
        deltas, rest = pullback(outputs)
        grams = [
            (block.input_gram(a), block.output_gram(d))
            for block, a, d in zip(sites.blocks, inputs, deltas)
        ]
        rebuilt = sites.from_matrices(sites.gradients(inputs, deltas), rest)
        return grams, rebuilt, jax.grad(lambda p: jnp.sum(fn(p, x) ** 2) / 2)(params)

    functions = {name: fn for name, (fn, _, _) in networks().items()}
    arguments = {name: (params, x) for name, (_, params, x) in networks().items()}

    def run(arguments):
        return {name: of_network(functions[name], *args) for name, args in arguments.items()}

    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(arguments)


@pytest.mark.parametrize("network", ["Linen", "NNX", "Equinox", "transformer"])
def test_gradients_are_rebuilt(network):
    _, rebuilt, reference = results()[network]
    # The bias of the keys has no gradient but for rounding: softmax does not see it.
    scale = max(float(jnp.max(jnp.abs(b))) for b in jax.tree.leaves(reference))
    for a, b in zip(jax.tree.leaves(rebuilt), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("other", ["NNX", "Equinox"])
def test_the_same_network_has_the_same_grams_in_every_framework(other):
    # Kernels are (height, width, channels) in Flax, (channels, height, width) in Equinox.
    order = {9 * 2: (3, 3, 2), 4 * 4: (2, 2, 4)}
    for ours, theirs in zip(results()["Linen"][0], results()[other][0], strict=True):
        (a, d), (b, e) = ours, theirs
        size = a.shape[-1] - 1
        if other == "Equinox" and size in order:
            kernel = np.arange(size).reshape(order[size]).transpose(2, 0, 1)
            index = np.append(kernel.ravel(), size)
            a = a[:, index][:, :, index]
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(d, e, rtol=1e-12, atol=1e-12)


def test_every_matrix_of_a_transformer_is_found_with_its_bias():
    sites = capture_layers(*networks()["transformer"])
    assert [(b.kind, b.in_features, b.out_features, b.positions) for b in sites.blocks] == [
        ("dense", 8, 16, (4,)),
        ("dense", 16, 8, (4,)),
        ("dense", 8, 7, (4,)),
        ("embedding", 7, 8, (4,)),
        *[("dense", 8, 8, (4,))] * 4,
    ]
    assert [b.has_bias for b in sites.blocks] == [True, True, False, False] + [True] * 4
    assert all("LayerNorm" in path for path in sites.uncaptured)
    assert len(sites.uncaptured) == 4
