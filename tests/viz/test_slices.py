import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxsci import viz
from jaxsci.spectral import FourierGrid

BOX = FourierGrid((4, 6, 8), (1.0, 3.0, 2.0))


def field():
    x, y, z = BOX.x
    return x + 10 * y + 100 * z


def test_three_slices_pass_through_the_point_asked_for():
    axes = viz.plot_slices(BOX, field(), at=(0.26, 1.0, 0.7))
    x, y, z = 0.25, 1.0, 0.75
    xs, ys, zs = 0.25 * np.arange(4), 0.5 * np.arange(6), 0.25 * np.arange(8)
    want = (
        xs[None, :] + 10 * ys[:, None] + 100 * z,
        xs[None, :] + 10 * y + 100 * zs[:, None],
        x + 10 * ys[None, :] + 100 * zs[:, None],
    )
    for ax, values in zip(axes, want):
        np.testing.assert_allclose(ax.images[0].get_array(), values)
    assert [ax.get_title() for ax in axes] == ["z = 0.75", "y = 1", "x = 0.25"]
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes]
    assert labels == [("x", "y"), ("x", "z"), ("y", "z")]


def test_slices_share_the_color_scale_of_the_whole_field():
    axes = viz.plot_slices(BOX, field()[None])
    u = np.asarray(field())
    for ax in axes:
        np.testing.assert_allclose(ax.images[0].get_clim(), (u.min(), u.max()))
    assert len(axes[0].figure.axes) == 4


def test_slices_pass_through_the_middle_by_default():
    axes = viz.plot_slices(BOX, field(), colorbar=False)
    assert [ax.get_title() for ax in axes] == ["z = 1", "y = 1.5", "x = 0.5"]


def test_slices_are_drawn_in_the_axes_given():
    _, axes = plt.subplots(1, 3)
    viz.plot_slices(BOX, field(), ax=axes)
    assert [len(ax.images) for ax in axes] == [1, 1, 1]


@pytest.mark.bad_input
def test_bad_slices_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 6, 8\).*got \(4, 6, 7\)"):
        viz.plot_slices(BOX, jnp.zeros((4, 6, 7)))
    with pytest.raises(ValueError, match=r"channels of \(2, 4, 6, 8\)"):
        viz.plot_slices(BOX, jnp.stack([field(), field()]))
    with pytest.raises(ValueError, match="`at` must be in the box: y in"):
        viz.plot_slices(BOX, field(), at=(0.0, 5.0, 0.0))
    with pytest.raises(ValueError, match="`at` must have 3 coordinates"):
        viz.plot_slices(BOX, field(), at=(0.0, 5.0))
    with pytest.raises(ValueError, match="needs a grid of 3"):
        viz.plot_slices(FourierGrid(8, 1.0), jnp.zeros(8))
