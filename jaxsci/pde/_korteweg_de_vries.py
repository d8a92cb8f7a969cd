"""The Korteweg-de Vries equation."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from .._base import check_finite, check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid
from ._equation import AbstractEquation, like, parameter


class KortewegDeVries(AbstractEquation):
    """Korteweg-de Vries equation u_t + a u u_x + b u_xxx = nu u_xx, one dimension.

    L is imaginary. For nu = 0 the soliton u = (3 c/a) sech^2(sqrt(c/(4 b)) (x - c t)) travels
    unchanged, and all invariants are conserved: "mean", "momentum" <u^2>/2 and "energy"
    <b u_x^2/2 - a u^3/6>.

    **Arguments:**

    - `grid`: one-dimensional grid.
    - `convection`: a.
    - `dispersion`: b.
    - `viscosity`: nu >= 0.
    """

    grid: FourierGrid
    convection: Float[Array, ""]
    dispersion: Float[Array, ""]
    viscosity: Float[Array, ""]

    def __init__(
        self,
        grid: FourierGrid,
        convection: Float[ArrayLike, ""] = 6.0,
        dispersion: Float[ArrayLike, ""] = 1.0,
        viscosity: Float[ArrayLike, ""] = 0.0,
    ):
        check_finite("convection", convection)
        check_finite("dispersion", dispersion)
        check_nonnegative("viscosity", viscosity)
        if grid.ndim != 1:
            raise ValueError(f"`grid` must have one dimension, got {grid}.")
        self.grid = grid
        self.convection = parameter(convection)
        self.dispersion = parameter(dispersion)
        self.viscosity = parameter(viscosity)

    def symbol(self) -> Complex[Array, "..."]:
        """i b k^3 - nu k^2."""
        (k,) = self.grid.derivative_wavenumbers()
        return 1j * self.dispersion * k**3 - self.viscosity * self.grid.k2

    def nonlinear(self, t, uh, args=None):
        """-a (u^2/2)_x."""
        grid = self.grid
        (k,) = grid.derivative_wavenumbers(uh)
        square = grid.fft(grid.ifft(grid.dealias(uh)) ** 2)
        return grid.dealias(-0.5j * like(self.convection, uh) * k * square)

    def invariants(self, uh):
        """Mean, momentum and energy."""
        grid = self.grid
        slope = grid.derivative(uh, 0)
        cubic = jnp.mean(grid.ifft(uh) ** 3)
        a, b = like(self.convection, uh), like(self.dispersion, uh)
        return {
            "mean": jnp.mean(grid.mean(uh)),
            "momentum": grid.inner(uh, uh) / 2,
            "energy": b * grid.inner(slope, slope) / 2 - a * cubic / 6,
        }


def korteweg_de_vries(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.KortewegDeVries`][]."""
    return KortewegDeVries(grid, **parameters).term()
