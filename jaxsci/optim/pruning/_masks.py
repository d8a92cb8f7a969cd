"""Masks of pruned networks: booleans like the parameters, true where a weight is kept."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from jaxsci._base import check_interval, is_concrete

Where = Callable[[Any], bool] | PyTree | None


def prunable(params: PyTree, where: Where = None) -> PyTree:
    """A pytree of Python booleans: which leaves may lose weights.

    By default those with two or more axes, matrices and kernels; every leaf if there are none.
    """
    if where is None:
        chosen = jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)
        if any(jax.tree.leaves(chosen)):
            return chosen
        return jax.tree.map(lambda p: True, params)
    if callable(where):
        return jax.tree.map(lambda p: bool(where(p)), params)
    if jax.tree.structure(where) != jax.tree.structure(params):
        raise ValueError(
            f"`where` must have the structure of `params`, {jax.tree.structure(params)}, got "
            f"{jax.tree.structure(where)}."
        )
    return jax.tree.map(bool, where)


def full_mask(params: PyTree) -> PyTree:
    """The mask that keeps everything."""
    return jax.tree.map(lambda p: jnp.ones(jnp.shape(p), bool), params)


def check_mask(mask: PyTree, params: PyTree) -> None:
    """Raise unless `mask` is a pytree of booleans like `params`."""
    if jax.tree.structure(mask) != jax.tree.structure(params):
        raise ValueError(
            f"`mask` must have the structure of `params`, {jax.tree.structure(params)}, got "
            f"{jax.tree.structure(mask)}."
        )
    for m, p in zip(jax.tree.leaves(mask), jax.tree.leaves(params), strict=True):
        if jnp.shape(m) != jnp.shape(p) or jnp.result_type(m) != jnp.bool_:
            raise ValueError(
                f"`mask` must have boolean leaves of the shapes of `params`, got "
                f"{jnp.result_type(m)}{jnp.shape(m)} for {jnp.shape(p)}."
            )


def _selected(tree: PyTree, chosen: PyTree) -> list[Any]:
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(chosen), strict=True)
    return [x for x, c in pairs if c]


def counts(mask: PyTree, chosen: PyTree) -> tuple[Any, int]:
    """How many prunable weights the mask drops, and how many there are."""
    leaves = _selected(mask, chosen)
    library = np if is_concrete(leaves) else jnp
    dropped = sum(library.sum(~library.asarray(m)) for m in leaves)
    return (int(dropped) if library is np else dropped), sum(int(np.size(m)) for m in leaves)


def sparsity(mask: PyTree, where: Where = None) -> Float[Array, ""]:
    """The fraction of prunable weights that `mask` drops.

    **Arguments:**

    - `mask`: pytree of booleans, true where a weight is kept.
    - `where`: which leaves count; see `obs_prune`.
    """
    dropped, total = counts(mask, prunable(mask, where))
    return jnp.asarray(dropped / max(total, 1))


@jax.jit
def _lowest(scores: list[Array], mask: list[Array], number: Any) -> list[Bool[Array, "..."]]:
    """False at the `number` lowest scores over all leaves; first come those already dropped."""
    dtype = jnp.result_type(*scores)
    # A NaN is sorted last: a weight of unknown score is kept.
    key = [
        jnp.where(m, s.astype(dtype), -jnp.inf).ravel() for s, m in zip(scores, mask, strict=True)
    ]
    order = jnp.argsort(jnp.concatenate(key))
    rank = jnp.zeros(order.shape, jnp.int32).at[order].set(jnp.arange(order.size, dtype=jnp.int32))
    ends = np.cumsum([s.size for s in scores])[:-1]
    parts = jnp.split(rank >= number, ends)
    return [keep.reshape(s.shape) for keep, s in zip(parts, scores, strict=True)]


def mask_of_lowest(scores: PyTree, mask: PyTree, chosen: PyTree, number: Any) -> PyTree:
    """`mask` with weights of lowest score dropped until `number` of the prunable ones are."""
    kept = iter(_lowest(_selected(scores, chosen), _selected(mask, chosen), number))
    return jax.tree.map(lambda m, c: next(kept) & m if c else m, mask, chosen)


def check_sparsity(target: Any, mask: PyTree, chosen: PyTree) -> tuple[Any, int, int]:
    """Check a target; return how many weights are dropped, to be dropped, and prunable."""
    check_interval("sparsity", target, 0.0, 1.0, closed="left")
    target = float(target)
    dropped, total = counts(mask, chosen)
    wanted = round(target * total)
    if is_concrete(dropped) and wanted < dropped:
        raise ValueError(
            f"`sparsity` must be at least that of `mask`, {dropped / total:.6g}, got {target!r}."
        )
    return dropped, wanted, total


def prune_mask(
    scores: PyTree, sparsity: ArrayLike, mask: PyTree | None = None, *, where: Where = None
) -> PyTree:
    """The mask that drops the weights of lowest score, ranked over all prunable leaves together.

    The ranking sorts all scores in one array, so sharded scores are gathered.

    **Arguments:**

    - `scores`: pytree of real arrays like the parameters.
    - `sparsity`: fraction, in [0, 1), of the prunable weights dropped in all.
    - `mask`: weights dropped already stay so. `None`: none.
    - `where`: which leaves may lose weights; see `obs_prune`.

    **Returns:**

    A pytree of booleans, true where a weight is kept.

    **Raises:**

    `ValueError` if `sparsity` is not in [0, 1) or below that of `mask`, or trees do not match.
    """
    chosen = prunable(scores, where)
    mask = full_mask(scores) if mask is None else mask
    check_mask(mask, scores)
    _, wanted, _ = check_sparsity(sparsity, mask, chosen)
    return mask_of_lowest(scores, mask, chosen, wanted)
