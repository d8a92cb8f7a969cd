"""Sobolev norms, exact by Parseval's identity."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._base import real_dtype
from ._grid import FourierGrid


def sobolev_norm(
    grid: FourierGrid,
    uh: Complex[Array, "..."],
    order: float,
    *,
    homogeneous: bool = False,
) -> Float[Array, ""]:
    """Norm of the Sobolev space H^order, any real order, from Fourier coefficients.

    The square is the sum over modes and components of (1 + |k|^2)^order |c_k|^2 with
    c_k = uh_k / num_points; order 0 is `grid.norm`. It is an average over the box: multiply by
    sqrt(grid.volume) for the norm defined by an integral.

    **Arguments:**

    - `grid`: the grid.
    - `uh`: coefficients, `(..., *spectral_shape)`; leading axes are components.
    - `order`: order of the space; negative orders measure coarser features.
    - `homogeneous`: use the weight |k|^(2 order) and leave the mean out.
    """
    k2 = grid.squared_wavenumber(uh)
    if homogeneous:
        weight = jnp.where(k2 == 0, 0, jnp.where(k2 == 0, 1, k2) ** (order / 2))
    else:
        weight = (1 + k2) ** (order / 2)
    return grid.norm(uh * weight.astype(real_dtype(uh)))
