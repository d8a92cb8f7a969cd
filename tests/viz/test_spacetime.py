import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxsci import viz
from jaxsci.spectral import FourierGrid

LINE = FourierGrid(8, 4.0)
TS = jnp.array([0.0, 1.0, 3.0])
YS = TS[:, None] + 10 * LINE.x[0]


def test_time_is_horizontal_and_cells_surround_times_and_points():
    ax = viz.plot_spacetime(LINE, TS, YS)
    (mesh,) = ax.collections
    t, x = np.moveaxis(mesh.get_coordinates(), -1, 0)
    np.testing.assert_allclose(t[0], [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(x[:, 0], 0.5 * np.arange(9) - 0.25)
    np.testing.assert_allclose(mesh.get_array().reshape(8, 3), np.asarray(YS).T)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "x")


def test_a_channel_axis_of_one_is_accepted():
    ax = viz.plot_spacetime(LINE, TS, YS[:, None], colorbar=False)
    np.testing.assert_allclose(ax.collections[0].get_array().reshape(8, 3), np.asarray(YS).T)


def test_colors_are_shared_with_the_field_pictures():
    mesh = viz.plot_spacetime(LINE, TS, YS - 15.0).collections[0]
    assert mesh.get_cmap().name == "RdBu_r"
    assert mesh.get_clim()[0] == -mesh.get_clim()[1]
    assert viz.plot_spacetime(LINE, TS, YS, limits=(0, 1)).collections[0].get_clim() == (0, 1)


def test_the_picture_is_drawn_in_the_axes_given():
    _, ax = plt.subplots()
    assert viz.plot_spacetime(LINE, TS, YS, ax=ax) is ax


@pytest.mark.bad_input
def test_bad_trajectories_are_refused():
    with pytest.raises(ValueError, match=r"3 times on a grid of shape \(8,\), got \(8, 3\)"):
        viz.plot_spacetime(LINE, TS, YS.T)
    with pytest.raises(ValueError, match="increasing times"):
        viz.plot_spacetime(LINE, TS[::-1], YS)
    with pytest.raises(ValueError, match=r"channels of \(3, 2, 8\)"):
        viz.plot_spacetime(LINE, TS, jnp.stack([YS, YS], axis=1))
    with pytest.raises(ValueError, match="see `animate`"):
        viz.plot_spacetime(FourierGrid((8, 8), (1.0, 1.0)), TS, jnp.zeros((3, 8, 8)))
