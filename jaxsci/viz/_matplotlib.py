"""matplotlib, imported when the first picture is drawn."""

from typing import Any

import numpy as np


def pyplot() -> Any:
    """The module `matplotlib.pyplot`."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "`jaxsci.viz` draws with matplotlib: `pip install jaxsci[plots]`."
        ) from error
    return plt


def one_axes(ax: Any, **figure: Any) -> Any:
    """`ax`, or the axes of a new figure."""
    if ax is not None:
        return ax
    _, ax = pyplot().subplots(layout="constrained", **figure)
    return ax


def row_of_axes(ax: Any, number: int, size: tuple[float, float] = (4.0, 3.4)) -> np.ndarray:
    """`ax` as an array of `number` axes, or the axes of a new figure in a row."""
    if ax is None:
        width, height = size
        _, axes = pyplot().subplots(
            1, number, squeeze=False, layout="constrained", figsize=(width * number, height)
        )
        return axes[0]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != number:
        raise ValueError(f"`ax` must be {number} axes, one a picture, got {len(axes)}.")
    return axes
