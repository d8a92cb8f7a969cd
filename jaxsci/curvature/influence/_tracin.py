"""TracIn: gradient dot products along the path of training."""

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..._base import check_positive
from ._pairwise import gradient_dot


def tracin(
    loss_fn: Callable[[PyTree, PyTree], Any],
    checkpoints: Iterable[tuple[PyTree, ArrayLike]],
    queries: PyTree,
    train: PyTree,
    measurement: Callable[[PyTree, PyTree], Any] | None = None,
    *,
    batch_size: int | None = None,
) -> Float[Array, "queries train"]:
    """The sum over checkpoints of learning rate times the dot product of gradients.

    To first order, how much the steps of gradient descent on each training example have changed
    each query. Pruthi et al. 2020, "Estimating training data influence by tracing gradient
    descent" (arXiv:2002.08484), the checkpointed form.

    **Arguments:**

    - `checkpoints`: pairs `(params, learning_rate)`; an iterator can load them one at a time.
    - the others: as in [`gradient_dot`][jaxsci.curvature.influence.gradient_dot]; `train` must be a
        pytree of arrays, as it is passed over once a checkpoint.

    **Returns:**

    Scores, shape `(queries, train)`.

    **Raises:**

    `ValueError` if there is no checkpoint or a learning rate is not positive.
    """
    terms = []
    for params, learning_rate in checkpoints:
        check_positive("learning_rate", learning_rate)
        dots = gradient_dot(loss_fn, params, queries, train, measurement, batch_size=batch_size)
        scores = jnp.asarray(dots)
        terms.append(jnp.asarray(learning_rate, scores.dtype) * scores)
    if not terms:
        raise ValueError("`checkpoints` must hold at least one pair (params, learning_rate).")
    return sum(terms[1:], start=terms[0])
