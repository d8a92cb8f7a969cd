"""Linear equations: heat, advection-diffusion."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_finite, check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid
from ._equation import AbstractEquation, parameter


class Heat(AbstractEquation):
    """Heat equation u_t = nu lap u, in one to three dimensions, for any number of channels.

    Invariants: "mean" is conserved; "variance" falls.

    **Arguments:**

    - `grid`: the grid.
    - `diffusivity`: nu >= 0.
    """

    grid: FourierGrid
    diffusivity: Float[Array, ""]

    def __init__(self, grid: FourierGrid, diffusivity: Float[ArrayLike, ""] = 0.01):
        check_nonnegative("diffusivity", diffusivity)
        self.grid = grid
        self.diffusivity = parameter(diffusivity)

    def symbol(self):
        """-nu |k|^2."""
        return -self.diffusivity * self.grid.k2

    def nonlinear(self, t, uh, args=None):
        """Zero."""
        return jnp.zeros_like(uh)

    def invariants(self, uh):
        """Mean and variance."""
        return mean_and_variance(self.grid, uh)


class AdvectionDiffusion(AbstractEquation):
    """Advection-diffusion u_t + c . grad u = nu lap u, for any number of channels.

    Invariants: "mean" is conserved; "variance" is conserved for nu = 0 and falls else.

    **Arguments:**

    - `grid`: the grid.
    - `velocity`: c, shape `(grid.ndim,)`; a number in one dimension.
    - `diffusivity`: nu >= 0.
    """

    grid: FourierGrid
    velocity: Float[Array, " ndim"]
    diffusivity: Float[Array, ""]

    def __init__(
        self,
        grid: FourierGrid,
        velocity: Float[ArrayLike, "..."] = 1.0,
        diffusivity: Float[ArrayLike, ""] = 0.0,
    ):
        check_finite("velocity", velocity)
        check_nonnegative("diffusivity", diffusivity)
        shape = jnp.shape(velocity)
        if shape not in ((), (grid.ndim,)):
            raise ValueError(f"`velocity` must have shape ({grid.ndim},) on {grid}, got {shape}.")
        self.grid = grid
        self.velocity = jnp.broadcast_to(parameter(velocity), (grid.ndim,))
        self.diffusivity = parameter(diffusivity)

    def symbol(self):
        """-i c . k - nu |k|^2."""
        k = self.grid.derivative_wavenumbers()
        advection = sum(c * ki for c, ki in zip(self.velocity, k))
        return -1j * advection - self.diffusivity * self.grid.k2

    def nonlinear(self, t, uh, args=None):
        """Zero."""
        return jnp.zeros_like(uh)

    def invariants(self, uh):
        """Mean and variance."""
        return mean_and_variance(self.grid, uh)


def mean_and_variance(grid, uh):
    """Mean over the box and channels, and mean square deviation from it."""
    mean = jnp.mean(grid.mean(uh))
    fields = uh.size // uh[(0,) * (uh.ndim - grid.ndim)].size
    return {"mean": mean, "variance": grid.inner(uh, uh) / fields - mean**2}


def heat(grid: FourierGrid, **parameters: ArrayLike) -> SemilinearTerm:
    """Term of [`jaxsci.pde.Heat`][]."""
    return Heat(grid, **parameters).term()


def advection_diffusion(grid: FourierGrid, **parameters: ArrayLike) -> SemilinearTerm:
    """Term of [`jaxsci.pde.AdvectionDiffusion`][]."""
    return AdvectionDiffusion(grid, **parameters).term()
