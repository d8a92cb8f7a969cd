import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import viz
from jaxsci.spectral import CosineGrid, FourierGrid

PLANE = FourierGrid((16, 16), (2 * np.pi, 2 * np.pi))


def test_the_spectrum_of_two_modes_is_two_points():
    x, y = PLANE.x
    u = jnp.stack([2 * jnp.cos(3 * x), 3 + jnp.sin(5 * y)])
    ax = viz.plot_spectrum(PLANE, PLANE.fft(u))
    k, e = ax.lines[0].get_data()
    large = e > 1e-20
    np.testing.assert_allclose(k[large], [3, 5])
    np.testing.assert_allclose(e[large], [1.0, 0.25])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("k", "E(k)")
    bottom, top = ax.get_ylim()
    assert top / bottom < 1e18


def test_named_spectra_have_a_legend_and_the_reference_its_slope():
    k = jnp.arange(0.0, 20.0)
    e = jnp.where(k > 0, k, 1.0) ** -3
    ax = viz.plot_spectrum(PLANE, {"a": (k, e), "b": (k, 2 * e)}, slope=-3, slope_range=(2, 10))
    a, b, reference = ax.lines
    np.testing.assert_allclose(a.get_xdata(), np.arange(1, 20))
    np.testing.assert_allclose(b.get_ydata(), 2 * a.get_ydata())
    np.testing.assert_allclose(reference.get_xdata(), (2, 10))
    np.testing.assert_allclose(reference.get_ydata(), 4 * np.array([2.0, 10.0]) ** -3)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["a", "b", "$k^{-3}$"]
    ax.figure.canvas.draw()


def test_a_reference_without_a_range_spans_the_middle_of_the_axis():
    k = jnp.arange(1.0, 82.0)
    ax = viz.plot_spectrum(PLANE, (k, k**-2), slope=-5 / 3)
    np.testing.assert_allclose(ax.lines[1].get_xdata(), (3.0, 27.0))


@pytest.mark.bad_input
def test_bad_spectra_are_refused():
    k = jnp.arange(5.0)
    with pytest.raises(ValueError, match=r"one shape, got \(5,\) and \(4,\)"):
        viz.plot_spectrum(PLANE, (k, k[1:]))
    with pytest.raises(ValueError, match="must be a pair"):
        viz.plot_spectrum(PLANE, (k, k, k))
    with pytest.raises(ValueError, match="empty"):
        viz.plot_spectrum(PLANE, {})
    with pytest.raises(ValueError, match="`slope_range` must hold wave numbers"):
        viz.plot_spectrum(PLANE, (k, k), slope=1, slope_range=(100, 200))
    with pytest.raises(ValueError, match=r"(?s)\(16, 9\).*\(16, 8\)"):
        viz.plot_spectrum(PLANE, jnp.zeros((16, 8), complex))
    with pytest.raises(TypeError, match="transform a field"):
        viz.plot_spectrum(PLANE, jnp.zeros((16, 16)))
    walls = CosineGrid((8, 8), (1.0, 1.0))
    with pytest.raises(ValueError, match="need a `FourierGrid`, got CosineGrid"):
        viz.plot_spectrum(walls, jnp.zeros((8, 8)))
