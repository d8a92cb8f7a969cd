import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxsci import viz
from jaxsci.spectral import CosineGrid, FourierGrid, SineGrid

LINE = FourierGrid(16, 4.0)
PLANE = FourierGrid((8, 6), (4.0, 1.5))


def field():
    x, y = PLANE.x
    return x + 10 * y


def test_a_profile_is_the_field_over_the_coordinates():
    u = jnp.sin(2 * jnp.pi * LINE.x[0] / 4.0)
    ax = viz.plot_profile(LINE, u, ylabel="velocity")
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xdata(), 0.25 * np.arange(16))
    np.testing.assert_allclose(line.get_ydata(), u)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "velocity")
    assert ax.get_legend() is None


def test_channels_of_a_profile_differ_in_color_and_dashes_and_are_named():
    ax = viz.plot_profile(LINE, jnp.stack([LINE.x[0], -LINE.x[0]]), labels=("a", "b"))
    a, b = ax.lines
    assert a.get_color() != b.get_color()
    assert a.get_linestyle() != b.get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_an_image_has_x_to_the_right_y_upwards_and_cells_around_the_points():
    ax = viz.plot_field(PLANE, field())
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), np.asarray(field()).T)
    assert image.origin == "lower"
    np.testing.assert_allclose(image.get_extent(), (-0.25, 3.75, -0.125, 1.375))
    assert ax.get_aspect() == 1.0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    assert len(ax.figure.axes) == 2


def test_the_color_bar_can_be_left_out():
    ax = viz.plot_field(PLANE, field(), colorbar=False)
    assert len(ax.figure.axes) == 1


def test_values_of_both_signs_get_symmetric_diverging_colors():
    ax = viz.plot_field(PLANE, field() - 5.0)
    image = ax.images[0]
    largest = float(jnp.max(jnp.abs(field() - 5.0)))
    np.testing.assert_allclose(image.get_clim(), (-largest, largest))
    assert image.get_cmap().name == "RdBu_r"


def test_values_of_one_sign_and_overshoots_get_sequential_colors():
    for u in (field(), field() - 0.1):
        image = viz.plot_field(PLANE, u).images[0]
        np.testing.assert_allclose(image.get_clim(), (float(u.min()), float(u.max())))
        assert image.get_cmap().name == "viridis"


def test_colors_follow_the_arguments():
    image = viz.plot_field(PLANE, field(), signed=True).images[0]
    assert image.get_clim()[0] == -image.get_clim()[1]
    image = viz.plot_field(PLANE, field(), limits=(0.0, 3.0), cmap="magma").images[0]
    assert image.get_clim() == (0.0, 3.0)
    assert image.get_cmap().name == "magma"


def test_channels_stand_in_a_row_with_titles():
    axes = viz.plot_field(PLANE, jnp.stack([field(), -field(), field()]), titles="abc")
    assert axes.shape == (3,)
    assert [ax.get_title() for ax in axes] == ["a", "b", "c"]
    left = [ax.get_subplotspec().colspan.start for ax in axes]
    assert left == [0, 1, 2]
    np.testing.assert_allclose(axes[1].images[0].get_array(), -np.asarray(field()).T)


def test_images_are_drawn_in_the_axes_given():
    figure, axes = plt.subplots(1, 2)
    viz.plot_field(PLANE, field(), ax=axes[1])
    assert [len(ax.images) for ax in axes] == [0, 1]
    viz.plot_field(PLANE, jnp.stack([field(), field()]), ax=axes)
    assert [len(ax.images) for ax in axes] == [1, 2]
    assert plt.get_fignums() == [figure.number]


def test_a_complex_field_is_drawn_by_its_modulus():
    grid = PLANE.with_layout(real=False)
    image = viz.plot_field(grid, field() * jnp.exp(1j * field())).images[0]
    np.testing.assert_allclose(image.get_array(), np.asarray(field()).T, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.int32, jnp.uint8])
def test_any_number_type_is_drawn(dtype):
    viz.plot_field(PLANE, field().astype(dtype)).figure.canvas.draw()


def test_fields_with_nans_are_drawn_with_the_colors_of_the_rest():
    u = np.array(field())
    u[2, 3] = np.nan
    image = viz.plot_field(PLANE, u).images[0]
    np.testing.assert_allclose(image.get_clim(), (np.nanmin(u), np.nanmax(u)))
    viz.plot_field(PLANE, np.full((8, 6), np.nan)).figure.canvas.draw()


@pytest.mark.bad_input
def test_bad_fields_are_named_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(8, 6\).*got \(6, 8\)"):
        viz.plot_field(PLANE, jnp.zeros((6, 8)))
    with pytest.raises(ValueError, match=r"\(16,\).*got \(15,\)"):
        viz.plot_profile(LINE, jnp.zeros(15))
    with pytest.raises(ValueError, match="`plot_field` needs a grid of 2"):
        viz.plot_field(LINE, jnp.zeros(16))
    with pytest.raises(ValueError, match="`plot_profile` needs a grid of 1"):
        viz.plot_profile(PLANE, field())
    with pytest.raises(ValueError, match="`titles` must have one entry a channel"):
        viz.plot_field(PLANE, field(), titles=("a", "b"))
    with pytest.raises(ValueError, match="`ax` must be 2 axes"):
        viz.plot_field(PLANE, jnp.stack([field(), field()]), ax=plt.subplots()[1])


@pytest.mark.parametrize("kind", [SineGrid, CosineGrid])
def test_grids_with_walls_are_drawn_at_their_own_points(kind):
    grid = kind((8, 6), (4.0, 1.5))
    x, y = grid.coordinates()
    image = viz.plot_field(grid, x + 10 * y).images[0]
    left, right, bottom, top = image.get_extent()
    dx, dy = (right - left) / 8, (top - bottom) / 6
    np.testing.assert_allclose(left + dx / 2 + dx * np.arange(8), x[:, 0])
    np.testing.assert_allclose(bottom + dy / 2 + dy * np.arange(6), y[0])
