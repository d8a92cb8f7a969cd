"""Which leaves of a model are trained: boolean pytrees for `eqx.partition` and `optax.masked`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._base import parameter_mask


def trainable(model: PyTree) -> PyTree[bool]:
    """The default choice of what is trained: floating-point arrays outside `NonTrainable`.

    `eqx.is_inexact_array` alone would also select the fitted statistics and fixed tables of a
    model, which weight decay then changes even where their gradient is zero.

    **Arguments:**

    - `model`: any pytree: an Equinox module, a dictionary of Flax parameters, ...

    **Returns:**

    A pytree of the structure of `model`, `True` at its parameters and `False` elsewhere.
    """

    return parameter_mask(model)


def _replace(select: Callable, mask: PyTree, value: Callable[[PyTree], PyTree]) -> PyTree:
    try:
        return eqx.tree_at(select, mask, replace_fn=value)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            "`select` must return a node of the model, or a tuple of nodes, as in "
            f"`lambda model: model.encoder`; it failed with: {error}"
        ) from error


def freeze(
    select: Callable[[PyTree], Any], where: Callable[[PyTree], PyTree] = trainable
) -> Callable[[PyTree], PyTree[bool]]:
    """Train everything that `where` selects except the nodes that `select` points at.

    **Arguments:**

    - `select`: `model -> node` or `model -> (node, ...)`, as in `eqx.tree_at`.
    - `where`: the choice to narrow, `model -> pytree of bool`.

    **Returns:**

    A function `model -> pytree of bool`, for the argument `where` of [`fit`][jaxsci.train.fit] or
    of another mask.
    """

    def mask(model: PyTree) -> PyTree[bool]:
        return _replace(select, where(model), lambda node: jax.tree.map(lambda _: False, node))

    return mask


def train_only(
    select: Callable[[PyTree], Any], where: Callable[[PyTree], PyTree] = trainable
) -> Callable[[PyTree], PyTree[bool]]:
    """Train, of what `where` selects, only the nodes that `select` points at.

    **Arguments:**

    - `select`: `model -> node` or `model -> (node, ...)`, as in `eqx.tree_at`.
    - `where`: the choice to narrow, `model -> pytree of bool`.

    **Returns:**

    A function `model -> pytree of bool`, the complement of [`freeze`][jaxsci.train.freeze] within
    `where`.
    """

    def mask(model: PyTree) -> PyTree[bool]:
        wanted = where(model)
        frozen = _replace(select, wanted, lambda node: jax.tree.map(lambda _: False, node))
        return jax.tree.map(lambda before, after: before and not after, wanted, frozen)

    return mask
