"""The Gray-Scott model."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import gaussian_blobs, Grid
from ._equation import AbstractEquation, like, parameter
from ._two_fields import constant_field, diagonal, stack_fields, two_fields


class GrayScott(AbstractEquation):
    """Gray-Scott model of an autocatalytic reaction u + 2 v -> 3 v in a fed reactor.

        u_t = D_u lap u - u v^2 + F (1 - u)
        v_t = D_v lap v + u v^2 - (F + K) v

    One to three dimensions. On a box of length 2.5 with the default diffusivities, feed rates of
    0.01 to 0.08 and kill rates of 0.045 to 0.07 give spots that divide, stripes, mazes and waves;
    u = 1, v = 0 is always stable. Nothing is conserved. Pearson 1993, Science 261, 189.

    **Arguments:**

    - `grid`: the grid, periodic or with the walls of a `CosineGrid`.
    - `diffusivity_u`, `diffusivity_v`: D_u, D_v >= 0.
    - `feed`: F >= 0.
    - `kill`: K >= 0.
    """

    walls: ClassVar[tuple[str, ...]] = ("cosine",)
    grid: Grid
    diffusivity_u: Float[Array, ""]
    diffusivity_v: Float[Array, ""]
    feed: Float[Array, ""]
    kill: Float[Array, ""]

    def __init__(
        self,
        grid: Grid,
        diffusivity_u: Float[ArrayLike, ""] = 2e-5,
        diffusivity_v: Float[ArrayLike, ""] = 1e-5,
        feed: Float[ArrayLike, ""] = 0.04,
        kill: Float[ArrayLike, ""] = 0.06,
    ):
        check_nonnegative("diffusivity_u", diffusivity_u)
        check_nonnegative("diffusivity_v", diffusivity_v)
        check_nonnegative("feed", feed)
        check_nonnegative("kill", kill)
        self.grid = grid
        self.diffusivity_u = parameter(diffusivity_u)
        self.diffusivity_v = parameter(diffusivity_v)
        self.feed = parameter(feed)
        self.kill = parameter(kill)

    @property
    def channels(self):
        """u and v."""
        return 2

    def symbol(self):
        """-D_u |k|^2 - F and -D_v |k|^2 - F - K."""
        diffusivities = self.diffusivity_u, self.diffusivity_v
        return diagonal(self.grid, diffusivities, (-self.feed, -self.feed - self.kill))

    def nonlinear(self, t, uh, args=None):
        """(F - u v^2, u v^2)."""
        grid = self.grid
        u, v = two_fields(grid, grid.ifft(grid.dealias(uh, order=3)))
        reaction = grid.dealias(grid.fft(u * v**2), order=3)
        feed = constant_field(grid, uh, like(self.feed, uh))
        return stack_fields(grid, feed - reaction, reaction)

    def invariants(self, uh):
        """None."""
        return {}

    def initial(self, key):
        """u = 1, v = 0 with a few random bumps towards u = 1/2, v = 1/4."""
        bumps = gaussian_blobs(key, self.grid, 8, width=0.08) ** 2
        height = bumps / (1 + bumps)
        return jnp.stack([1 - height, height / 2])


def gray_scott(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.GrayScott`][]."""
    return GrayScott(grid, **parameters).term()
