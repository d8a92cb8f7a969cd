"""The hyper-diffusion equation."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float

from .._base import check_at_least, check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import Grid
from ._equation import parameter
from ._linear import AbstractLinearEquation


class HyperDiffusion(AbstractLinearEquation):
    """Hyper-diffusion equation u_t = -mu lap^2 u, one to three dimensions, each channel by itself.

    Modes decay as exp(-mu |k|^4 t), small scales much faster than by diffusion.
    Invariants: "mean" is conserved; "variance" falls.

    **Arguments:**

    - `grid`: the grid, periodic or with walls.
    - `hyper_diffusivity`: mu >= 0.
    - `channels`: number of fields.
    """

    walls: ClassVar[tuple[str, ...]] = ("sine", "cosine")
    grid: Grid
    hyper_diffusivity: Float[Array, ""]
    num_channels: int = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        hyper_diffusivity: Float[ArrayLike, ""] = 1e-4,
        channels: int = 1,
    ):
        check_nonnegative("hyper_diffusivity", hyper_diffusivity)
        check_at_least("channels", channels, 1)
        self.grid = grid
        self.hyper_diffusivity = parameter(hyper_diffusivity)
        self.num_channels = channels

    def symbol(self):
        """-mu |k|^4."""
        return -self.hyper_diffusivity * self.grid.k2**2


def hyper_diffusion(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.HyperDiffusion`][]."""
    return HyperDiffusion(grid, **parameters).term()
