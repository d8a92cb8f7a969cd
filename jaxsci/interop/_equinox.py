"""An Equinox module as a function of its parameters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from .._base import parameter_mask


def equinox_function(model: Callable[..., Any]) -> tuple[Callable[..., Any], PyTree]:
    """Split a module into a pure function and the parameters it is a function of.

    `fn(params, *args, **kwargs)` is `model(*args, **kwargs)` with the parameters replaced.

    **Arguments:**

    - `model`: an Equinox module, or any callable pytree.

    **Returns:**

    The pair `(fn, params)`: `params` has the structure of `model`, with its real or complex
    floating arrays as leaves and None elsewhere. What is left out (integers, functions,
    `NonTrainable` statistics and tables) is fixed in `fn`.

    **Raises:** `TypeError` if `model` is not callable.
    """
    if not callable(model):
        raise TypeError(f"`model` must be callable, got {model!r}.")

    params, static = eqx.partition(model, parameter_mask(model))

    def fn(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        return eqx.combine(params, static)(*args, **kwargs)

    return fn, params
