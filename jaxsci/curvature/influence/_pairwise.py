"""Influence of training examples on queries: -grad f(q)^T (G + lambda I)^-1 grad L(z)."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..._base import check_choice
from ._engine import score_batches


def example_weight(normalize: str | None, curv: Any, scored: int, num_examples: int | None) -> Any:
    """What scores are multiplied by: 1, or 1/N for the effect of one example of N."""
    check_choice("normalize", normalize, (None, "per_example"))
    if normalize is None:
        return 1.0
    if num_examples is None and getattr(curv, "factors", None) != "identity":
        num_examples = getattr(curv, "num_examples", None)
    return 1.0 / (scored if num_examples is None else num_examples)


def pairwise(
    curv: Any,
    loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    queries: PyTree,
    train: Any,
    measurement: Callable[[PyTree, PyTree], Any] | None = None,
    rank: int | None = None,
    per_layer: bool = False,
    per_token: bool = False,
    *,
    damping: ArrayLike | None = None,
    normalize: Literal["per_example"] | None = None,
    num_examples: int | None = None,
    batch_size: int | None = None,
    query_batch_size: int | None = None,
    progress: bool = False,
) -> Float[Array, "queries train *tokens"] | dict[str, Float[Array, "queries train *tokens"]]:
    """The influence of every training example on every query.

    The score of query q and training example z is the rate at which the measurement f(q) changes
    when z is weighted up in training,

        -grad f(q)^T (G + lambda I)^-1 grad L(z);

    positive: z helps q. With f = -L it is grad L(q)^T (G + lambda I)^-1 grad L(z), symmetric and
    positive for q = z. The response it describes is the proximal Bregman one
    ([`pbrf`][jaxsci.curvature.influence.pbrf]), not that of retraining without z. Grosse et al.
    2023, "Studying large language model generalization with influence functions"
    (arXiv:2308.03296).

    Queries are preconditioned once and then meet the gradients of one pass over `train`.

    **Arguments:**

    - `curv`: the curvature: a `KroneckerCurvature` (from `fit_kronecker`), a positive semidefinite
        lineax operator such as [`exact_ggn`][jaxsci.curvature.influence.exact_ggn], or None for the
        identity.
    - `loss_fn`: `loss_fn(params, example) -> scalar`, the loss of one example.
    - `params`: pytree of real floating arrays.
    - `queries`: pytree of arrays with a leading axis over queries.
    - `train`: likewise over training examples; or an iterator of such batches.
    - `measurement`: `measurement(params, query) -> scalar`, by default `-loss_fn`.
    - `rank`: compress the preconditioned gradient of each query and layer to this rank. None is
        exact, and so is a rank that a layer cannot exceed. Embeddings are never compressed.
    - `per_layer`: return the part of each layer: a dictionary by path of the weight (a folded bias
        is part of its weight; leaves that belong to no layer have entries of their own).
    - `per_token`: return the part of each position of the training example, in a last axis. Its
        length is the number of positions at which most layers are applied. What has no such
        position (norm scales, layers applied after pooling) is spread evenly, so that the parts sum
        to the score.
    - `damping`: lambda. For a `KroneckerCurvature` None is its heuristic, a tenth of the mean
        eigenvalue of each layer. To an operator it is added.
    - `normalize`: None gives the derivative with respect to the weight of z in
        `mean loss + weight * L(z)`. "per_example" multiplies it by 1/N, the weight of one example:
        the change from adding z once more to the training set.
    - `num_examples`: the size N of the training set for `normalize`, by default that of the
        curvature if it knows it, else the number of examples scored.
    - `batch_size`: how many training examples to differentiate at once, by default chosen by the
        number of parameters. A stream comes in its own batches.
    - `query_batch_size`: likewise for the queries, before they are compressed.
    - `progress`: show a progress bar, if tqdm is installed.

    **Returns:**

    Scores, shape `(queries, train)` or `(queries, train, tokens)`, or a dictionary of them.

    **Raises:**

    `ValueError` if the trees or leading axes do not fit, a loss is not scalar, `rank` is larger
    than any layer's, `damping` is negative or zero for a singular curvature, or a parameter is used
    in a way that cannot be captured; `TypeError` if `curv` is none of the above.
    """
    check_choice("normalize", normalize, (None, "per_example"))
    batches = score_batches(
        curv,
        loss_fn,
        params,
        queries,
        train,
        measurement,
        rank,
        per_layer,
        per_token,
        damping,
        batch_size,
        query_batch_size,
        progress,
    )
    parts = [batch.scores for batch in batches]
    scores = jax.tree.map(lambda *xs: jnp.concatenate(xs, axis=1), *parts)
    scored = jax.tree.leaves(scores)[0].shape[1]
    weight = example_weight(normalize, curv, scored, num_examples)
    return scores if normalize is None else jax.tree.map(lambda x: x * weight, scores)


def gradient_dot(
    loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    queries: PyTree,
    train: Any,
    measurement: Callable[[PyTree, PyTree], Any] | None = None,
    rank: int | None = None,
    per_layer: bool = False,
    per_token: bool = False,
    *,
    batch_size: int | None = None,
    query_batch_size: int | None = None,
    progress: bool = False,
) -> Float[Array, "queries train *tokens"] | dict[str, Float[Array, "queries train *tokens"]]:
    """The dot product of the gradients of every query and every training example.

    Influence with the identity for a curvature: the baseline, and the limit of lambda times the
    influence as lambda grows.

    **Arguments:**

    As in [`pairwise`][jaxsci.curvature.influence.pairwise].

    **Returns:**

    Scores as `pairwise` returns them.

    **Raises:**

    As `pairwise`.
    """
    return pairwise(
        None,
        loss_fn,
        params,
        queries,
        train,
        measurement,
        rank,
        per_layer,
        per_token,
        batch_size=batch_size,
        query_batch_size=query_batch_size,
        progress=progress,
    )
