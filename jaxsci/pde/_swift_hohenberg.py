"""The Swift-Hohenberg equation."""

from typing import ClassVar

from jaxtyping import Array, ArrayLike, Float

from .._base import check_finite, check_nonnegative
from ..integrate import SemilinearTerm
from ..spectral import Grid
from ._equation import AbstractEquation, like, parameter


class SwiftHohenberg(AbstractEquation):
    """Swift-Hohenberg equation u_t = r u - (k_c^2 + lap)^2 u + g u^2 - u^3.

    Patterns of wavelength 2 pi/k_c grow from u = 0 for r > 0: stripes of amplitude about
    2 sqrt(r/3) for g = 0, hexagons in two dimensions for larger g. One to three dimensions. A
    gradient flow: the "free_energy" <((k_c^2 + lap) u)^2/2 - r u^2/2 - g u^3/3 + u^4/4> falls.
    Nothing is conserved. Swift and Hohenberg 1977, Phys. Rev. A 15, 319.

    **Arguments:**

    - `grid`: the grid, periodic or with the walls of a `CosineGrid`; its lengths should be several
        times 2 pi/k_c.
    - `growth`: r.
    - `critical_wavenumber`: k_c >= 0.
    - `quadratic`: g.
    """

    growing: ClassVar[bool] = True
    walls: ClassVar[tuple[str, ...]] = ("cosine",)
    grid: Grid
    growth: Float[Array, ""]
    critical_wavenumber: Float[Array, ""]
    quadratic: Float[Array, ""]

    def __init__(
        self,
        grid: Grid,
        growth: Float[ArrayLike, ""] = 0.3,
        critical_wavenumber: Float[ArrayLike, ""] = 1.0,
        quadratic: Float[ArrayLike, ""] = 0.0,
    ):
        check_finite("growth", growth)
        check_nonnegative("critical_wavenumber", critical_wavenumber)
        check_finite("quadratic", quadratic)
        self.grid = grid
        self.growth = parameter(growth)
        self.critical_wavenumber = parameter(critical_wavenumber)
        self.quadratic = parameter(quadratic)

    def symbol(self):
        """r - (k_c^2 - |k|^2)^2."""
        return self.growth - (self.critical_wavenumber**2 - self.grid.k2) ** 2

    def nonlinear(self, t, uh, args=None):
        """g u^2 - u^3."""
        grid = self.grid
        u = grid.ifft(grid.dealias(uh, order=3))
        return grid.dealias(grid.fft((like(self.quadratic, uh) - u) * u**2), order=3)

    def invariants(self, uh):
        """Free energy."""
        grid = self.grid
        u = grid.ifft(uh)
        r, kc, g = (like(p, uh) for p in (self.growth, self.critical_wavenumber, self.quadratic))
        detuned = kc**2 * uh + grid.lap(uh)
        potential = (-r / 2 * u**2 - g / 3 * u**3 + u**4 / 4).mean()
        return {"free_energy": grid.inner(detuned, detuned) / 2 + potential}


def swift_hohenberg(grid: Grid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.SwiftHohenberg`][]."""
    return SwiftHohenberg(grid, **parameters).term()
