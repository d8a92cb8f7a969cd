"""The Klein-Gordon equation with a cubic force, and the sine-Gordon equation."""

from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._base import check_finite, check_positive
from ..integrate import AbstractPropagator, BlockPropagator, SemilinearTerm
from ..spectral import FourierGrid
from ._equation import AbstractEquation, like, parameter
from ._two_fields import at_rest, second_order_blocks, stack_fields, two_fields


class KleinGordon(AbstractEquation):
    """Klein-Gordon equation u_tt = c^2 lap u - s u - g u^3, as a system for (u, v = u_t).

    One to three dimensions; s is the squared mass. For g = 0 plane waves obey
    omega^2 = c^2 |k|^2 + s, and exponential solvers are exact. With s < 0 < g it is the phi^4 model
    with its kinks u = sqrt(-s/g) tanh(sqrt(-s/(2 (c^2 - w^2))) (x - w t)). Conserved: "energy"
    <v^2/2 + c^2 |grad u|^2/2 + s u^2/2 + g u^4/4>, with the quartic part that of the dealiased u.

    **Arguments:**

    - `grid`: the grid.
    - `speed`: c > 0.
    - `squared_mass`: s.
    - `coupling`: g; negative values focus, and large fields then blow up.
    """

    growing: ClassVar[bool] = True
    grid: FourierGrid
    speed: Float[Array, ""]
    squared_mass: Float[Array, ""]
    coupling: Float[Array, ""]

    def __init__(
        self,
        grid: FourierGrid,
        speed: Float[ArrayLike, ""] = 1.0,
        squared_mass: Float[ArrayLike, ""] = 1.0,
        coupling: Float[ArrayLike, ""] = 0.0,
    ):
        check_positive("speed", speed)
        check_finite("squared_mass", squared_mass)
        check_finite("coupling", coupling)
        self.grid = grid
        self.speed = parameter(speed)
        self.squared_mass = parameter(squared_mass)
        self.coupling = parameter(coupling)

    @property
    def channels(self):
        """u and v."""
        return 2

    def symbol(self) -> Float[Array, "..."]:
        """Blocks [[0, 1], [-c^2 |k|^2 - s, 0]], `(2, 2, *spectral_shape)`."""
        return second_order_blocks(-(self.speed**2) * self.grid.k2 - self.squared_mass)

    def linear(self) -> AbstractPropagator:
        """The blocks as a propagator."""
        return BlockPropagator(self.symbol)

    def nonlinear(self, t, uh, args=None):
        """(0, -g u^3)."""
        return _force(self.grid, uh, lambda u: -like(self.coupling, uh) * u**3)

    def invariants(self, uh):
        """Energy."""
        quartic = lambda u: like(self.coupling, uh) * u**4 / 4
        return {"energy": _energy(self.grid, uh, self.speed, self.squared_mass, quartic)}

    def initial(self, key):
        """A random Fourier series at rest."""
        return at_rest(key, self.grid)


class SineGordon(AbstractEquation):
    """Sine-Gordon equation u_tt = c^2 lap u - s sin u, as a system for (u, v = u_t).

    One to three dimensions; s is the squared mass of small waves. With c = s = 1 the kinks
    u = 4 arctan exp(+-(x - w t)/sqrt(1 - w^2)), and the breathers
    u = 4 arctan(sqrt(1 - w^2)/w sin(w t)/cosh(sqrt(1 - w^2) x)), 0 < w < 1, are exact. Conserved:
    "energy" <v^2/2 + c^2 |grad u|^2/2 + s (1 - cos u)>.

    **Arguments:**

    - `grid`: the grid; u must be periodic, so kinks come in pairs.
    - `speed`: c > 0.
    - `squared_mass`: s.
    """

    grid: FourierGrid
    speed: Float[Array, ""]
    squared_mass: Float[Array, ""]

    def __init__(
        self,
        grid: FourierGrid,
        speed: Float[ArrayLike, ""] = 1.0,
        squared_mass: Float[ArrayLike, ""] = 1.0,
    ):
        check_positive("speed", speed)
        check_finite("squared_mass", squared_mass)
        self.grid = grid
        self.speed = parameter(speed)
        self.squared_mass = parameter(squared_mass)

    @property
    def channels(self):
        """u and v."""
        return 2

    def symbol(self) -> Float[Array, "..."]:
        """Blocks [[0, 1], [-c^2 |k|^2 - s, 0]], `(2, 2, *spectral_shape)`."""
        return second_order_blocks(-(self.speed**2) * self.grid.k2 - self.squared_mass)

    def linear(self) -> AbstractPropagator:
        """The blocks as a propagator."""
        return BlockPropagator(self.symbol)

    def nonlinear(self, t, uh, args=None):
        """(0, s (u - sin u))."""
        return _force(self.grid, uh, lambda u: like(self.squared_mass, uh) * (u - jnp.sin(u)))

    def invariants(self, uh):
        """Energy."""
        # 1 - cos u without cancellation.
        rest = lambda u: like(self.squared_mass, uh) * (2 * jnp.sin(u / 2) ** 2 - u**2 / 2)
        return {"energy": _energy(self.grid, uh, self.speed, self.squared_mass, rest)}

    def initial(self, key):
        """A random Fourier series at rest."""
        return at_rest(key, self.grid)


def _force(grid: FourierGrid, uh: Array, force: Callable[[Array], Array]) -> Array:
    """(0, force(u)), free of the aliases of a cubic force."""
    u, _ = two_fields(grid, uh)
    fh = grid.dealias(grid.fft(force(grid.ifft(grid.dealias(u, order=3)))), order=3)
    return stack_fields(grid, jnp.zeros_like(fh), fh)


def _energy(grid, uh, speed, squared_mass, potential):
    """Energy with `potential` of the dealiased field besides the quadratic parts.

    That is the Hamiltonian of the dealiased equation, which conserves it exactly.
    """
    u, v = two_fields(grid, uh)
    gradient = -grid.inner(u, grid.lap(u))
    quadratic = (
        grid.inner(v, v)
        + like(speed, uh) ** 2 * gradient
        + like(squared_mass, uh) * grid.inner(u, u)
    )
    return quadratic / 2 + jnp.mean(potential(grid.ifft(grid.dealias(u, order=3))).real)


def klein_gordon(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.KleinGordon`][]."""
    return KleinGordon(grid, **parameters).term()


def sine_gordon(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.SineGordon`][]."""
    return SineGordon(grid, **parameters).term()
