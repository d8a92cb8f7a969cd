"""Rademacher probes, and averages of a probed quantity.

A probe v has independent entries +1 and -1, so E[v v^T] = I: what makes `v * (H v)` an unbiased
estimate of diag(H) and `v . (A v)` one of tr(A).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Key, PyTree

from jaxsci._base import at_least_float32

_WORD = 32


def _signs(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    # One random word serves up to 32 neighbours: the generator, not the arithmetic, is what a probe
    # costs. They lie along the axis that words divide best, so that no entry is cut off: a slice
    # would move data between the devices of a sharded leaf.
    full = shape or (1,)
    axis = max(range(len(full)), key=lambda a: (math.gcd(full[a], _WORD), a))
    width = math.gcd(full[axis], _WORD)
    before, after = full[:axis], full[axis + 1 :]
    words = jax.random.bits(key, (*before, full[axis] // width, *after), jnp.uint32)
    shifts = jnp.arange(width, dtype=jnp.uint32).reshape(width, *(1 for _ in after))
    bits = (jnp.expand_dims(words, axis + 1) >> shifts) & 1
    return 2 * bits.reshape(shape).astype(dtype) - 1


def rademacher_like(key: Key[Array, ""], tree: PyTree) -> PyTree:
    """A probe: independent signs +1 and -1 with the structure, shapes and dtypes of `tree`.

    The values depend on `key` and the shapes only, not on how `tree` is laid out over devices.

    **Arguments:**

    - `key`: a typed key.
    - `tree`: pytree of real floating arrays.

    **Returns:**

    A pytree like `tree`, sharded like `tree`.

    **Raises:**

    `TypeError` if a leaf is not a real floating array, naming its path.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                "Curvature is defined for real floating arrays; leaf "
                f"{jax.tree_util.keystr(path)} has dtype {jnp.result_type(leaf)}."
            )
    # Multiplied by ones of the leaf: the one way to take over its sharding under every mesh.
    probes = [
        _signs(jax.random.fold_in(key, i), jnp.shape(x), jnp.result_type(x)) * jnp.ones_like(x)
        for i, (_, x) in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, probes)


def average_over_probes(
    sample: Callable[[Key[Array, ""]], PyTree], like: PyTree, key: Key[Array, ""], num_samples: int
) -> PyTree:
    """The mean of `sample(k)` over the keys `jax.random.split(key, num_samples)`, one at a time.

    `sample` returns the structure and shapes of `like`, in `at_least_float32`.
    """
    keys = jax.random.split(key, num_samples)
    if num_samples == 1:
        return sample(keys[0])
    zero = jax.tree.map(lambda x: jnp.zeros_like(x, dtype=at_least_float32(x)), like)
    total, _ = jax.lax.scan(
        lambda acc, k: (jax.tree.map(jnp.add, acc, sample(k)), None), zero, keys
    )
    return jax.tree.map(lambda x: x / num_samples, total)
