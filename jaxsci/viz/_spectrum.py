"""Shell spectra, on logarithmic axes."""

from collections.abc import Mapping
from typing import Any, SupportsFloat, TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from ..spectral import energy_spectrum, FourierGrid
from ._arrays import PlottableGrid
from ._colors import line_styles
from ._matplotlib import one_axes

if TYPE_CHECKING:
    import matplotlib.axes

_DECADES = 16


def plot_spectrum(
    grid: PlottableGrid,
    spectra: Any,
    *,
    slope: SupportsFloat | None = None,
    slope_range: tuple[SupportsFloat, SupportsFloat] | None = None,
    ylabel: str = "E(k)",
    ax: Any = None,
) -> "matplotlib.axes.Axes":
    """Draw shell spectra over the wave number.

    Empty shells and the mean are left out; at most sixteen decades are in view.

    **Arguments:**

    - `grid`: the grid of the coefficients.
    - `spectra`: Fourier coefficients `(..., *spectral_shape)`, whose leading axes are components
        and whose `energy_spectrum` is drawn; or a pair `(k, E)` of arrays of one shape; or a dict
        of these by name, for a legend.
    - `slope`: draw a reference line proportional to k^slope.
    - `slope_range`: the wave numbers between which it is drawn, by default the middle half, on the
        logarithmic axis, of those shown.
    - `ylabel`: name of the spectrum.
    - `ax`: axes to draw in, by default those of a new figure.

    **Returns:** the axes.

    **Raises:** `ValueError` if shapes do not match.
    """
    named = spectra if isinstance(spectra, Mapping) else {None: spectra}
    if not named:
        raise ValueError("`spectra` is empty.")
    curves = {name: _curve(grid, spectrum) for name, spectrum in named.items()}
    ax = one_axes(ax, figsize=(5, 3.5))
    for (name, (k, e)), style in zip(curves.items(), line_styles()):
        ax.loglog(k, e, label=name, **style)
    if slope is not None:
        _reference_line(ax, list(curves.values()), float(slope), slope_range)
    energies = np.concatenate([e for _, e in curves.values()])
    if energies.size and energies.min() < energies.max() * 10.0**-_DECADES:
        ax.set_ylim(bottom=energies.max() * 10.0**-_DECADES)
    ax.set(xlabel="k", ylabel=ylabel)
    if slope is not None or None not in named:
        ax.legend()
    return ax


def _curve(grid, spectrum):
    """Wave numbers and positive energies."""
    if isinstance(spectrum, tuple | list):
        if len(spectrum) != 2 or np.ndim(spectrum[0]) != 1:
            raise ValueError("A spectrum must be a pair (k, E) of one-dimensional arrays.")
        k, e = (np.asarray(x) for x in spectrum)
        if k.shape != e.shape:
            raise ValueError(
                f"The arrays of a spectrum (k, E) must have one shape, got {k.shape} and {e.shape}."
            )
    else:
        if not isinstance(grid, FourierGrid):
            raise ValueError(
                f"Spectra of coefficients need a `FourierGrid`, got {type(grid).__name__}; give a "
                "pair (k, E)."
            )
        grid.check_spectral(spectrum)
        k, e = (np.asarray(x) for x in energy_spectrum(grid, jnp.asarray(spectrum)))
    shown = (k > 0) & (e > 0)
    return k[shown], e[shown]


def _reference_line(ax, curves, slope, between):
    k, e = (np.concatenate(parts) for parts in zip(*curves))
    if not k.size:
        return
    if between is None:
        low, high = np.log(k.min()), np.log(k.max())
        between = tuple(np.exp([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high]))
    between = tuple(map(float, between))
    inside = (k >= between[0]) & (k <= between[1])
    if not inside.any():
        raise ValueError(
            f"`slope_range` must hold wave numbers of the spectrum, {k.min():.3g} to "
            f"{k.max():.3g}, got {between}."
        )
    # Twice as high as the highest curve, so that it hides none.
    scale = 2 * np.max(e[inside] / k[inside] ** slope)
    ends = np.asarray(between)
    label = f"$k^{{{slope:.3g}}}$"
    ax.loglog(ends, scale * ends**slope, color="0.4", linewidth=1, label=label)
