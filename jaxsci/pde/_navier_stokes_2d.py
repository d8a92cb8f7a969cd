"""Two-dimensional incompressible flow in vorticity form."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._base import check_at_least, check_choice, check_finite, check_nonnegative, NonTrainable
from ..integrate import SemilinearTerm
from ..spectral import energy, enstrophy, FourierGrid, operator_learning_field
from ._equation import AbstractEquation, parameter
from ._forcing import fixed_forcing, forced


class NavierStokes2D(AbstractEquation):
    """Navier-Stokes in two dimensions: w_t + u . grad w = nu lap w - mu w + f, w = d_x v - d_y u.

    u = d_y psi, v = -d_x psi, -lap psi = w. The mean velocity is zero. Without viscosity, drag and
    forcing "energy" and "enstrophy" are conserved; without drag "mean_vorticity" is.

    **Arguments:**

    - `grid`: two-dimensional grid.
    - `viscosity`: nu >= 0.
    - `drag`: mu >= 0.
    - `forcing`: forcing f of the vorticity: a field of `grid.shape`, a function of the coordinates
        `f(x, y)`, or None. See `kolmogorov` and `operator_learning_forcing`.
    - `form`: "basdevant" computes u . grad w = d_x d_y (v^2 - u^2) + (d_xx - d_yy)(u v) with 4
        transforms; "advective" takes 5. After dealiasing both are the same.
    """

    grid: FourierGrid
    viscosity: Float[Array, ""]
    drag: Float[Array, ""]
    forcing: NonTrainable | None
    form: str

    def __init__(
        self,
        grid: FourierGrid,
        viscosity: Float[ArrayLike, ""] = 1e-3,
        drag: Float[ArrayLike, ""] = 0.0,
        forcing: Float[ArrayLike, "..."] | Callable[..., Array] | None = None,
        form: str = "basdevant",
    ):
        check_nonnegative("viscosity", viscosity)
        check_nonnegative("drag", drag)
        check_choice("form", form, ("basdevant", "advective"))
        if grid.ndim != 2:
            raise ValueError(f"`grid` must have two dimensions, got {grid}.")
        self.grid = grid
        self.viscosity = parameter(viscosity)
        self.drag = parameter(drag)
        self.form = form
        self.forcing = fixed_forcing(grid, forcing, grid.shape, grid.fft)

    def symbol(self):
        """-nu |k|^2 - mu."""
        return -self.viscosity * self.grid.k2 - self.drag

    def nonlinear(self, t, uh, args=None):
        """-u . grad w + f."""
        advection = self._basdevant if self.form == "basdevant" else self._advective
        return forced(advection(self.grid.dealias(uh)), self.forcing)

    def _basdevant(self, wh):
        grid = self.grid
        kx, ky = grid.derivative_wavenumbers(wh)
        psi = -grid.lap_inv(wh)
        # One transform of two fields is faster than two of one.
        u, v = grid.ifft(jnp.stack([1j * ky * psi, -1j * kx * psi]))
        cross, difference = grid.fft(jnp.stack([u * v, (v - u) * (v + u)]))
        return grid.dealias((kx**2 - ky**2) * cross + kx * ky * difference)

    def _advective(self, wh):
        grid = self.grid
        kx, ky = grid.derivative_wavenumbers(wh)
        psi = -grid.lap_inv(wh)
        u = grid.ifft(1j * ky * psi)
        v = grid.ifft(-1j * kx * psi)
        advection = u * grid.ifft(1j * kx * wh) + v * grid.ifft(1j * ky * wh)
        return -grid.dealias(grid.fft(advection))

    def velocity(self, wh):
        """Velocity `(..., 2, *grid.shape)` from coefficients of the vorticity."""
        return self.grid.ifft(self.grid.velocity_from_vorticity(wh))

    def invariants(self, uh):
        """Energy, enstrophy and mean vorticity."""
        return {
            "energy": energy(self.grid, self.grid.velocity_from_vorticity(uh)),
            "enstrophy": enstrophy(self.grid, uh),
            "mean_vorticity": jnp.mean(self.grid.mean(uh)),
        }

    def initial(self, key):
        """The random vorticity of the operator-learning data sets."""
        unit = FourierGrid(self.grid.shape, (1.0, 1.0))
        return operator_learning_field(key, unit)[None]


def kolmogorov(k: int = 4, amplitude: float = 1.0) -> Callable[..., Array]:
    """Vorticity forcing of the body force amplitude sin(k y) e_x, for boxes of length 2 pi.

    **Arguments:**

    - `k`: wave number of the force.
    - `amplitude`: its amplitude.

    **Returns:**

    The function f(x, y) = -amplitude k cos(k y).
    """
    check_at_least("k", k, 1)
    check_finite("amplitude", amplitude)
    return lambda x, y: -amplitude * k * jnp.cos(k * y)


def kolmogorov_3d(k: int = 4, amplitude: float = 1.0) -> Callable[..., Array]:
    """The body force amplitude sin(k y) e_x in three dimensions, for boxes of length 2 pi.

    **Arguments:**

    - `k`: wave number of the force.
    - `amplitude`: its amplitude.

    **Returns:**

    The function f(x, y, z), with the three components on a new leading axis.
    """
    check_at_least("k", k, 1)
    check_finite("amplitude", amplitude)

    def forcing(x, y, z):
        along = amplitude * jnp.sin(k * y)
        return jnp.stack([along, jnp.zeros_like(x), jnp.zeros_like(z)])

    return forcing


def operator_learning_forcing(amplitude: float = 0.1) -> Callable[..., Array]:
    """Vorticity forcing amplitude (sin 2 pi (x + y) + cos 2 pi (x + y)), for the unit square.

    The forcing of the Navier-Stokes data sets of Li et al. 2021, arXiv 2010.08895.
    """
    check_finite("amplitude", amplitude)

    def forcing(x, y):
        phase = 2 * np.pi * (x + y)
        return amplitude * (jnp.sin(phase) + jnp.cos(phase))

    return forcing


def navier_stokes_2d(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.NavierStokes2D`][]."""
    return NavierStokes2D(grid, **parameters).term()
