"""Animations of fields, written as GIF or MP4."""

import os
from pathlib import Path
from typing import Any, SupportsFloat, TYPE_CHECKING

import numpy as np
from jaxtyping import ArrayLike, Num

from .._base import check_positive
from ._arrays import as_trajectory, PlottableGrid
from ._colors import color_scale
from ._field import plot_field, plot_profile
from ._matplotlib import pyplot
from ._slices import one_channel, PLANES, plot_slices, slice_index

if TYPE_CHECKING:
    import matplotlib.animation


def animate(
    grid: PlottableGrid,
    ts: Num[ArrayLike, " time"],
    ys: Num[ArrayLike, "time ..."],
    path: str | os.PathLike[str] | None = None,
    *,
    fps: SupportsFloat = 15,
    dpi: SupportsFloat = 100,
    label: str = "",
    cmap: str | None = None,
    limits: tuple[SupportsFloat, SupportsFloat] | None = None,
    signed: bool | None = None,
    ax: Any = None,
) -> "matplotlib.animation.FuncAnimation":
    """Animate a field: a line in one dimension, an image in two, three slices in three.

    Axes and colours stay the same in all frames.

    **Arguments:**

    - `grid`: the grid.
    - `ts`: increasing times, one a frame.
    - `ys`: fields, `(time, *shape)` or `(time, channels, *shape)`; of complex fields the modulus is
        drawn. In three dimensions one channel.
    - `path`: file to write, `*.gif` (with pillow) or `*.mp4` (with the program ffmpeg). Without it
        nothing is written; the animation returned can be shown in a notebook by
        `IPython.display.HTML(animation.to_jshtml())`.
    - `fps`: frames a second.
    - `dpi`: points an inch of the file.
    - `label`: name of the field.
    - `cmap`, `limits`, `signed`: colours, as for `plot_field`; in one dimension `limits` are those
        of the vertical axis.
    - `ax`: axes to draw in, by default those of a new figure, which is closed once written.

    **Returns:** the animation, a `matplotlib.animation.FuncAnimation`.

    **Raises:**

    - `ValueError` if shapes do not match or the suffix of `path` is another.
    - `RuntimeError` if the program that writes the file is not there.
    """
    fps, dpi = float(fps), float(dpi)
    check_positive("fps", fps)
    ts, ys = as_trajectory(grid, ts, ys)
    plt = pyplot()
    writer = None if path is None else _writer(Path(path), fps)
    if grid.ndim == 1:
        axes, draw = _lines(grid, ys, label, limits, ax)
    elif grid.ndim == 2:
        axes, draw = _images(grid, ys, label, (cmap, limits, signed), ax)
    else:
        axes, draw = _slices(grid, ys, label, (cmap, limits, signed), ax)
    figure: Any = axes[0].figure
    title = figure.suptitle("") if ax is None else None

    def update(frame):
        draw(frame)
        text = f"t = {ts[frame]:.4g}"
        if title is None:
            axes[0].set_title(text)
        else:
            title.set_text(text)
        return []

    from matplotlib.animation import FuncAnimation

    animation = FuncAnimation(figure, update, frames=len(ts), interval=1000 / fps, blit=False)
    if path is not None:
        animation.save(Path(path), writer=writer, dpi=dpi)
        if ax is None:
            plt.close(figure)
    return animation


def _lines(grid, ys, label, limits, ax):
    ax = plot_profile(grid, ys[0], ylabel=label or "u", ax=ax)
    lines = ax.lines[-ys.shape[1] :]
    finite = ys[np.isfinite(ys)]
    if limits is not None:
        ax.set_ylim(*map(float, limits))
    elif finite.size and finite.min() < finite.max():
        margin = 0.05 * (finite.max() - finite.min())
        ax.set_ylim(finite.min() - margin, finite.max() + margin)

    def draw(frame):
        for line, values in zip(lines, ys[frame]):
            line.set_ydata(values)

    return [ax], draw


def _images(grid, ys, label, colors, ax):
    axes = np.atleast_1d(plot_field(grid, ys[0], label=label, ax=ax))
    images = [a.images[-1] for a in axes]
    for channel, image in enumerate(images):
        _rescale(image, color_scale(ys[:, channel], *colors))

    def draw(frame):
        for image, values in zip(images, ys[frame]):
            image.set_data(values.T)

    return axes, draw


def _slices(grid, ys, label, colors, ax):
    ys = np.stack([one_channel(grid, y, "animate") for y in ys])
    axes = plot_slices(grid, ys[0], label=label, ax=ax)
    images = [a.images[-1] for a in axes]
    index = slice_index(grid, None)
    for image in images:
        _rescale(image, color_scale(ys, *colors))

    def draw(frame):
        for image, (_, normal) in zip(images, PLANES):
            image.set_data(np.take(ys[frame], index[normal], normal).T)

    return axes, draw


def _rescale(image, scale):
    image.set_cmap(scale.cmap)
    image.set_clim(scale.vmin, scale.vmax)


def _writer(path, fps):
    from matplotlib import animation

    suffix = path.suffix.lower()
    if suffix not in (".gif", ".mp4"):
        raise ValueError(f"`path` must end in .gif or .mp4, got {str(path)!r}.")
    if suffix == ".gif":
        if not animation.writers.is_available("pillow"):
            raise RuntimeError("GIF files need pillow: `pip install jaxsci[plots]`.")
        return animation.PillowWriter(fps=fps)
    if not animation.writers.is_available("ffmpeg"):
        raise RuntimeError(
            f"{str(path)!r} needs the program ffmpeg, which is not there; write a .gif instead."
        )
    return animation.FFMpegWriter(fps=fps)
