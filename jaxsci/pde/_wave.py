"""The wave equation."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_positive
from ..integrate import AbstractPropagator, BlockPropagator, SemilinearTerm
from ..spectral import FourierGrid
from ._equation import AbstractEquation, like, parameter
from ._two_fields import at_rest, second_order_blocks, two_fields


class Wave(AbstractEquation):
    """Wave equation u_tt = c^2 lap u, one to three dimensions, as a system for (u, v = u_t).

    The two fields are coupled by a 2x2 block [[0, 1], [-c^2 |k|^2, 0]] at each wave number, which
    has one eigenvector only at k = 0, where the mean of u grows linearly; exponential solvers are
    exact for any step. In one dimension u = f(x - c t) + g(x + c t). Conserved: "energy"
    <v^2 + c^2 |grad u|^2>/2 and "mean_velocity" <v>.

    **Arguments:**

    - `grid`: the grid.
    - `speed`: c > 0.
    """

    grid: FourierGrid
    speed: Float[Array, ""]

    def __init__(self, grid: FourierGrid, speed: Float[ArrayLike, ""] = 1.0):
        check_positive("speed", speed)
        self.grid = grid
        self.speed = parameter(speed)

    @property
    def channels(self):
        """u and v."""
        return 2

    def symbol(self) -> Float[Array, "..."]:
        """Blocks [[0, 1], [-c^2 |k|^2, 0]], `(2, 2, *spectral_shape)`."""
        return second_order_blocks(-(self.speed**2) * self.grid.k2)

    def linear(self) -> AbstractPropagator:
        """The blocks as a propagator."""
        return BlockPropagator(self.symbol)

    def nonlinear(self, t, uh, args=None):
        """Zero."""
        return jnp.zeros_like(uh)

    def invariants(self, uh):
        """Energy and mean velocity."""
        grid = self.grid
        u, v = two_fields(grid, uh)
        gradient = -grid.inner(u, grid.lap(u))
        return {
            "energy": (grid.inner(v, v) + like(self.speed, uh) ** 2 * gradient) / 2,
            "mean_velocity": jnp.mean(jnp.real(grid.mean(v))),
        }

    def initial(self, key):
        """A random Fourier series at rest."""
        return at_rest(key, self.grid)


def wave(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.Wave`][]."""
    return Wave(grid, **parameters).term()
