"""Fields at one time: profiles in one dimension, images in two."""

from collections.abc import Sequence
from typing import Any, SupportsFloat, TYPE_CHECKING

import numpy as np
from jaxtyping import ArrayLike, Num

from ._arrays import (
    as_channels,
    AXIS_NAMES,
    axis_points,
    cell_edges,
    check_dimension,
    PlottableGrid,
)
from ._colors import color_scale, ColorScale, line_styles
from ._matplotlib import one_axes, row_of_axes

if TYPE_CHECKING:
    import matplotlib.axes


def plot_profile(
    grid: PlottableGrid,
    u: Num[ArrayLike, "..."],
    *,
    labels: Sequence[str] | None = None,
    ylabel: str = "u",
    ax: Any = None,
) -> "matplotlib.axes.Axes":
    """Draw a one-dimensional field as a line, or several channels as several lines.

    **Arguments:**

    - `grid`: a one-dimensional grid.
    - `u`: field, `(points,)` or `(channels, points)`; of complex fields the modulus is drawn.
    - `labels`: names of the channels for a legend.
    - `ylabel`: name of the field.
    - `ax`: axes to draw in, by default those of a new figure.

    **Returns:** the axes.

    **Raises:** `ValueError` if shapes do not match.
    """
    check_dimension(grid, 1, "plot_profile", "`plot_field` and `plot_slices`")
    u = as_channels(grid, u)
    labels = _names("labels", labels, len(u))
    ax = one_axes(ax, figsize=(5, 3))
    for values, label, style in zip(u, labels or [None] * len(u), line_styles()):
        ax.plot(axis_points(grid, 0), values, label=label, **style)
    edges = cell_edges(axis_points(grid, 0))
    ax.set(xlabel=AXIS_NAMES[0], ylabel=ylabel, xlim=(edges[0], edges[-1]))
    if labels:
        ax.legend()
    return ax


def plot_field(
    grid: PlottableGrid,
    u: Num[ArrayLike, "..."],
    *,
    titles: Sequence[str] | None = None,
    label: str = "",
    cmap: str | None = None,
    limits: tuple[SupportsFloat, SupportsFloat] | None = None,
    signed: bool | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> Any:
    """Draw a two-dimensional field as an image, or several channels as a row of images.

    **Arguments:**

    - `grid`: a two-dimensional grid.
    - `u`: field, `shape` or `(channels, *shape)`; of complex fields the modulus is drawn.
    - `titles`: titles of the images, one a channel.
    - `label`: label of the colour bars.
    - `cmap`: name of a colour map of matplotlib's. By default a diverging one for signed values,
        else a sequential one, both perceptually uniform and safe for colour-blind readers.
    - `limits`: lowest and highest value of the colours, by default the range of each channel.
    - `signed`: whether colours are symmetric about zero. By default they are if values lie on both
        sides of zero and the smaller extreme is at least a tenth of the larger.
    - `colorbar`: whether to draw colour bars.
    - `ax`: axes to draw in (a sequence for several channels), by default those of a new figure.

    **Returns:** the axes, or a NumPy array of them if there are several channels.

    **Raises:** `ValueError` if shapes do not match.
    """
    check_dimension(grid, 2, "plot_field", "`plot_profile` and `plot_slices`")
    u = as_channels(grid, u)
    titles = _names("titles", titles, len(u))
    x, y = (cell_edges(axis_points(grid, axis)) for axis in (0, 1))
    tallness = (y[-1] - y[0]) / (x[-1] - x[0])
    axes = row_of_axes(ax, len(u), (4.0, min(max(3.2 * tallness + 0.4, 1.6), 8.0)))
    for i, (values, ax) in enumerate(zip(u, axes)):
        image = draw_image(ax, grid, values, (0, 1), color_scale(values, cmap, limits, signed))
        if colorbar:
            ax.figure.colorbar(image, ax=ax, label=label)
        if titles:
            ax.set_title(titles[i])
    return axes[0] if len(axes) == 1 else axes


def draw_image(
    ax: Any, grid: PlottableGrid, values: np.ndarray, axes: tuple[int, int], scale: ColorScale
) -> Any:
    """Draw `values`, indexed by the two space axes `axes`, the first of them horizontal."""
    x, y = (cell_edges(axis_points(grid, axis)) for axis in axes)
    image = ax.imshow(
        values.T,
        origin="lower",
        extent=(x[0], x[-1], y[0], y[-1]),
        aspect="equal",
        interpolation="nearest",
        **scale._asdict(),
    )
    ax.set(xlabel=AXIS_NAMES[axes[0]], ylabel=AXIS_NAMES[axes[1]])
    return image


def _names(argument, names, number):
    if names is not None and len(names) != number:
        raise ValueError(
            f"`{argument}` must have one entry a channel ({number}), got {len(names)}: {names}."
        )
    return names
