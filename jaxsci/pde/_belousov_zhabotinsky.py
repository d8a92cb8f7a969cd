"""The Belousov-Zhabotinsky reaction in the two-variable Oregonator model."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_nonnegative, check_positive
from ..integrate import SemilinearTerm
from ..spectral import Grid
from ._equation import AbstractEquation, like, parameter
from ._two_fields import diagonal, random_pair, stack_fields, two_fields


class BelousovZhabotinsky(AbstractEquation):
    """Belousov-Zhabotinsky reaction, Oregonator with two variables: HBrO2 u and catalyst v.

        u_t = D_u lap u + (u - u^2 - f v (u - q)/(u + q))/e
        v_t = D_v lap v + u - v

    One to three dimensions, in the scales of Tyson and Fife 1980 (J. Chem. Phys. 73, 2224), without
    bromide, which adapts at once. With the default parameters (Jahnke, Skaggs and Winfree 1989) the
    medium carries trigger waves, and rotating spirals in two dimensions. u stays between 0 and 1;
    where u < 0 through truncation of the series, the quotient is that of u = 0. The rates reach
    f/(2 e q) and fronts have width sqrt(e D_u): steps and grid must resolve both. Nothing is
    conserved.

    **Arguments:**

    - `grid`: the grid, periodic or with the walls of a `CosineGrid`.
    - `diffusivity_u`, `diffusivity_v`: D_u, D_v >= 0.
    - `epsilon`: e > 0, ratio of the time scales of u and v.
    - `f`: stoichiometric factor f >= 0.
    - `q`: excitability q > 0.
    """

    walls: ClassVar[tuple[str, ...]] = ("cosine",)
    grid: Grid
    diffusivity_u: Float[Array, ""]
    diffusivity_v: Float[Array, ""]
    epsilon: Float[Array, ""]
    f: Float[Array, ""]
    q: Float[Array, ""]

    def __init__(
        self,
        grid: Grid,
        diffusivity_u: Float[ArrayLike, ""] = 1.0,
        diffusivity_v: Float[ArrayLike, ""] = 0.6,
        epsilon: Float[ArrayLike, ""] = 0.01,
        f: Float[ArrayLike, ""] = 1.4,
        q: Float[ArrayLike, ""] = 0.002,
    ):
        check_nonnegative("diffusivity_u", diffusivity_u)
        check_nonnegative("diffusivity_v", diffusivity_v)
        check_positive("epsilon", epsilon)
        check_nonnegative("f", f)
        check_positive("q", q)
        self.grid = grid
        self.diffusivity_u = parameter(diffusivity_u)
        self.diffusivity_v = parameter(diffusivity_v)
        self.epsilon = parameter(epsilon)
        self.f = parameter(f)
        self.q = parameter(q)

    @property
    def channels(self):
        """u and v."""
        return 2

    def symbol(self):
        """-D_u |k|^2 and -1 - D_v |k|^2."""
        diffusivities = self.diffusivity_u, self.diffusivity_v
        return diagonal(self.grid, diffusivities, (0.0, -1.0))

    def nonlinear(self, t, uh, args=None):
        """((u - u^2 - f v (u - q)/(u + q))/e, u)."""
        grid = self.grid
        # The quotient has no polynomial order; the cubic mask removes most of its aliases.
        u, v = two_fields(grid, grid.ifft(grid.dealias(uh, order=3)))
        epsilon, f, q = (like(x, uh) for x in (self.epsilon, self.f, self.q))
        bounded = jnp.maximum(u, 0)
        rate = (u - u**2 - f * v * (bounded - q) / (bounded + q)) / epsilon
        return stack_fields(grid, grid.dealias(grid.fft(rate), order=3), two_fields(grid, uh)[0])

    def invariants(self, uh):
        """None."""
        return {}

    def initial(self, key):
        """Random excited and recovering regions: u between 0.01 and 0.81, v between 0 and 0.2."""
        u, v = random_pair(key, self.grid)
        return jnp.stack([0.01 + 0.4 * (1 + jnp.tanh(2 * u)), 0.1 * (1 + jnp.tanh(2 * v))])


def belousov_zhabotinsky(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.BelousovZhabotinsky`][]."""
    return BelousovZhabotinsky(grid, **parameters).term()
