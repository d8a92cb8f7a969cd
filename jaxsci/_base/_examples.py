"""Batches: pytrees of arrays with a leading axis over examples."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def example_structure(batch: PyTree) -> PyTree:
    """Shapes and dtypes of one example of `batch`."""

    def one(x):
        return jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x))

    return jax.tree.map(one, batch)


def strided_parts(batch: PyTree, count: int) -> PyTree:
    """Parts along a new leading axis; rows i, i + count, i + 2 count, ... form the i-th.

    `count` divides the number of examples; scalars go to every part. Strided rows leave each device
    of a sharded batch with its share of every part.
    """

    def one(x):
        x = jnp.asarray(x)
        if x.ndim == 0:
            return jnp.broadcast_to(x, (count,))
        return jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)

    return jax.tree.map(one, batch)
