"""The Fisher-KPP equation."""

from typing import ClassVar

from jaxtyping import Array, ArrayLike, Float

from .._base import check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import gaussian_blobs, Grid
from ._equation import AbstractEquation, like, parameter


class FisherKPP(AbstractEquation):
    """Fisher-Kolmogorov-Petrovsky-Piskunov equation u_t = nu lap u + r u (1 - u).

    A population that spreads, one to three dimensions. A field in [0, 1] stays there; u = 1 invades
    the unstable state u = 0 by fronts, from a bounded patch at the speed 2 sqrt(r nu). For nu = r =
    1 the front u = (1 + exp((x - 5 t/sqrt(6))/sqrt(6)))^-2 is an exact solution (Ablowitz and
    Zeppetella 1979). A gradient flow: the "free_energy" <nu |grad u|^2/2 - r (u^2/2 - u^3/3)>
    falls. Nothing is conserved.

    **Arguments:**

    - `grid`: the grid, periodic or with the walls of a `CosineGrid`.
    - `diffusivity`: nu >= 0.
    - `rate`: r >= 0.
    """

    growing: ClassVar[bool] = True
    walls: ClassVar[tuple[str, ...]] = ("cosine",)
    grid: Grid
    diffusivity: Float[Array, ""]
    rate: Float[Array, ""]

    def __init__(
        self,
        grid: Grid,
        diffusivity: Float[ArrayLike, ""] = 0.01,
        rate: Float[ArrayLike, ""] = 1.0,
    ):
        check_nonnegative("diffusivity", diffusivity)
        check_nonnegative("rate", rate)
        self.grid = grid
        self.diffusivity = parameter(diffusivity)
        self.rate = parameter(rate)

    def symbol(self):
        """r - nu |k|^2."""
        return self.rate - self.diffusivity * self.grid.k2

    def nonlinear(self, t, uh, args=None):
        """-r u^2."""
        grid = self.grid
        square = grid.fft(grid.ifft(grid.dealias(uh)) ** 2)
        return grid.dealias(-like(self.rate, uh) * square)

    def invariants(self, uh):
        """Free energy."""
        grid = self.grid
        u = grid.ifft(uh)
        nu, rate = like(self.diffusivity, uh), like(self.rate, uh)
        gradient = -grid.inner(uh, grid.lap(uh))
        return {"free_energy": nu * gradient / 2 - rate * (u**2 / 2 - u**3 / 3).mean()}

    def initial(self, key):
        """A few random smooth patches of a population between 0 and 1."""
        bumps = gaussian_blobs(key, self.grid, 3, width=0.1) ** 2
        return (bumps / (1 + bumps))[None]


def fisher_kpp(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.FisherKPP`][]."""
    return FisherKPP(grid, **parameters).term()
