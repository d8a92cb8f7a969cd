"""Three-dimensional incompressible flow in velocity form."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._base import check_choice, check_nonnegative, NonTrainable
from ..integrate import SemilinearTerm
from ..spectral import decaying_turbulence, energy, FourierGrid
from ._equation import AbstractEquation, parameter
from ._forcing import fixed_forcing, forced
from ._navier_stokes_2d import kolmogorov, kolmogorov_3d, NavierStokes2D

_FORMS = ("rotational", "divergence", "convective")


class NavierStokes3D(AbstractEquation):
    """Navier-Stokes in three dimensions: u_t = P(u x curl u + f) + nu lap u - mu u, div u = 0.

    P is the Leray projection, which takes the place of the pressure. Without viscosity, drag and
    forcing "energy" <|u|^2>/2 and "helicity" <u . curl u> are conserved, and without drag the
    "mean_velocity" (its magnitude) unless the force has a mean; "divergence", the root mean square
    of div u, stays zero if it is zero at first. Beltrami flows (curl u = k u, as the
    Arnold-Beltrami-Childress flow) only decay, as exp(-nu k^2 t).

    **Arguments:**

    - `grid`: three-dimensional grid.
    - `viscosity`: nu >= 0.
    - `drag`: mu >= 0.
    - `forcing`: body force f: a field `(3, *grid.shape)`, a function of the coordinates
        `f(x, y, z)` that returns one, or None. See `kolmogorov_3d`.
    - `form`: how the advection is computed: "rotational" u x curl u, and "divergence"
        -div(u u), each with 9 transforms; "convective" -(u . grad) u with 15. After dealiasing and
        projection all are the same for divergence-free u.
    """

    grid: FourierGrid
    viscosity: Float[Array, ""]
    drag: Float[Array, ""]
    forcing: NonTrainable | None
    form: str

    def __init__(
        self,
        grid: FourierGrid,
        viscosity: Float[ArrayLike, ""] = 1e-2,
        drag: Float[ArrayLike, ""] = 0.0,
        forcing: Float[ArrayLike, "..."] | Callable[..., Array] | None = None,
        form: str = "rotational",
    ):
        check_nonnegative("viscosity", viscosity)
        check_nonnegative("drag", drag)
        check_choice("form", form, _FORMS)
        if grid.ndim != 3:
            raise ValueError(f"`grid` must have three dimensions, got {grid}.")
        self.grid = grid
        self.viscosity = parameter(viscosity)
        self.drag = parameter(drag)
        self.form = form
        shape = (3, *grid.shape)
        self.forcing = fixed_forcing(grid, forcing, shape, lambda f: grid.leray(grid.fft(f)))

    @property
    def channels(self) -> int:
        """The three components of the velocity."""
        return 3

    def symbol(self):
        """-nu |k|^2 - mu."""
        return -self.viscosity * self.grid.k2 - self.drag

    def nonlinear(self, t, uh, args=None):
        """P(-(u . grad) u + f)."""
        grid = self.grid
        advection = getattr(self, "_" + self.form)(grid.dealias(uh))
        return forced(grid.leray(grid.dealias(advection)), self.forcing)

    def _rotational(self, uh):
        grid = self.grid
        # One transform of six fields is faster than six of one.
        u, w = jnp.split(grid.ifft(jnp.concatenate([uh, grid.curl(uh)], axis=-4)), 2, axis=-4)
        return grid.fft(jnp.cross(u, w, axis=-4))

    def _divergence(self, uh):
        grid = self.grid
        k = grid.derivative_wavenumbers(uh)
        u = grid.components(grid.ifft(uh))
        pairs = [(i, j) for i in range(3) for j in range(i, 3)]
        stress = grid.fft(jnp.stack([u[i] * u[j] for i, j in pairs], axis=-4))
        rows = []
        for i in range(3):
            place = [pairs.index((min(i, j), max(i, j))) for j in range(3)]
            rows.append(-1j * sum(kj * stress[..., p, :, :, :] for kj, p in zip(k, place)))
        return jnp.stack(rows, axis=-4)

    def _convective(self, uh):
        grid = self.grid
        u = grid.ifft(uh)
        slopes = grid.ifft(grid.grad(uh))
        return -grid.fft(jnp.einsum("...jxyz,...ijxyz->...ixyz", u, slopes))

    def vorticity(self, uh):
        """Vorticity curl u at the grid points, from coefficients of the velocity."""
        return self.grid.ifft(self.grid.curl(uh))

    def invariants(self, uh):
        """Energy, helicity, divergence and magnitude of the mean velocity."""
        grid = self.grid
        return {
            "energy": energy(grid, uh),
            "helicity": grid.inner(uh, grid.curl(uh)),
            "divergence": grid.norm(grid.div(uh)),
            "mean_velocity": jnp.linalg.norm(grid.mean(uh)),
        }

    def initial(self, key):
        """A random divergence-free velocity of unit root mean square speed."""
        k0 = 3 * 2 * np.pi / max(self.grid.lengths)
        return decaying_turbulence(key, self.grid, k0)


def navier_stokes_3d(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.NavierStokes3D`][]."""
    return NavierStokes3D(grid, **parameters).term()


def kolmogorov_flow(
    grid: FourierGrid,
    viscosity: Float[ArrayLike, ""] = 1e-3,
    drag: Float[ArrayLike, ""] = 0.1,
    k: int = 4,
    amplitude: float = 1.0,
) -> NavierStokes2D | NavierStokes3D:
    """Flow driven by the body force amplitude sin(k y) e_x, in two or three dimensions.

    **Arguments:**

    - `grid`: a grid whose second length is a multiple of 2 pi/k.
    - `viscosity`, `drag`: of the equation.
    - `k`, `amplitude`: of the force.

    **Returns:** the equation.

    **Raises:** `ValueError` for a grid of one dimension or one that the force does not fit.
    """
    if grid.ndim == 1:
        raise ValueError(f"`grid` must have two or three dimensions, got {grid}.")
    waves = k * grid.lengths[1] / (2 * np.pi)
    if abs(waves - round(waves)) > 1e-6:
        raise ValueError(
            f"`k` must fit the second length of the grid, got {k} for {grid.lengths[1]}: "
            f"{waves} waves."
        )
    if grid.ndim == 2:
        return NavierStokes2D(grid, viscosity, drag, kolmogorov(k, amplitude))
    return NavierStokes3D(grid, viscosity, drag, kolmogorov_3d(k, amplitude))
