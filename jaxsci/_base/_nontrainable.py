"""`NonTrainable`: an array that belongs to a model and that no optimizer may change."""

from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ._leaves import is_array

T = TypeVar("T")


class NonTrainable(eqx.Module, Generic[T]):
    """Mark `value` as data of a model, not as a parameter: a fitted statistic or a fixed table.

    It is a pytree node, so it is traced, saved and moved between devices like any array;
    `jaxsci.train.trainable` leaves it out, so that neither a gradient step nor weight decay
    changes it. Read it as `x.value`.

    **Arguments:**

    - `value`: any pytree of arrays.
    """

    value: T


def _is_parameter(leaf: Any) -> bool:
    # NumPy arrays count: parameters read from a file are often NumPy.
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def parameter_mask(model: PyTree) -> PyTree[bool]:
    """`True` at the floating-point arrays of `model` outside `NonTrainable`, `False` elsewhere."""

    def mark(node):
        if isinstance(node, NonTrainable):
            return jax.tree.map(lambda _: False, node)
        return _is_parameter(node)

    return jax.tree.map(mark, model, is_leaf=lambda node: isinstance(node, NonTrainable))
