"""The protocol of an equation: its linear symbol and its nonlinear function, on a grid."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, PRNGKeyArray

from .._base import real_dtype
from ..integrate import AbstractPropagator, DiagonalPropagator, SemilinearTerm
from ..spectral import (
    AbstractWallGrid,
    FourierGrid,
    Grid,
    truncated_fourier_series,
    truncated_wall_series,
)


class AbstractEquation(eqx.Module):
    """A semilinear equation u_t = L u + N(t, u, args) on a grid.

    The state is an array of Fourier coefficients `(channels, *grid.spectral_shape)`. Physical
    parameters are array leaves, so an equation can be differentiated and vmapped over.

    A class names in `walls` the series of walls, "sine" (value zero) or "cosine" (slope zero), that
    its right-hand side maps to themselves; by default none, which leaves periodic grids. It sets
    `growing` if the linear part can grow: then coefficients that no real field has, which rounding
    leaves in two and three dimensions and the nonlinearity does not see, are removed each step.
    """

    grid: eqx.AbstractVar[Any]
    walls: ClassVar[tuple[str, ...]] = ()
    growing: ClassVar[bool] = False

    def __check_init__(self):
        check_grid(self.grid, self.walls, type(self).__name__)

    @property
    def channels(self) -> int:
        """Number of fields."""
        return 1

    @abc.abstractmethod
    def symbol(self) -> Inexact[Array, "..."]:
        """Diagonal of L in Fourier space, broadcastable to the state."""

    @abc.abstractmethod
    def nonlinear(
        self, t: Float[ArrayLike, ""], uh: Inexact[Array, "..."], args: Any = None
    ) -> Inexact[Array, "..."]:
        """N(t, u, args), from coefficients to coefficients."""

    @abc.abstractmethod
    def invariants(self, uh: Inexact[Array, "..."]) -> dict[str, Float[Array, ""]]:
        """Quantities that are conserved or only fall, by name; see the docstring of the class."""

    def initial(self, key: PRNGKeyArray) -> Float[Array, "..."]:
        """A random initial field `(channels, *grid.shape)` typical of the equation."""
        return random_field(key, self.grid)[None]

    def term(self, *, real_state: bool = False) -> SemilinearTerm:
        """The equation as a diffrax term for states of Fourier coefficients.

        The symbol is evaluated when the term is used, from the parameters it holds. The two parts
        of the term each hold the equation: to differentiate or train, make the term inside the
        differentiated function, with the equation or its parameters as its argument.
        """
        grid = self.grid
        redundant = isinstance(grid, FourierGrid) and grid.real and grid.ndim > 1
        return SemilinearTerm(
            self.linear(),
            self.nonlinear,
            real_state=real_state,
            projection=grid.project_real if self.growing and redundant else None,
        )

    def linear(self) -> AbstractPropagator:
        """L as a propagator: diagonal with entries `symbol()`, unless a class says otherwise."""
        return DiagonalPropagator(self.symbol)

    def residual(
        self,
        t: Float[ArrayLike, ""],
        uh: Inexact[Array, "..."],
        rate: Inexact[Array, "..."],
        args: Any = None,
    ) -> Inexact[Array, "..."]:
        """u_t - L u - N(t, u), from coefficients of u and of u_t."""
        return rate - self.term().vf(jnp.asarray(t), uh, args)


def check_grid(grid: Grid, walls: tuple[str, ...], equation: str) -> None:
    """Raise unless the walls of a grid, if any, are among those that an equation preserves.

    Even derivatives keep any series, odd powers keep sines and all powers keep cosines; odd
    derivatives and even powers (of sines) leave the series.
    """
    if not isinstance(grid, AbstractWallGrid):
        return
    bad = sorted(set(grid.parities) - set(walls))
    if bad:
        allowed = ", ".join(["periodic", *walls])
        raise ValueError(
            f"`grid` of {equation} must be one of {allowed} along every axis, got {bad[0]} on "
            f"{grid}: its right-hand side does not satisfy the same boundary condition."
        )


def random_field(key: PRNGKeyArray, grid: Any, cutoff: int = 5) -> Float[Array, "..."]:
    """A smooth random field of zero mean and unit variance, `grid.shape`."""
    cutoff = min(cutoff, (min(grid.shape) - 1) // 2)
    walls = isinstance(grid, AbstractWallGrid)
    draw = truncated_wall_series if walls else truncated_fourier_series
    return draw(key, grid, cutoff)


def parameter(value: ArrayLike) -> Array:
    """A physical parameter as an array leaf."""
    return jnp.asarray(value, real_dtype(value))


def like(value: Array, uh: Array) -> Array:
    """A parameter in the precision of the state."""
    return value.astype(real_dtype(uh))
