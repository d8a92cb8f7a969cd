"""The Cahn-Hilliard equation."""

from typing import ClassVar

from jaxtyping import Array, ArrayLike, Float

from .._base import check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import Grid
from ._equation import AbstractEquation, like, parameter, random_field


class CahnHilliard(AbstractEquation):
    """Cahn-Hilliard equation u_t = M lap(u^3 - u - gamma lap u), one to three dimensions.

    A mixture separates into phases u = 1 and u = -1, with interfaces tanh(x/sqrt(2 gamma)) between
    them, and the domains then coarsen. The state u = 0 is unstable to 0 < |k| < gamma^(-1/2),
    most at |k|^2 = 1/(2 gamma). "mean" is conserved and the "free_energy"
    <(u^2 - 1)^2/4 + gamma |grad u|^2/2> falls. Cahn and Hilliard 1958, J. Chem. Phys. 28, 258.

    The linear part is stabilised (Eyre 1998): L = M (-gamma lap^2 + s lap), and the nonlinear part
    M lap(u^3 - (1 + s) u) takes the difference, so that s changes the error of a step, not the
    solution. With s = 2 the nonlinear part is flat in the phases; larger values allow larger steps
    at a larger error.

    **Arguments:**

    - `grid`: the grid, periodic or with the walls of a `CosineGrid`.
    - `gamma`: square of the width of interfaces, gamma >= 0.
    - `mobility`: M >= 0.
    - `stabilization`: s >= 0.
    """

    growing: ClassVar[bool] = True
    walls: ClassVar[tuple[str, ...]] = ("cosine",)
    grid: Grid
    gamma: Float[Array, ""]
    mobility: Float[Array, ""]
    stabilization: Float[Array, ""]

    def __init__(
        self,
        grid: Grid,
        gamma: Float[ArrayLike, ""] = 0.01,
        mobility: Float[ArrayLike, ""] = 1.0,
        stabilization: Float[ArrayLike, ""] = 2.0,
    ):
        check_nonnegative("gamma", gamma)
        check_nonnegative("mobility", mobility)
        check_nonnegative("stabilization", stabilization)
        self.grid = grid
        self.gamma = parameter(gamma)
        self.mobility = parameter(mobility)
        self.stabilization = parameter(stabilization)

    def symbol(self):
        """-M (gamma |k|^4 + s |k|^2)."""
        k2 = self.grid.k2
        return -self.mobility * (self.gamma * k2**2 + self.stabilization * k2)

    def nonlinear(self, t, uh, args=None):
        """M lap(u^3 - (1 + s) u)."""
        grid = self.grid
        mobility, s = like(self.mobility, uh), like(self.stabilization, uh)
        cube = grid.dealias(grid.fft(grid.ifft(grid.dealias(uh, order=3)) ** 3), order=3)
        # The linear part keeps all modes: it must cancel the stabilisation in each.
        return mobility * grid.lap(cube - (1 + s) * uh)

    def invariants(self, uh):
        """Mean and free energy."""
        grid = self.grid
        well = ((grid.ifft(uh) ** 2 - 1) ** 2).mean() / 4
        gradient = -grid.inner(uh, grid.lap(uh))
        return {
            "mean": grid.mean(uh).mean(),
            "free_energy": well + like(self.gamma, uh) * gradient / 2,
        }

    def initial(self, key):
        """Small smooth noise around the symmetric mixture u = 0."""
        modes = min(10, (min(self.grid.shape) - 1) // 3)
        return 0.1 * random_field(key, self.grid, modes)[None]


def cahn_hilliard(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.CahnHilliard`][]."""
    return CahnHilliard(grid, **parameters).term()
