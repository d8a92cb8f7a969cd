"""The nonlinear Schroedinger equation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from .._base import check_finite
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid, truncated_fourier_series
from ._equation import AbstractEquation, like, parameter


class NonlinearSchroedinger(AbstractEquation):
    """Nonlinear Schroedinger equation i u_t + a lap u + g |u|^2 u = 0 for a complex field.

    One to three dimensions; also known as the Gross-Pitaevskii equation without a trap. L is
    imaginary; g = 0 is the free Schroedinger equation, which exponential solvers propagate exactly.
    a g > 0 focuses: in one dimension with the bright soliton
    u = A sech(A sqrt(g/(2 a)) (x - w t)) exp(i w x/(2 a) + i (g A^2/2 - w^2/(4 a)) t), in more with
    collapse of strong fields. a g < 0 defocuses. Plane waves A exp(i k x - i (a k^2 - g A^2) t) are
    exact for either sign. Conserved: "mass" <|u|^2>, "momentum" <Im(conj(u) grad u)> (in more than
    one dimension "momentum_x" and so on) and "hamiltonian" <a |grad u|^2 - g |u|^4/2>, with the
    quartic part that of the dealiased u.

    **Arguments:**

    - `grid`: grid for complex fields, `FourierGrid(..., real=False)`.
    - `dispersion`: a.
    - `nonlinearity`: g.
    """

    grid: FourierGrid
    dispersion: Float[Array, ""]
    nonlinearity: Float[Array, ""]

    def __init__(
        self,
        grid: FourierGrid,
        dispersion: Float[ArrayLike, ""] = 0.5,
        nonlinearity: Float[ArrayLike, ""] = 1.0,
    ):
        check_finite("dispersion", dispersion)
        check_finite("nonlinearity", nonlinearity)
        if grid.real:
            raise ValueError(
                f"`grid` must be one for complex fields, FourierGrid(..., real=False), got {grid}."
            )
        self.grid = grid
        self.dispersion = parameter(dispersion)
        self.nonlinearity = parameter(nonlinearity)

    def symbol(self) -> Complex[Array, "..."]:
        """-i a |k|^2."""
        return -1j * self.dispersion * self.grid.k2

    def nonlinear(self, t, uh, args=None):
        """i g |u|^2 u."""
        grid = self.grid
        u = grid.ifft(grid.dealias(uh, order=3))
        cube = grid.fft((u.real**2 + u.imag**2) * u)
        return grid.dealias(1j * like(self.nonlinearity, uh) * cube, order=3)

    def invariants(self, uh):
        """Mass, momentum and Hamiltonian."""
        grid = self.grid
        names = ["momentum_x", "momentum_y", "momentum_z"] if grid.ndim > 1 else ["momentum"]
        momenta = [grid.inner(uh, k * uh) for k in grid.derivative_wavenumbers(uh)]
        u = grid.ifft(grid.dealias(uh, order=3))
        quartic = jnp.mean((u.real**2 + u.imag**2) ** 2)
        a, g = like(self.dispersion, uh), like(self.nonlinearity, uh)
        return {
            "mass": grid.inner(uh, uh),
            **dict(zip(names, momenta)),
            "hamiltonian": -a * grid.inner(uh, grid.lap(uh)) - g * quartic / 2,
        }

    def initial(self, key) -> Complex[Array, "..."]:
        """A random Fourier series, complex."""
        cutoff = min(5, (min(self.grid.shape) - 1) // 2)
        draw = lambda k: truncated_fourier_series(k, self.grid, cutoff)
        real, imag = jax.vmap(draw)(jax.random.split(key))
        return jax.lax.complex(real, imag)[None]


def nonlinear_schroedinger(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.NonlinearSchroedinger`][]."""
    return NonlinearSchroedinger(grid, **parameters).term()
