"""The dispersion equation."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_at_least, check_choice
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid
from ._linear import AbstractLinearEquation, vector_parameter


class Dispersion(AbstractLinearEquation):
    """Dispersion equation u_t = xi u_xxx, one to three dimensions, each channel by itself.

    In more dimensions, "separable" is u_t = sum_i xi_i d_i^3 u and "laplacian" is
    u_t = (xi . grad) lap u. In one dimension they are the same, and the wave sin(k x) moves to the
    right at speed xi k^2.
    Invariants: "mean" and "variance" are conserved.

    **Arguments:**

    - `grid`: the grid.
    - `dispersivity`: xi, shape `(grid.ndim,)`, or a number for all axes.
    - `form`: "separable" or "laplacian".
    - `channels`: number of fields.
    """

    grid: FourierGrid
    dispersivity: Float[Array, " ndim"]
    form: str = eqx.field(static=True)
    num_channels: int = eqx.field(static=True)

    def __init__(
        self,
        grid: FourierGrid,
        dispersivity: Float[ArrayLike, "..."] = 0.01,
        form: str = "separable",
        channels: int = 1,
    ):
        check_choice("form", form, ("separable", "laplacian"))
        check_at_least("channels", channels, 1)
        self.grid = grid
        self.dispersivity = vector_parameter(grid, "dispersivity", dispersivity)
        self.form = form
        self.num_channels = channels

    def symbol(self):
        """-i sum_i xi_i k_i^3, or -i (xi . k) |k|^2."""
        k = self.grid.derivative_wavenumbers()
        if self.form == "separable":
            rate = sum(c * ki**3 for c, ki in zip(self.dispersivity, k))
        else:
            rate = sum(c * ki for c, ki in zip(self.dispersivity, k)) * self.grid.k2
        return -1j * jnp.asarray(rate)


def dispersion(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.Dispersion`][]."""
    return Dispersion(grid, **parameters).term()
