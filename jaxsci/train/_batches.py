"""Minibatches as a pure function of the step, so that a resumed run sees the same data."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._base import check_at_least, is_concrete

_ROUNDS = 12


def _mix(x: Array) -> Array:
    """A well-mixing map of 32-bit words (the finaliser of MurmurHash3; Appleby, 2011)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def permuted(index: Int[Array, "*shape"], size: int, key: PRNGKeyArray) -> Int[Array, "*shape"]:
    """The places that a random permutation of `range(size)` sends `index` to.

    A Feistel network permutes the square of a power of two, and is applied again to whatever
    falls outside `range(size)` (Black & Rogaway, "Ciphers with arbitrary finite domains", 2002).
    It costs a few operations an index, where drawing the permutation costs a sort of the data set.

    **Arguments:**

    - `index`: integers in `range(size)`.
    - `size`: the length of the permutation, below 2^31.
    - `key`: chooses the permutation.
    """
    half_bits = max(1, -(-(size - 1).bit_length() // 2))
    mask = np.uint32((1 << half_bits) - 1)
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def encrypt(x):
        def one_round(i, halves):
            left, right = halves
            return right, left ^ (_mix(right ^ round_keys[i]) & mask)

        left, right = jax.lax.fori_loop(0, _ROUNDS, one_round, (x >> half_bits, x & mask))
        return (left << half_bits) | right

    def walk(x):
        return jnp.where(x < size, x, encrypt(x))

    start = encrypt(jnp.asarray(index).astype(jnp.uint32))
    found = jax.lax.while_loop(lambda x: jnp.any(x >= size), walk, start)
    return found.astype(jnp.int32)


@partial(jax.jit, static_argnums=(0, 1))
def _rows(size: int, batch_size: int, key: PRNGKeyArray | None, step: Any) -> Array:
    per_epoch = size // batch_size
    rows = (step % per_epoch) * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    if key is None:
        return rows
    return permuted(rows, size, jax.random.fold_in(key, step // per_epoch))


@partial(jax.jit, static_argnums=(0, 1))
def _batch(size: int, batch_size: int, data: PyTree, key: PRNGKeyArray | None, step: Any) -> PyTree:
    rows = _rows(size, batch_size, key, step)
    return jax.tree.map(lambda x: x[rows], data)


class _Minibatches(eqx.Module):
    data: PyTree
    key: PRNGKeyArray | None
    size: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    on_host: bool = eqx.field(static=True)

    def __call__(self, step, key=None) -> PyTree:
        del key
        if self.on_host and is_concrete(step):
            rows = np.asarray(_rows(self.size, self.batch_size, self.key, step))
            return jax.tree.map(lambda x: x[rows], self.data)
        return _batch(self.size, self.batch_size, self.data, self.key, step)


def minibatches(
    data: PyTree, batch_size: int, *, key: PRNGKeyArray | None = None
) -> Callable[..., PyTree]:
    """Batches of a data set, in an order drawn anew for every epoch.

    An epoch is `size // batch_size` steps; the rest of its permutation is left out, so that all
    batches have one shape.

    **Arguments:**

    - `data`: a pytree of arrays with samples along their leading axis. NumPy arrays (memory-mapped
        ones too) stay on the host and only the batch is moved; JAX arrays are gathered on their
        device.
    - `batch_size`: samples a batch, at most the number of samples.
    - `key`: draws the permutations; `None` keeps the order of the data.

    **Returns:**

    `batches(step, key=None) -> batch` for [`fit`][jaxsci.train.fit], a pure function of `step`,
    which may also be traced; the key given at the call is not used.

    **Raises:**

    - `ValueError`: the leading axes differ, or `batch_size` is not between 1 and their length.
    """
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(data)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            f"the leaves of `data` must have one leading axis, got lengths {sorted(sizes)}."
        )
    ((size,),) = sizes
    check_at_least("batch_size", batch_size, 1)
    if batch_size > size:
        raise ValueError(f"`batch_size` must be at most the {size} samples, got {batch_size}.")
    on_host = all(isinstance(x, np.ndarray) for x in jax.tree.leaves(data))
    return _Minibatches(data, key, size, batch_size, on_host)
