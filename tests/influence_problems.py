"""Two small models for the tests of influence functions: a network and a sequence model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxsci.curvature import fit_kronecker
from jaxsci.curvature.influence import exact_ggn


def network(params, x):
    hidden = jnp.tanh(params["w1"] @ x + params["b1"])
    return params["w2"] @ hidden + params["b2"]


def network_loss(params, example):
    x, label = example
    return -jax.nn.log_softmax(network(params, x))[label]


@functools.cache
def network_problem(dtype=jnp.float64):
    """Parameters, 12 training examples and 4 queries."""
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "w1": jax.random.normal(keys[0], (5, 3), dtype),
        "b1": jnp.zeros(5, dtype),
        "w2": jax.random.normal(keys[1], (4, 5), dtype),
        "b2": jnp.zeros(4, dtype),
        "absent": None,
    }
    x = jax.random.normal(keys[2], (16, 3), dtype)
    labels = jax.random.randint(keys[3], (16,), 0, 4)
    return params, (x[:12], labels[:12]), (x[12:], labels[12:])


@functools.cache
def network_gradients():
    """Gradients of the queries and of the training examples, in rows."""
    params, train, queries = network_problem()
    gradients = jax.jit(jax.vmap(jax.grad(network_loss), in_axes=(None, 0)))
    rows = lambda tree: np.asarray(jax.vmap(lambda g: ravel_pytree(g)[0])(tree))
    return rows(gradients(params, queries)), rows(gradients(params, train))


def network_ggn(damping):
    params, train, _ = network_problem()
    return exact_ggn(network, "softmax", params, train, damping)


@functools.cache
def network_matrix():
    """The Gauss-Newton matrix without damping, of the Jacobians and the formula for softmax."""
    params, (x, _), _ = network_problem()
    flat, unravel = ravel_pytree(params)
    f = lambda p, xi: network(unravel(p), xi)
    both = jax.jit(jax.vmap(lambda xi: (jax.jacrev(f)(flat, xi), jax.nn.softmax(f(flat, xi)))))
    terms = [j.T @ (np.diag(p) - np.outer(p, p)) @ j for j, p in zip(*map(np.asarray, both(x)))]
    return np.mean(terms, axis=0)


@functools.cache
def network_curvature():
    params, train, _ = network_problem()
    return fit_kronecker(network, "softmax", params, train)


def sequence_model(params, tokens):
    """Embedding, norm scale, two token-wise layers, and one layer after pooling."""
    x = params["embedding"][tokens]
    x = params["scale"] * x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True))
    x = jnp.tanh(x @ params["in"] + params["bias"])
    return jnp.mean(x @ params["out"], axis=0) @ params["head"]


def sequence_loss(params, example):
    tokens, label = example
    return -jax.nn.log_softmax(sequence_model(params, tokens))[label]


@functools.cache
def sequence_problem():
    """Parameters, 6 training sequences of length 7, and 3 queries."""
    keys = jax.random.split(jax.random.key(1), 7)
    shapes = {"embedding": (9, 4), "in": (4, 5), "out": (5, 4), "head": (4, 3)}
    params = {
        name: jax.random.normal(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=False)
    }
    params |= {"scale": jnp.linspace(0.5, 1.5, 4), "bias": jnp.linspace(-1.0, 1.0, 5)}
    tokens = jax.random.randint(keys[5], (9, 7), 0, 9)
    labels = jax.random.randint(keys[6], (9,), 0, 3)
    return params, (tokens[:6], labels[:6]), (tokens[6:], labels[6:])


@functools.cache
def sequence_curvature():
    params, train, _ = sequence_problem()
    return fit_kronecker(sequence_model, "softmax", params, train)
