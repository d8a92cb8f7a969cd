"""The loss of one example as a function of the model's outputs, by name or as given."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from .._likelihoods import as_likelihood


def output_loss(loss: Any) -> Callable[[PyTree, PyTree], Any]:
    """`loss` as a function `(outputs, targets) -> scalar`."""
    if hasattr(loss, "loss"):
        return loss.loss
    return loss if callable(loss) else as_likelihood(loss).loss
