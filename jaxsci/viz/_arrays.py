"""What the pictures accept: grids, fields, and trajectories of fields."""

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np


@runtime_checkable
class PlottableGrid(Protocol):
    """A grid of uniformly spaced points in a box: all that a picture needs to know of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points of each axis."""
        ...

    @property
    def ndim(self) -> int:
        """Number of space dimensions."""
        ...

    def coordinates(self, dtype: Any = None) -> tuple[jax.Array, ...]:
        """Coordinates of the points, one array of shape `shape` an axis."""
        ...


AXIS_NAMES = ("x", "y", "z")


def axis_points(grid: PlottableGrid, axis: int) -> np.ndarray:
    """Coordinates along one axis."""
    x = np.asarray(grid.coordinates()[axis])
    return x[tuple(slice(None) if a == axis else 0 for a in range(grid.ndim))]


def cell_edges(points: np.ndarray) -> np.ndarray:
    """Edges of cells around increasing points; the outermost cells are symmetric."""
    middle = (points[1:] + points[:-1]) / 2
    first = 2 * points[0] - middle[0]
    last = 2 * points[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def check_dimension(grid: PlottableGrid, ndim: int, picture: str, instead: str) -> None:
    """Raise unless the grid has `ndim` dimensions."""
    if grid.ndim != ndim:
        raise ValueError(
            f"`{picture}` needs a grid of {ndim} dimension(s), got one of shape {grid.shape}; "
            f"see {instead}."
        )


def as_channels(grid: PlottableGrid, u: Any) -> np.ndarray:
    """A field as a real NumPy array `(channels, *shape)`; of complex fields the modulus."""
    u = _real(u)
    bare = u.ndim == grid.ndim
    if u.ndim not in (grid.ndim, grid.ndim + 1) or u.shape[u.ndim - grid.ndim :] != grid.shape:
        raise ValueError(
            f"`u` must have the shape of the grid, {grid.shape}, or (channels, "
            f"{', '.join(map(str, grid.shape))}), got {u.shape}."
        )
    return u[None] if bare else u


def as_trajectory(grid: PlottableGrid, ts: Any, ys: Any) -> tuple[np.ndarray, np.ndarray]:
    """Times, and fields as a real NumPy array `(time, channels, *shape)`."""
    ts, ys = np.asarray(ts), _real(ys)
    space = ", ".join(map(str, grid.shape))
    if ts.ndim != 1 or len(ts) < 2 or not np.all(np.diff(ts) > 0):
        raise ValueError(
            f"`ts` must be at least two increasing times, got {ts} (shape {ts.shape})."
        )
    bare = ys.ndim == grid.ndim + 1
    fits = ys.ndim in (grid.ndim + 1, grid.ndim + 2) and ys.shape[-grid.ndim :] == grid.shape
    if not fits or len(ys) != len(ts):
        raise ValueError(
            f"`ys` must have shape ({len(ts)}, {space}) or ({len(ts)}, channels, {space}) for "
            f"{len(ts)} times on a grid of shape {grid.shape}, got {ys.shape}."
        )
    return ts, ys[:, None] if bare else ys


def _real(u):
    u = np.asarray(u)
    # bfloat16 and the like are no dtypes of matplotlib's.
    return np.abs(u) if np.iscomplexobj(u) else u.astype(np.result_type(u.dtype, np.float32))
