"""Dense Fisher matrices from Jacobians, and small models, for the tests of Kronecker factors."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree


def output_hessian(loss, outputs):
    """The Hessian of the loss in the outputs, by the closed form of each likelihood."""
    outputs = np.asarray(outputs)
    if loss == "mse":
        return np.eye(outputs.size)
    if loss == "bernoulli":
        p = 1 / (1 + np.exp(-outputs.ravel()))
        return np.diag(p * (1 - p))
    out = np.zeros((outputs.size, outputs.size))
    classes = outputs.shape[-1]
    for t, logits in enumerate(outputs.reshape(-1, classes)):
        p = np.exp(logits - logits.max())
        p = p / p.sum()
        part = slice(t * classes, (t + 1) * classes)
        out[part, part] = np.diag(p) - np.outer(p, p)
    return out


def dense_fisher(model_fn, loss, params, inputs):
    """The mean over examples of J^T H J in the raveled parameters, and the shape of their order."""
    flat, unravel = ravel_pytree(params)
    outputs = lambda x: lambda v: jnp.ravel(model_fn(unravel(v), x))

    @jax.jit
    def parts(inputs):
        return jax.vmap(lambda x: (jax.jacrev(outputs(x))(flat), model_fn(params, x)))(inputs)

    jacobians, values = map(np.asarray, parts(inputs))
    total = sum(j.T @ output_hessian(loss, f) @ j for j, f in zip(jacobians, values, strict=True))
    return total / len(values)


def in_matrix_order(layers, params, fisher):
    """The blocks of a dense matrix, in the order of each captured matrix raveled."""
    flat, unravel = ravel_pytree(params)
    places = unravel(jnp.arange(flat.size, dtype=flat.dtype))
    matrices, _ = layers.to_matrices(places)
    blocks = []
    for matrix in matrices:
        for layer in np.asarray(matrix).astype(int):
            index = layer.ravel()
            blocks.append(fisher[np.ix_(index, index)])
    return blocks


def dense_operator(fn, params):
    """The matrix of a linear function on trees like the parameters."""
    flat, unravel = ravel_pytree(params)
    column = lambda e: ravel_pytree(fn(unravel(e)))[0]
    return np.asarray(jax.jit(jax.vmap(column))(jnp.eye(flat.size))).T


def mlp(p, x):
    h = jnp.tanh(x @ p["w"] + p["b"])
    return (p["v"] @ h + p["c"]) * p["scale"]


def mlp_params(rng, sizes=(3, 4, 3), dtype=None):
    i, h, o = sizes
    tree = {
        "w": rng.normal(size=(i, h)) / np.sqrt(i),
        "b": 0.1 * rng.normal(size=h),
        "v": rng.normal(size=(o, h)) / np.sqrt(h),
        "c": 0.1 * rng.normal(size=o),
        "scale": 1 + 0.1 * rng.normal(size=o),
    }
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
