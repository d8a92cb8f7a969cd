"""The hyper-diffusion equation."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_at_least, check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid
from ._equation import AbstractEquation, parameter
from ._linear import mean_and_variance, random_fields


class HyperDiffusion(AbstractEquation):
    """Hyper-diffusion equation u_t = -mu lap^2 u, one to three dimensions, each channel by itself.

    Modes decay as exp(-mu |k|^4 t), small scales much faster than by diffusion.
    Invariants: "mean" is conserved; "variance" falls.

    **Arguments:**

    - `grid`: the grid.
    - `hyper_diffusivity`: mu >= 0.
    - `channels`: number of fields.
    """

    grid: FourierGrid
    hyper_diffusivity: Float[Array, ""]
    num_channels: int = eqx.field(static=True)

    def __init__(
        self,
        grid: FourierGrid,
        hyper_diffusivity: Float[ArrayLike, ""] = 1e-4,
        channels: int = 1,
    ):
        check_nonnegative("hyper_diffusivity", hyper_diffusivity)
        check_at_least("channels", channels, 1)
        self.grid = grid
        self.hyper_diffusivity = parameter(hyper_diffusivity)
        self.num_channels = channels

    @property
    def channels(self):
        """Number of fields."""
        return self.num_channels

    def symbol(self):
        """-mu |k|^4."""
        return -self.hyper_diffusivity * self.grid.k2**2

    def nonlinear(self, t, uh, args=None):
        """Zero."""
        return jnp.zeros_like(uh)

    def invariants(self, uh):
        """Mean and variance."""
        return mean_and_variance(self.grid, uh)

    def initial(self, key):
        """Independent random Fourier series."""
        return random_fields(key, self.grid, self.num_channels)


def hyper_diffusion(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.HyperDiffusion`][]."""
    return HyperDiffusion(grid, **parameters).term()
