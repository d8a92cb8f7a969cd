"""The Kuramoto-Sivashinsky equation."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_choice, check_finite
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid
from ._equation import AbstractEquation, like, parameter


class KuramotoSivashinsky(AbstractEquation):
    """Kuramoto-Sivashinsky equation, chaotic on boxes much longer than 2 pi.

    "conservative", one dimension: u_t + a (u^2/2)_x + u_xx + u_xxxx = 0, conserves "mean".
    "gradient", one to three dimensions: u_t + a |grad u|^2/2 + lap u + lap^2 u = 0, the integral of
    the former; its mean falls for a > 0.

    **Arguments:**

    - `grid`: the grid.
    - `convection`: a.
    - `form`: by default conservative in one dimension, gradient in more.
    """

    growing: ClassVar[bool] = True
    grid: FourierGrid
    convection: Float[Array, ""]
    form: str

    def __init__(
        self,
        grid: FourierGrid,
        convection: Float[ArrayLike, ""] = 1.0,
        form: str | None = None,
    ):
        check_finite("convection", convection)
        form = form or ("conservative" if grid.ndim == 1 else "gradient")
        check_choice("form", form, ("conservative", "gradient"))
        if form == "conservative" and grid.ndim > 1:
            raise ValueError("`form` must be 'gradient' in more than one dimension.")
        self.grid = grid
        self.convection = parameter(convection)
        self.form = form

    def symbol(self):
        """|k|^2 - |k|^4."""
        k2 = self.grid.k2
        return k2 - k2**2

    def nonlinear(self, t, uh, args=None):
        """-a (u^2/2)_x or -a |grad u|^2/2."""
        grid = self.grid
        a = like(self.convection, uh)
        uh = grid.dealias(uh)
        k = grid.derivative_wavenumbers(uh)
        if self.form == "conservative":
            return grid.dealias(-0.5j * a * k[0] * grid.fft(grid.ifft(uh) ** 2))
        slopes = grid.ifft(jnp.stack([1j * ki * uh for ki in k]))
        return grid.dealias(-0.5 * a * grid.fft(jnp.sum(slopes**2, axis=0)))

    def invariants(self, uh):
        """Mean."""
        return {"mean": jnp.mean(self.grid.mean(uh))}


def kuramoto_sivashinsky(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.KuramotoSivashinsky`][]."""
    return KuramotoSivashinsky(grid, **parameters).term()
