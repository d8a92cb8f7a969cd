"""The Allen-Cahn equation."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import Grid
from ._equation import AbstractEquation, like, parameter


class AllenCahn(AbstractEquation):
    """Allen-Cahn equation u_t = nu lap u + r (u - u^3), one to three dimensions.

    The gradient flow of the "free_energy" <nu |grad u|^2/2 + r (u^2 - 1)^2/4>, which falls. Fronts
    have width sqrt(2 nu/r): u = tanh(x sqrt(r/(2 nu))) is stationary. Nothing is conserved.

    **Arguments:**

    - `grid`: the grid, periodic or with walls (a cube keeps sine and cosine series).
    - `diffusivity`: nu >= 0.
    - `rate`: r >= 0.
    """

    growing: ClassVar[bool] = True
    walls: ClassVar[tuple[str, ...]] = ("sine", "cosine")
    grid: Grid
    diffusivity: Float[Array, ""]
    rate: Float[Array, ""]

    def __init__(
        self,
        grid: Grid,
        diffusivity: Float[ArrayLike, ""] = 0.01,
        rate: Float[ArrayLike, ""] = 1.0,
    ):
        check_nonnegative("diffusivity", diffusivity)
        check_nonnegative("rate", rate)
        self.grid = grid
        self.diffusivity = parameter(diffusivity)
        self.rate = parameter(rate)

    def symbol(self):
        """r - nu |k|^2."""
        return self.rate - self.diffusivity * self.grid.k2

    def nonlinear(self, t, uh, args=None):
        """-r u^3."""
        grid = self.grid
        cube = grid.fft(grid.ifft(grid.dealias(uh, order=3)) ** 3)
        return grid.dealias(-like(self.rate, uh) * cube, order=3)

    def invariants(self, uh):
        """Free energy."""
        grid = self.grid
        u = grid.ifft(uh)
        gradient = -grid.inner(uh, grid.lap(uh))
        well = jnp.mean((u**2 - 1) ** 2)
        nu, rate = like(self.diffusivity, uh), like(self.rate, uh)
        return {"free_energy": nu * gradient / 2 + rate * well / 4}


def allen_cahn(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.AllenCahn`][]."""
    return AllenCahn(grid, **parameters).term()
