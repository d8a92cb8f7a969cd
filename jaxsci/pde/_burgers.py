"""Burgers' equation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_choice, check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid, truncated_fourier_series
from ._equation import AbstractEquation, parameter


class Burgers(AbstractEquation):
    """Viscous Burgers equation u_t + (u . grad) u = nu lap u for `grid.ndim` velocity components.

    In one dimension the conservative form u_t + (u^2/2)_x = nu u_xx is the same equation.
    Invariants: in one dimension "mean" is conserved and "energy" falls.

    **Arguments:**

    - `grid`: the grid; shocks of width nu/|u| must be resolved.
    - `viscosity`: nu >= 0.
    - `form`: "conservative" differentiates the square (one dimension only), "advective" multiplies
        by the gradient. By default conservative in one dimension, advective in more.
    """

    grid: FourierGrid
    viscosity: Float[Array, ""]
    form: str = eqx.field(static=True)

    def __init__(
        self,
        grid: FourierGrid,
        viscosity: Float[ArrayLike, ""] = 0.01,
        form: str | None = None,
    ):
        check_nonnegative("viscosity", viscosity)
        form = form or ("conservative" if grid.ndim == 1 else "advective")
        check_choice("form", form, ("conservative", "advective"))
        if form == "conservative" and grid.ndim > 1:
            raise ValueError(
                "`form` must be 'advective' in more than one dimension, where the velocity of "
                "Burgers' equation is not solenoidal, got 'conservative'."
            )
        self.grid = grid
        self.viscosity = parameter(viscosity)
        self.form = form

    @property
    def channels(self):
        """One velocity component a dimension."""
        return self.grid.ndim

    def symbol(self):
        """-nu |k|^2."""
        return -self.viscosity * self.grid.k2

    def nonlinear(self, t, uh, args=None):
        """-(u . grad) u."""
        grid = self.grid
        uh = grid.dealias(uh)
        k = grid.derivative_wavenumbers(uh)
        if self.form == "conservative":
            return grid.dealias(-0.5j * k[0] * grid.fft(grid.ifft(uh) ** 2))
        u = grid.components(grid.ifft(uh))
        advection = jnp.zeros_like(grid.ifft(uh))
        for ui, ki in zip(u, k):
            advection += jnp.expand_dims(ui, -grid.ndim - 1) * grid.ifft(1j * ki * uh)
        return -grid.dealias(grid.fft(advection))

    def invariants(self, uh):
        """Mean of the first component and energy."""
        # In one dimension the only component may come without its axis.
        first = uh if uh.ndim == 1 else self.grid.components(uh)[0]
        return {
            "mean": self.grid.mean(first),
            "energy": self.grid.inner(uh, uh) / 2,
        }

    def initial(self, key):
        """Random Fourier series."""
        keys = jax.random.split(key, self.channels)
        return jax.vmap(lambda k: truncated_fourier_series(k, self.grid, 3))(keys)


def burgers(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.Burgers`][]."""
    return Burgers(grid, **parameters).term()
