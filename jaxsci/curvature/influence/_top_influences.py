"""The most influential training examples of each query, without the matrix of all scores."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..._base import check_at_least
from ._engine import score_batches


class TopInfluences(NamedTuple):
    """Scores and places in the training set, best first."""

    scores: Float[Array, "queries k"]
    indices: Int[Array, "queries k"]


@jax.jit
def _merge(best: TopInfluences, scores, first) -> TopInfluences:
    here = jnp.broadcast_to(first + jnp.arange(scores.shape[1]), scores.shape)
    k = best.scores.shape[1]
    values, order = jax.lax.top_k(jnp.concatenate([best.scores, scores], axis=1), k)
    indices = jnp.concatenate([best.indices, here.astype(best.indices.dtype)], axis=1)
    return TopInfluences(values, jnp.take_along_axis(indices, order, axis=1))


def top_influences(
    curv: Any,
    loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    queries: PyTree,
    train: Any,
    k: int,
    measurement: Callable[[PyTree, PyTree], Any] | None = None,
    rank: int | None = None,
    *,
    damping: ArrayLike | None = None,
    batch_size: int | None = None,
    query_batch_size: int | None = None,
    progress: bool = False,
) -> TopInfluences:
    """The `k` training examples with the largest influence on each query.

    One pass over `train`, in memory for `k` scores a query whatever the size of `train`.

    **Arguments:**

    - `k`: how many to keep.
    - the others: as in [`pairwise`][jaxsci.curvature.influence.pairwise].

    **Returns:**

    `TopInfluences(scores, indices)`, each of shape `(queries, k)`, best first. Where `train` holds
    fewer than `k` examples the rest is filled with the score -inf and the index -1.

    **Raises:**

    As `pairwise`; `ValueError` if `k < 1`.
    """
    check_at_least("k", k, 1)
    best = None
    for batch in score_batches(
        curv,
        loss_fn,
        params,
        queries,
        train,
        measurement,
        rank,
        False,
        False,
        damping,
        batch_size,
        query_batch_size,
        progress,
    ):
        scores = batch.scores
        if best is None:
            shape = (scores.shape[0], k)
            best = TopInfluences(
                jnp.full(shape, -jnp.inf, scores.dtype), jnp.full(shape, -1, jnp.int32)
            )
        best = _merge(best, scores, jnp.asarray(batch.first, jnp.int32))
    assert best is not None
    return best
