"""Functions whose layers are known: (function, parameters, arguments, blocks, paths left out).

A block is written (path, bias path, kind, stack, in, out, positions).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jaxsci.interop import equinox_function


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


X = normal(0, 5, 3)
DENSE = {"w": normal(1, 3, 4), "b": normal(2, 4)}
LAYERS = {"w": normal(3, 6, 4, 4) / 2, "b": normal(4, 6, 4)}
TOKENS = jnp.array([1, 2, 2, 0, 5])


def affine(p, x):
    return x @ p["w"] + p["b"]


def on_the_left(p, x):
    return p["w"].T @ x + p["b"]


def vmapped_on_the_left(p, x):
    return jax.vmap(lambda x: on_the_left(p, x))(x)


def heads(p, x):
    return jnp.einsum("td,dhk->htk", x, p["w"]) + p["b"][:, None]


def reshaped_bias(p, x):
    y = x @ p["w"].reshape(3, 4)
    return jnp.swapaxes(y.reshape(5, 2, 2), 0, 1) + jnp.transpose(p["b"])[:, None]


def scanned_layers(p, x):
    step = lambda x, layer: (jnp.tanh(x @ layer["w"] + layer["b"]), None)
    return lax.scan(step, x, p)[0]


def rematerialised_layers(p, x):
    step = lambda x, layer: (jnp.tanh(x @ layer["w"] + layer["b"]), None)
    policy = jax.checkpoint_policies.nothing_saveable
    return lax.scan(jax.checkpoint(step, policy=policy), x, p, reverse=True)[0]


def unrolled_layers(p, x):
    for i in range(6):
        x = jnp.tanh(x @ p["w"][i] + p["b"][i])
    return x


def nested_scans(p, xs):
    def layer(h, w):
        return lax.scan(lambda h, x: (jnp.tanh(h @ w + x), h), h, xs)[0], None

    return lax.scan(layer, xs[0], p["w"])[0]


def scanned_with_weights_in_the_carry(p, x):
    step = lambda carry, _: ((jnp.tanh(carry[0] @ carry[1]), carry[1]), None)
    return lax.scan(step, (x, p["w"][0]), None, length=3)[0][0]


def packed_projections(p, x):
    q, k, v = (x @ w + b for w, b in zip(jnp.split(p["w"], 3, 1), jnp.split(p["b"], 3)))
    return jax.nn.softmax(q @ k.T) @ v


def split_projections(p, x):
    q, k, v = jnp.split(x @ p["w"] + p["b"], 3, axis=1)
    return jax.nn.softmax(q @ k.T) @ v


def matrix_for_each_channel(p, x):
    return jnp.einsum("ix,iox->ox", x, p["w"]) + p["b"][:, None]


def ensemble(p, x):
    return jax.vmap(affine, in_axes=(0, 0))(p, x)


def embedding(p, tokens):
    return jnp.tanh(jnp.take(p["e"], tokens, axis=0)).sum(0) + p["e"][tokens[0]]


def vmapped_embedding(p, tokens):
    return jnp.tanh(jax.vmap(lambda token: p["e"][token])(tokens))


def one_hot_embedding(p, tokens):
    return jnp.tanh(jax.nn.one_hot(tokens, 7) @ p["e"]).sum(0)


def tied_embedding(p, tokens):
    return jnp.tanh(p["e"][tokens] @ p["w"]) @ p["e"].T


def shared_weight(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["w"]


def second_derivatives(p, x):
    u = lambda x: jnp.sum(jnp.tanh(jnp.tanh(x @ p["w1"] + p["b"]) @ p["w2"]))
    return jax.hessian(u)(x)


def tied_autoencoder(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["w"].T + p["c"]


def jitted_inside(p, x):
    dense = jax.jit(lambda w, b, x: jax.nn.relu(x @ w + b))
    return dense(p["w"], p["b"], x) + dense(p["w"], p["b"], 2 * x)


def residual_before_bias(p, x):
    return x + x @ p["w"] + p["b"]


def two_terms_and_a_bias(p, x):
    return jnp.tanh(x @ p["w"] + x**2 @ p["u"] + p["b"])


def normalised(p, x):
    y = (x - x.mean()) / x.std() * p["scale"] + p["shift"]
    return y @ p["w"]


def scalars(p, x):
    return p["a"] * jnp.tanh(p["w"] @ x[0] + p["b"]) + jnp.dot(p["u"], x[0, :1])


def demoted(p, x):
    return x @ p["w"] + p["b"] + jnp.sum(p["w"] ** 2)


def stopped(p, x):
    return x @ p["w"] + p["b"] + jnp.sum(lax.stop_gradient(p["w"]) ** 2)


def branches(p, x):
    y = lax.cond(x[0, 0] > 0, lambda w: x @ w, lambda w: -x @ w, p["w"])
    return jnp.tanh(y) @ p["u"]


@jax.custom_jvp
def doubled_inside(x, w):
    return x @ w


@doubled_inside.defjvp
def _(primals, tangents):
    (x, w), (dx, dw) = primals, tangents
    return x @ w, dx @ w + x @ dw


def custom_rule(p, x):
    return doubled_inside(x, p["w"]) + p["b"]


@jax.custom_vjp
def straight_through(w):
    return jnp.round(w)


straight_through.defvjp(lambda w: (jnp.round(w), None), lambda _, ct: (ct,))


def quantised(p, x):
    return x @ straight_through(p["w"]) + p["b"]


def conv(p, x):
    return lax.conv_general_dilated(x[None], p["w"], (2, 1), [(1, 2), (0, 1)], (1, 1), (1, 2))[0]


def conv_then_bias(p, x):
    return jax.nn.relu(conv(p, x) + p["b"][:, None, None])


def channels_last_conv(p, x):
    y = lax.conv_general_dilated(
        x, p["w"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=2
    )
    return y + p["b"]


def transposed_conv(p, x):
    return lax.conv_transpose(x, p["w"], (2,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))


class Network(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    linear: eqx.nn.Linear

    def __init__(self, key):
        k = jax.random.split(key, 3)
        self.conv1 = eqx.nn.Conv2d(2, 4, 3, stride=2, padding=1, key=k[0])
        self.conv2 = eqx.nn.Conv2d(4, 6, (3, 2), dilation=2, groups=2, key=k[1])
        self.norm = eqx.nn.GroupNorm(2, 6)
        self.linear = eqx.nn.Linear(18, 3, key=k[2])

    def __call__(self, x):
        x = jax.nn.gelu(self.norm(self.conv2(jax.nn.relu(self.conv1(x)))))
        return self.linear(x.ravel())


network, network_params = equinox_function(Network(jax.random.key(0)))
cell, cell_params = equinox_function(eqx.nn.GRUCell(3, 4, key=jax.random.key(1)))
mlp, mlp_params = equinox_function(eqx.nn.MLP(3, 2, 8, 2, key=jax.random.key(2)))
attention, attention_params = equinox_function(
    eqx.nn.MultiheadAttention(2, 6, use_query_bias=True, key=jax.random.key(3))
)


def gru_over_time(p, xs):
    return lax.scan(lambda h, x: (cell(p, x, h), h), jnp.zeros(4), xs)


def mlp_on_points(p, xs):
    return jax.vmap(lambda x: mlp(p, x))(xs)


def self_attention(p, x):
    return attention(p, x, x, x)


def _dense(stack, n_in, n_out, *positions, w="['w']", b="['b']"):
    return (w, b, "dense", stack, n_in, n_out, positions)


PACKED = {"w": normal(5, 6, 18), "b": normal(6, 18)}
TABLE = {"e": normal(7, 7, 4), "w": normal(8, 4, 4)}
IMAGE = normal(9, 2, 8, 6)
SQUARE = {"w": normal(10, 3, 3), "b": normal(11, 3)}

CASES = {
    "x @ w": (affine, DENSE, (X,), [_dense(1, 3, 4, 5)], []),
    "w @ x": (on_the_left, DENSE, (X[0],), [_dense(1, 3, 4, 1)], []),
    "vmapped w @ x": (vmapped_on_the_left, DENSE, (X,), [_dense(1, 3, 4, 5)], []),
    "einsum heads": (
        heads,
        {"w": normal(1, 3, 2, 4), "b": normal(2, 2, 4)},
        (X,),
        [_dense(1, 3, 8, 5)],
        [],
    ),
    "reshaped bias": (
        reshaped_bias,
        {"w": normal(1, 12), "b": normal(2, 2, 2)},
        (X,),
        [_dense(1, 3, 4, 5)],
        [],
    ),
    "scan over layers": (scanned_layers, LAYERS, (normal(0, 5, 4),), [_dense(6, 4, 4, 5)], []),
    "checkpointed scan": (
        rematerialised_layers,
        LAYERS,
        (normal(0, 5, 4),),
        [_dense(6, 4, 4, 5)],
        [],
    ),
    "unrolled layers": (unrolled_layers, LAYERS, (normal(0, 5, 4),), [_dense(6, 4, 4, 5)], []),
    "scan in scan": (
        nested_scans,
        {"w": LAYERS["w"]},
        (normal(0, 3, 5, 4),),
        [_dense(6, 4, 4, 15, b=None)],
        [],
    ),
    "weights in the carry": (
        scanned_with_weights_in_the_carry,
        {"w": LAYERS["w"][:1]},
        (normal(0, 5, 4),),
        [_dense(1, 4, 4, 15, b=None)],
        [],
    ),
    "GRU over time": (
        gru_over_time,
        cell_params,
        (normal(0, 7, 3),),
        [
            _dense(1, 3, 12, 7, w=".weight_ih", b=".bias"),
            _dense(1, 4, 12, 7, w=".weight_hh", b=None),
        ],
        [".bias_n"],
    ),
    "packed projections": (
        packed_projections,
        PACKED,
        (normal(0, 5, 6),),
        [_dense(3, 6, 6, 5)],
        [],
    ),
    "split projections": (split_projections, PACKED, (normal(0, 5, 6),), [_dense(1, 6, 18, 5)], []),
    "matrix for each channel": (
        matrix_for_each_channel,
        {"w": normal(1, 2, 3, 8), "b": normal(2, 3)},
        (normal(0, 2, 8),),
        [_dense(8, 2, 3, 1, b=None)],
        ["['b']"],
    ),
    "ensemble": (
        ensemble,
        {"w": normal(1, 4, 3, 2), "b": normal(2, 4, 2)},
        (normal(0, 4, 5, 3),),
        [_dense(4, 3, 2, 5)],
        [],
    ),
    "embedding": (
        embedding,
        {"e": TABLE["e"]},
        (TOKENS,),
        [("['e']", None, "embedding", 1, 7, 4, (5, 1))],
        [],
    ),
    "vmapped embedding": (
        vmapped_embedding,
        {"e": TABLE["e"]},
        (TOKENS,),
        [("['e']", None, "embedding", 1, 7, 4, (5,))],
        [],
    ),
    "one-hot embedding": (
        one_hot_embedding,
        {"e": TABLE["e"]},
        (TOKENS,),
        [_dense(1, 7, 4, 5, w="['e']", b=None)],
        [],
    ),
    "tied embedding": (
        tied_embedding,
        TABLE,
        (TOKENS,),
        [("['e']", None, "embedding", 1, 7, 4, (5, 7)), _dense(1, 4, 4, 5, b=None)],
        [],
    ),
    "shared weight": (shared_weight, SQUARE, (X,), [_dense(1, 3, 3, 5, 5)], []),
    "tied autoencoder": (
        tied_autoencoder,
        {**DENSE, "c": normal(3, 3)},
        (X,),
        [_dense(1, 3, 4, 5, 3)],
        ["['c']"],
    ),
    "second derivatives": (
        second_derivatives,
        {"b": normal(2, 4), "w1": normal(1, 2, 4), "w2": normal(3, 4, 3)},
        (X[0, :2],),
        [
            ("['w1']", "['b']", "dense", 1, 2, 4, (1, 2, 2, 2)),
            ("['w2']", None, "dense", 1, 4, 3, (1, 2, 4, 4)),
        ],
        [],
    ),
    "jitted inside": (jitted_inside, DENSE, (X,), [_dense(1, 3, 4, 5, 5)], []),
    "residual before bias": (residual_before_bias, SQUARE, (X,), [_dense(1, 3, 3, 5)], []),
    "two terms and a bias": (
        two_terms_and_a_bias,
        {**DENSE, "u": normal(3, 3, 4)},
        (X,),
        [_dense(1, 3, 4, 5, w="['u']", b=None), _dense(1, 3, 4, 5)],
        [],
    ),
    "normalisation": (
        normalised,
        {"scale": normal(1, 3), "shift": normal(2, 3), "w": normal(3, 3, 4)},
        (X,),
        [_dense(1, 3, 4, 5, b=None)],
        ["['scale']", "['shift']"],
    ),
    "scalars": (
        scalars,
        {"a": normal(1), "b": normal(2), "u": normal(3, 1), "w": normal(4, 3)},
        (X,),
        [_dense(1, 1, 1, 1, w="['u']", b=None), _dense(1, 3, 1, 1)],
        ["['a']"],
    ),
    "second use": (demoted, DENSE, (X,), [], ["['b']", "['w']"]),
    "stopped second use": (stopped, DENSE, (X,), [_dense(1, 3, 4, 5)], []),
    "branches": (
        branches,
        {"w": normal(1, 3, 4), "u": normal(2, 4, 2)},
        (X,),
        [_dense(1, 4, 2, 5, w="['u']", b=None)],
        ["['w']"],
    ),
    "layer in a custom rule": (
        custom_rule,
        DENSE,
        (X,),
        [_dense(1, 3, 4, 5, b=None)],
        ["['b']"],
    ),
    "straight-through rounding": (quantised, DENSE, (X,), [], ["['b']", "['w']"]),
    "convolution": (
        conv_then_bias,
        {"w": normal(1, 4, 2, 3, 2), "b": normal(2, 4)},
        (IMAGE,),
        [("['w']", "['b']", "conv", 1, 12, 4, (25,))],
        [],
    ),
    "grouped convolution": (
        channels_last_conv,
        {"w": normal(1, 3, 2, 6), "b": normal(2, 6)},
        (normal(0, 2, 7, 4),),
        [("['w']", "['b']", "conv", 2, 6, 3, (14,))],
        [],
    ),
    "transposed convolution": (
        transposed_conv,
        {"w": normal(1, 3, 2, 4)},
        (normal(0, 1, 5, 2),),
        [("['w']", None, "conv", 1, 6, 4, (11,))],
        [],
    ),
    "Equinox CNN": (
        network,
        network_params,
        (normal(0, 2, 10, 10),),
        [
            (".conv1.weight", ".conv1.bias", "conv", 1, 18, 4, (25,)),
            (".conv2.weight", ".conv2.bias", "conv", 2, 12, 3, (3,)),
            _dense(1, 18, 3, 1, w=".linear.weight", b=".linear.bias"),
        ],
        [".norm.weight", ".norm.bias"],
    ),
    "Equinox MLP": (
        mlp_on_points,
        mlp_params,
        (X,),
        [
            _dense(1, n, m, 5, w=f".layers[{i}].weight", b=f".layers[{i}].bias")
            for i, (n, m) in enumerate([(3, 8), (8, 8), (8, 2)])
        ],
        [],
    ),
    "Equinox attention": (
        self_attention,
        attention_params,
        (normal(0, 5, 6),),
        [
            _dense(
                1,
                6,
                6,
                5,
                w=f".{name}_proj.weight",
                b=".query_proj.bias" if name == "query" else None,
            )
            for name in ("query", "key", "value", "output")
        ],
        [],
    ),
}
