"""Colours: perceptually uniform maps, and line styles that differ in more than hue."""

import itertools
from typing import Any, NamedTuple, SupportsFloat

import numpy as np

from ._matplotlib import pyplot

SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"

# The colours of Okabe and Ito (2008), told apart with every kind of colour vision.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")


class ColorScale(NamedTuple):
    """Colour map and limits of a picture, as keyword arguments of matplotlib's."""

    cmap: Any
    vmin: float
    vmax: float


def color_scale(
    values: np.ndarray,
    cmap: str | None = None,
    limits: tuple[SupportsFloat, SupportsFloat] | None = None,
    signed: bool | None = None,
) -> ColorScale:
    """Colours for `values`.

    Signed values get a diverging map, symmetric about zero, others a sequential one. Unless
    `signed` says so, values are signed if they lie on both sides of zero and the smaller extreme is
    at least a tenth of the larger. Points without a finite value are grey.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if signed is None:
        signed = low < 0 < high and min(-low, high) >= 0.1 * max(-low, high)
    if limits is not None:
        low, high = map(float, limits)
    elif signed:
        high = max(abs(low), abs(high))
        low = -high
    name = cmap or (DIVERGING if signed else SEQUENTIAL)
    return ColorScale(pyplot().get_cmap(name).with_extremes(bad="0.6"), low, high)


def line_styles() -> Any:
    """Endless keyword arguments for lines: colour and dashes change together."""
    return (
        {"color": color, "linestyle": dashes}
        for color, dashes in zip(itertools.cycle(_COLORS), itertools.cycle(_DASHES))
    )
