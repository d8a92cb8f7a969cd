"""The FitzHugh-Nagumo model."""

from typing import ClassVar

from jaxtyping import Array, ArrayLike, Float

from .._base import check_finite, check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import Grid
from ._equation import AbstractEquation, like, parameter
from ._two_fields import constant_field, diagonal, random_pair, stack_fields, two_fields


class FitzHughNagumo(AbstractEquation):
    """FitzHugh-Nagumo model of an excitable medium: voltage u and recovery v.

        u_t = D_u lap u + u - u^3/3 - v + I
        v_t = D_v lap v + e (u + a - b v)

    One to three dimensions. With the default rates and I = 0 the medium is excitable and carries
    pulses, and in two dimensions spiral waves; with I = 0.5 it oscillates. Nothing is conserved.
    FitzHugh 1961, Biophysical Journal 1, 445; Nagumo et al. 1962.

    **Arguments:**

    - `grid`: the grid, periodic or with the walls of a `CosineGrid`.
    - `diffusivity_u`, `diffusivity_v`: D_u, D_v >= 0.
    - `epsilon`: e >= 0, rate of recovery.
    - `a`, `b`: threshold and decay of recovery.
    - `current`: I.
    """

    growing: ClassVar[bool] = True
    walls: ClassVar[tuple[str, ...]] = ("cosine",)
    grid: Grid
    diffusivity_u: Float[Array, ""]
    diffusivity_v: Float[Array, ""]
    epsilon: Float[Array, ""]
    a: Float[Array, ""]
    b: Float[Array, ""]
    current: Float[Array, ""]

    def __init__(
        self,
        grid: Grid,
        diffusivity_u: Float[ArrayLike, ""] = 1.0,
        diffusivity_v: Float[ArrayLike, ""] = 0.0,
        epsilon: Float[ArrayLike, ""] = 0.08,
        a: Float[ArrayLike, ""] = 0.7,
        b: Float[ArrayLike, ""] = 0.8,
        current: Float[ArrayLike, ""] = 0.0,
    ):
        check_nonnegative("diffusivity_u", diffusivity_u)
        check_nonnegative("diffusivity_v", diffusivity_v)
        check_nonnegative("epsilon", epsilon)
        for name, value in (("a", a), ("b", b), ("current", current)):
            check_finite(name, value)
        self.grid = grid
        self.diffusivity_u = parameter(diffusivity_u)
        self.diffusivity_v = parameter(diffusivity_v)
        self.epsilon = parameter(epsilon)
        self.a = parameter(a)
        self.b = parameter(b)
        self.current = parameter(current)

    @property
    def channels(self):
        """u and v."""
        return 2

    def symbol(self):
        """1 - D_u |k|^2 and -e b - D_v |k|^2."""
        diffusivities = self.diffusivity_u, self.diffusivity_v
        return diagonal(self.grid, diffusivities, (1.0, -self.epsilon * self.b))

    def nonlinear(self, t, uh, args=None):
        """(I - v - u^3/3, e (u + a))."""
        grid = self.grid
        u, v = two_fields(grid, uh)
        cube = grid.dealias(grid.fft(grid.ifft(grid.dealias(u, order=3)) ** 3), order=3)
        current = constant_field(grid, uh, like(self.current, uh))
        threshold = constant_field(grid, uh, like(self.a, uh))
        return stack_fields(grid, current - v - cube / 3, like(self.epsilon, uh) * (u + threshold))

    def invariants(self, uh):
        """None."""
        return {}

    def initial(self, key):
        """Smooth random fields around the middle branch, from which pulses and spirals grow."""
        return random_pair(key, self.grid)


def fitzhugh_nagumo(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.FitzHughNagumo`][]."""
    return FitzHughNagumo(grid, **parameters).term()
