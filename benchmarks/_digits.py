"""scikit-learn's digits, and the small tanh network that the benchmarks train on them."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits


def digits(num_train, num_test=None):
    """Pixels / 16 in float64 and labels, in a fixed random order: `(train, test)`.

    The test digits are the `num_test` that follow the training digits, by default all.
    """
    data: Any = load_digits()
    order = np.random.RandomState(0).permutation(len(data.target))
    x, y = data.data[order] / 16, np.asarray(data.target[order])
    test = slice(num_train, None if num_test is None else num_train + num_test)
    return (x[:num_train], y[:num_train]), (x[test], y[test])


def init_mlp(key, sizes):
    """LeCun normal weights and zero biases, float32."""
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = itertools.pairwise(sizes)
    return [
        {"w": jax.random.normal(k, s, jnp.float32) / s[0] ** 0.5, "b": jnp.zeros(s[1], jnp.float32)}
        for k, s in zip(keys, shapes, strict=True)
    ]


def tanh_mlp(params, x):
    """The logits."""
    *hidden, last = params
    for layer in hidden:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]
