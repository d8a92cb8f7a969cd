"""Quantities over time."""

from collections.abc import Mapping
from typing import Any, TYPE_CHECKING

import numpy as np
from jaxtyping import ArrayLike, Num

from ._colors import line_styles
from ._matplotlib import one_axes

if TYPE_CHECKING:
    import matplotlib.axes


def plot_history(
    ts: Num[ArrayLike, " time"],
    values: Mapping[str, Any],
    *,
    relative: bool = False,
    ylabel: str = "",
    ax: Any = None,
) -> "matplotlib.axes.Axes":
    """Draw quantities over time, such as the invariants of an equation.

    **Arguments:**

    - `ts`: times.
    - `values`: arrays `(time,)` by name, as `jax.vmap(equation.invariants)` returns them.
    - `relative`: draw changes relative to the first value, (v - v[0])/|v[0]|, and absolute ones of
        quantities that start at zero.
    - `ylabel`: name of the vertical axis.
    - `ax`: axes to draw in, by default those of a new figure.

    **Returns:** the axes.

    **Raises:** `ValueError` if shapes do not match.
    """
    ts = np.asarray(ts)
    arrays = {name: np.asarray(value) for name, value in values.items()}
    for name, value in arrays.items():
        if value.shape != ts.shape:
            raise ValueError(
                f"`values[{name!r}]` must have the shape of `ts`, {ts.shape}, got {value.shape}."
            )
    ax = one_axes(ax, figsize=(5, 3))
    for (name, value), style in zip(arrays.items(), line_styles()):
        if relative:
            value = (value - value[0]) / (abs(value[0]) or 1.0)
        ax.plot(ts, value, label=name, **style)
    ax.set(xlabel="t", ylabel=ylabel or ("relative change" if relative else ""))
    if arrays:
        ax.legend()
    return ax
