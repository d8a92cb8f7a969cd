"""A one-dimensional field in time, as an image."""

from typing import Any, SupportsFloat, TYPE_CHECKING

from jaxtyping import ArrayLike, Num

from ._arrays import (
    as_trajectory,
    AXIS_NAMES,
    axis_points,
    cell_edges,
    check_dimension,
    PlottableGrid,
)
from ._colors import color_scale
from ._matplotlib import one_axes

if TYPE_CHECKING:
    import matplotlib.axes


def plot_spacetime(
    grid: PlottableGrid,
    ts: Num[ArrayLike, " time"],
    ys: Num[ArrayLike, "time ..."],
    *,
    label: str = "",
    cmap: str | None = None,
    limits: tuple[SupportsFloat, SupportsFloat] | None = None,
    signed: bool | None = None,
    colorbar: bool = True,
    ax: Any = None,
) -> "matplotlib.axes.Axes":
    """Draw a one-dimensional field over time (horizontal) and space (vertical).

    **Arguments:**

    - `grid`: a one-dimensional grid.
    - `ts`: increasing times, not necessarily equally spaced.
    - `ys`: one field at these times, `(time, points)` or `(time, 1, points)`; of a complex field
        the modulus is drawn.
    - `label`: label of the colour bar.
    - `cmap`, `limits`, `signed`: colours, as for `plot_field`.
    - `colorbar`: whether to draw a colour bar.
    - `ax`: axes to draw in, by default those of a new figure.

    **Returns:** the axes.

    **Raises:** `ValueError` if shapes do not match.
    """
    check_dimension(grid, 1, "plot_spacetime", "`animate`")
    ts, ys = as_trajectory(grid, ts, ys)
    if ys.shape[1] != 1:
        raise ValueError(
            f"`plot_spacetime` draws one field on the grid of shape {grid.shape}, got the channels "
            f"of {ys.shape}; choose one, `ys[:, i]`."
        )
    ax = one_axes(ax, figsize=(6, 3))
    mesh = ax.pcolormesh(
        cell_edges(ts),
        cell_edges(axis_points(grid, 0)),
        ys[:, 0].T,
        rasterized=True,
        **color_scale(ys, cmap, limits, signed)._asdict(),
    )
    ax.set(xlabel="t", ylabel=AXIS_NAMES[0])
    if colorbar:
        ax.figure.colorbar(mesh, ax=ax, label=label)
    return ax
