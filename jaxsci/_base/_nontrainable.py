"""`NonTrainable`: an array that belongs to a model and that no optimizer may change."""

from typing import Generic, TypeVar

import equinox as eqx

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
