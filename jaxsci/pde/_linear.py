"""Linear equations: heat, advection-diffusion."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, PRNGKeyArray

from .._base import check_at_least, check_finite, check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid, Grid
from ._equation import AbstractEquation, parameter, random_field


class AbstractLinearEquation(AbstractEquation):
    """A linear equation of `num_channels` fields, each by itself."""

    num_channels: eqx.AbstractVar[int]

    @property
    def channels(self) -> int:
        """Number of fields."""
        return self.num_channels

    def nonlinear(self, t, uh, args=None):
        """Zero."""
        return jnp.zeros_like(uh)

    def invariants(self, uh):
        """Mean and variance."""
        return mean_and_variance(self.grid, uh)

    def initial(self, key):
        """Independent random Fourier series."""
        return random_fields(key, self.grid, self.num_channels)


class Heat(AbstractLinearEquation):
    """Heat equation u_t = nu lap u, in one to three dimensions, for each channel by itself.

    Invariants: "mean" is conserved; "variance" falls.

    **Arguments:**

    - `grid`: the grid, periodic or with walls.
    - `diffusivity`: nu >= 0.
    - `channels`: number of fields.
    """

    walls: ClassVar[tuple[str, ...]] = ("sine", "cosine")
    grid: Grid
    diffusivity: Float[Array, ""]
    num_channels: int = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        diffusivity: Float[ArrayLike, ""] = 0.01,
        channels: int = 1,
    ):
        check_nonnegative("diffusivity", diffusivity)
        check_at_least("channels", channels, 1)
        self.grid = grid
        self.diffusivity = parameter(diffusivity)
        self.num_channels = channels

    def symbol(self):
        """-nu |k|^2."""
        return -self.diffusivity * self.grid.k2


class AdvectionDiffusion(AbstractLinearEquation):
    """Advection-diffusion u_t + c . grad u = nu lap u, for each channel by itself.

    Invariants: "mean" is conserved; "variance" is conserved for nu = 0 and falls else.

    **Arguments:**

    - `grid`: the grid.
    - `velocity`: c, shape `(grid.ndim,)`; a number in one dimension.
    - `diffusivity`: nu >= 0.
    - `channels`: number of fields.
    """

    grid: FourierGrid
    velocity: Float[Array, " ndim"]
    diffusivity: Float[Array, ""]
    num_channels: int = eqx.field(static=True)

    def __init__(
        self,
        grid: FourierGrid,
        velocity: Float[ArrayLike, "..."] = 1.0,
        diffusivity: Float[ArrayLike, ""] = 0.0,
        channels: int = 1,
    ):
        check_nonnegative("diffusivity", diffusivity)
        check_at_least("channels", channels, 1)
        self.grid = grid
        self.velocity = vector_parameter(grid, "velocity", velocity)
        self.diffusivity = parameter(diffusivity)
        self.num_channels = channels

    def symbol(self):
        """-i c . k - nu |k|^2."""
        k = self.grid.derivative_wavenumbers()
        advection = sum(c * ki for c, ki in zip(self.velocity, k))
        return -1j * advection - self.diffusivity * self.grid.k2


def vector_parameter(grid: FourierGrid, name: str, value: Float[ArrayLike, "..."]) -> Array:
    """A parameter with one entry a dimension, from that or from a number for all."""
    check_finite(name, value)
    shape = jnp.shape(value)
    if shape not in ((), (grid.ndim,)):
        raise ValueError(f"`{name}` must have shape ({grid.ndim},) on {grid}, got {shape}.")
    return jnp.broadcast_to(parameter(value), (grid.ndim,))


def random_fields(key: PRNGKeyArray, grid: Grid, channels: int) -> Float[Array, "..."]:
    """Independent smooth random fields `(channels, *grid.shape)`."""
    return jax.vmap(lambda k: random_field(k, grid))(jax.random.split(key, channels))


def mean_and_variance(grid: Grid, uh: Inexact[Array, "..."]) -> dict[str, Float[Array, ""]]:
    """Mean over the box and channels, and mean square deviation from it."""
    mean = jnp.mean(grid.mean(uh))
    fields = uh.size // uh[(0,) * (uh.ndim - grid.ndim)].size
    return {"mean": mean, "variance": grid.inner(uh, uh) / fields - mean**2}


def heat(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.Heat`][]."""
    return Heat(grid, **parameters).term()


def advection_diffusion(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.AdvectionDiffusion`][]."""
    return AdvectionDiffusion(grid, **parameters).term()
