import jax.numpy as jnp
import matplotlib.animation
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pytest

from jaxsci import viz
from jaxsci.spectral import FourierGrid

LINE = FourierGrid(8, 1.0)
PLANE = FourierGrid((8, 6), (1.0, 1.0))
BOX = FourierGrid((4, 6, 8), (1.0, 1.0, 1.0))
TS = jnp.linspace(0.0, 1.0, 3)


def movie(grid, channels=None):
    lead = (3,) if channels is None else (3, channels)
    return jnp.arange(np.prod((*lead, *grid.shape)), dtype=float).reshape(*lead, *grid.shape)


def step(animation, frame):
    animation._func(frame)
    return animation._fig


def test_a_gif_has_one_frame_a_time_at_the_rate_asked_for(tmp_path):
    path = tmp_path / "movie.gif"
    viz.animate(PLANE, TS, movie(PLANE), path, fps=10, dpi=30)
    with PIL.Image.open(path) as image:
        assert image.n_frames == 3
        assert image.info["duration"] == 100
    assert plt.get_fignums() == []


def test_frames_of_a_line_keep_their_axes():
    ys = movie(LINE, channels=2)
    animation = viz.animate(LINE, TS, ys)
    for frame in range(3):
        figure = step(animation, frame)
        (ax,) = figure.axes
        for line, values in zip(ax.lines, ys[frame]):
            np.testing.assert_allclose(line.get_ydata(), values)
        low, high = ax.get_ylim()
        assert low < 0
        assert high > 47
        assert figure.get_suptitle() == f"t = {[0, 0.5, 1][frame]:.4g}"
    animation._draw_was_started = True


def test_frames_of_an_image_keep_their_colors():
    ys = movie(PLANE, channels=2)
    animation = viz.animate(PLANE, TS, ys, label="u")
    for frame in range(3):
        images = [ax.images[0] for ax in step(animation, frame).axes if ax.images]
        for channel, image in enumerate(images):
            np.testing.assert_allclose(image.get_array(), np.asarray(ys)[frame, channel].T)
            low, high = np.min(ys[:, channel]), np.max(ys[:, channel])
            np.testing.assert_allclose(image.get_clim(), (low, high))
    animation._draw_was_started = True


def test_frames_of_a_box_are_its_middle_slices():
    ys = np.asarray(movie(BOX))
    _, axes = plt.subplots(1, 3)
    animation = viz.animate(BOX, TS, ys, ax=axes, limits=(0.0, 600.0))
    step(animation, 2)
    np.testing.assert_allclose(axes[0].images[0].get_array(), ys[2][:, :, 4].T)
    np.testing.assert_allclose(axes[1].images[0].get_array(), ys[2][:, 3, :].T)
    np.testing.assert_allclose(axes[2].images[0].get_array(), ys[2][2].T)
    assert all(ax.images[0].get_clim() == (0, 600) for ax in axes)
    assert axes[0].get_title() == "t = 1"
    animation._draw_was_started = True


def test_an_mp4_is_written_where_ffmpeg_is_there_and_else_refused(tmp_path):
    path = tmp_path / "movie.mp4"
    if matplotlib.animation.writers.is_available("ffmpeg"):
        viz.animate(LINE, TS, movie(LINE), path, dpi=30)
        assert path.stat().st_size > 0
    else:
        with pytest.raises(RuntimeError, match="needs the program ffmpeg"):
            viz.animate(LINE, TS, movie(LINE), path)


@pytest.mark.bad_input
def test_bad_animations_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in .gif or .mp4, got .*\.avi"):
        viz.animate(LINE, TS, movie(LINE), tmp_path / "movie.avi")
    with pytest.raises(ValueError, match=r"3 times on a grid of shape \(8,\), got \(2, 8\)"):
        viz.animate(LINE, TS, movie(LINE)[:2])
    with pytest.raises(ValueError, match=r"channels of \(2, 4, 6, 8\)"):
        viz.animate(BOX, TS, movie(BOX, channels=2))
    with pytest.raises(ValueError, match="`fps`"):
        viz.animate(LINE, TS, movie(LINE), fps=0)
    assert plt.get_fignums() == []
