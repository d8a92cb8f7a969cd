"""Batches of a data set that is one pytree of arrays, or a stream of such pytrees."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..._base import check_at_least


def leading_size(name: str, tree: PyTree) -> int:
    """The common length of the first axis of all leaves of `tree`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    if not leaves:
        raise ValueError(f"`{name}` must hold at least one array, got {tree!r}.")
    sizes = {}
    for path, leaf in leaves:
        if not np.ndim(leaf):
            raise ValueError(
                f"Every leaf of `{name}` must have a leading axis over examples; the one at "
                f"'{jax.tree_util.keystr(path)}' is a scalar."
            )
        sizes[jax.tree_util.keystr(path)] = np.shape(leaf)[0]
    if len(set(sizes.values())) > 1:
        raise ValueError(f"The leading axes of `{name}` must agree, got the lengths {sizes}.")
    size = next(iter(sizes.values()))
    if not size:
        raise ValueError(f"`{name}` must hold at least one example, got none.")
    return size


def is_stream(data: Any) -> bool:
    """Whether `data` yields batches, rather than being one pytree of arrays."""
    return isinstance(data, Iterator) or (
        hasattr(data, "__iter__")
        and not isinstance(data, jax.Array | np.ndarray)
        and jax.tree_util.all_leaves([data])
    )


def iterate(name: str, data: PyTree, batch_size: int) -> Iterator[tuple[PyTree, int]]:
    """The batches of a pytree of arrays, all of one size, with how many examples are new in each.

    The last batch starts early where the size does not divide: its new examples are the last ones.
    """
    check_at_least("batch_size", batch_size, 1)
    size = leading_size(name, data)
    width = min(batch_size, size)
    for start in range(0, size, width):
        first = min(start, size - width)
        yield jax.tree.map(lambda x, a=first: x[a : a + width], data), min(width, size - start)
