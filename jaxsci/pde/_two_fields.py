"""What the equations of two coupled fields share."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, PRNGKeyArray

from ..spectral import AbstractWallGrid, Grid
from ._equation import random_field


def two_fields(grid: Grid, u: Inexact[Array, "..."]) -> tuple[Array, Array]:
    """The two channels of a state, in Fourier or in physical space."""
    axis = u.ndim - grid.ndim - 1
    return jnp.take(u, 0, axis), jnp.take(u, 1, axis)


def stack_fields(grid: Grid, u: Inexact[Array, "..."], v: Inexact[Array, "..."]) -> Array:
    """The state of two channels."""
    return jnp.stack([u, v], axis=u.ndim - grid.ndim)


def second_order_blocks(stiffness: Float[Array, "..."]) -> Float[Array, "..."]:
    """Blocks of u_t = v, v_t = stiffness u."""
    zero, one = jnp.zeros_like(stiffness), jnp.ones_like(stiffness)
    return jnp.stack([jnp.stack([zero, one]), jnp.stack([stiffness, zero])])


def diagonal(
    grid: Grid,
    diffusivities: tuple[Float[Array, ""], Float[Array, ""]],
    rates: tuple[Float[ArrayLike, ""], Float[ArrayLike, ""]],
) -> Float[Array, "..."]:
    """Symbols rate - diffusivity |k|^2 of the two channels."""
    return jnp.stack([r - d * grid.k2 for d, r in zip(diffusivities, rates)])


def constant_field(grid: Grid, uh: Inexact[Array, "..."], value: Float[Array, ""]) -> Array:
    """Coefficients of a constant, shaped as one channel of the state `uh`."""
    channel, _ = two_fields(grid, uh)
    scale = grid.num_points * (2**grid.ndim if isinstance(grid, AbstractWallGrid) else 1)
    return jnp.zeros_like(channel).at[(..., *(0,) * grid.ndim)].set(value * scale)


def at_rest(key: PRNGKeyArray, grid: Grid) -> Float[Array, "..."]:
    """A random u, and v = 0."""
    u = random_field(key, grid)
    return jnp.stack([u, jnp.zeros_like(u)])


def random_pair(key: PRNGKeyArray, grid: Grid) -> Float[Array, "..."]:
    """Two independent smooth random fields of zero mean and unit variance."""
    return jax.vmap(lambda k: random_field(k, grid, 3))(jax.random.split(key))
