"""Self-influence: how strongly each training example acts on its own loss."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..._base import example_structure, progress_bar
from ._engine import (
    check_curvature,
    check_finite_scores,
    check_scalar_loss,
    default_batch_size,
    peek,
    self_score,
    total_score,
)
from ._pairwise import example_weight


def self_influence(
    curv: Any,
    loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    train: Any,
    *,
    per_layer: bool = False,
    damping: ArrayLike | None = None,
    normalize: Literal["per_example"] | None = None,
    num_examples: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Float[Array, " train"] | dict[str, Float[Array, " train"]]:
    """grad L(z)^T (G + lambda I)^-1 grad L(z) of every example z.

    The diagonal of [`pairwise`][jaxsci.curvature.influence.pairwise] with the training set as
    queries. Examples that the model fits only by bending to them, mislabelled ones among them,
    come out large.

    **Arguments:**

    As in `pairwise`.

    **Returns:**

    Scores, shape `(train,)`, positive where `damping` is; a dictionary of them by path if
    `per_layer`.

    **Raises:**

    As `pairwise`.
    """
    check_curvature(curv, damping)
    damping = None if damping is None else jnp.asarray(damping)
    example_weight(normalize, curv, 1, num_examples)
    width = default_batch_size(params) if batch_size is None else batch_size
    first, batches, total = peek(train, width)
    check_scalar_loss("loss_fn", loss_fn, params, example_structure(first))
    parts = []
    with progress_bar(progress, "example", total) as bar:
        for batch, new in batches:
            scores = self_score(curv, damping, loss_fn, params, batch)
            parts.append(jax.tree.map(lambda x, n=new: x[x.shape[0] - n :], scores))
            bar.update(new)
    scores = jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
    check_finite_scores("The scores", scores)
    scored = next(iter(scores.values())).shape[0]
    weight = example_weight(normalize, curv, scored, num_examples)
    scores = scores if normalize is None else {path: x * weight for path, x in scores.items()}
    return scores if per_layer else total_score(scores)
