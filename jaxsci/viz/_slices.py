"""Three orthogonal slices through a three-dimensional field."""

from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import ArrayLike, Num

from ._arrays import as_channels, AXIS_NAMES, axis_points, check_dimension, PlottableGrid
from ._colors import color_scale
from ._field import draw_image
from ._matplotlib import row_of_axes

# For each slice the axes that it shows and the axis that it is normal to.
PLANES = (((0, 1), 2), ((0, 2), 1), ((1, 2), 0))


def plot_slices(
    grid: PlottableGrid,
    u: Num[ArrayLike, "..."],
    *,
    at: Sequence[SupportsFloat] | None = None,
    label: str = "",
    cmap: str | None = None,
    limits: tuple[SupportsFloat, SupportsFloat] | None = None,
    signed: bool | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> np.ndarray:
    """Draw the slices of a three-dimensional field normal to z, y and x, in one colour scale.

    **Arguments:**

    - `grid`: a three-dimensional grid.
    - `u`: one field, `shape` or `(1, *shape)`; of a complex field the modulus is drawn.
    - `at`: the point (x, y, z) that the slices pass through, rounded to the nearest grid point; by
        default the middle of the box.
    - `label`: label of the colour bar.
    - `cmap`, `limits`, `signed`: colours, as for `plot_field`.
    - `colorbar`: whether to draw a colour bar.
    - `ax`: three axes to draw in, by default those of a new figure.

    **Returns:** a NumPy array of the three axes.

    **Raises:** `ValueError` if shapes do not match or `at` is outside the box.
    """
    check_dimension(grid, 3, "plot_slices", "`plot_profile` and `plot_field`")
    u = one_channel(grid, u, "plot_slices")
    index = slice_index(grid, at)
    axes = row_of_axes(ax, 3)
    scale = color_scale(u, cmap, limits, signed)
    image = None
    for ax, (shown, normal) in zip(axes, PLANES):
        image = draw_image(ax, grid, np.take(u, index[normal], normal), shown, scale)
        ax.set_title(f"{AXIS_NAMES[normal]} = {axis_points(grid, normal)[index[normal]]:.3g}")
    if colorbar:
        axes[0].figure.colorbar(image, ax=list(axes), label=label)
    return axes


def one_channel(grid: PlottableGrid, u: Any, picture: str) -> np.ndarray:
    """A field of one channel, without the channel axis."""
    u = as_channels(grid, u)
    if len(u) != 1:
        raise ValueError(
            f"`{picture}` draws one field on the grid of shape {grid.shape}, got the channels of "
            f"{u.shape}; choose one, `u[i]`."
        )
    return u[0]


def slice_index(grid: PlottableGrid, at: Sequence[SupportsFloat] | None) -> tuple[int, ...]:
    """Index of the grid point nearest to `at`."""
    if at is None:
        return tuple(n // 2 for n in grid.shape)
    if len(at) != grid.ndim:
        raise ValueError(f"`at` must have {grid.ndim} coordinates, got {at}.")
    index = []
    for axis, value in enumerate(map(float, at)):
        points = axis_points(grid, axis)
        step = points[1] - points[0]
        if not points[0] - step <= value <= points[-1] + step:
            raise ValueError(
                f"`at` must be in the box: {AXIS_NAMES[axis]} in [{points[0]:.3g}, "
                f"{points[-1]:.3g}], got {value}."
            )
        index.append(int(np.argmin(np.abs(points - value))))
    return tuple(index)
