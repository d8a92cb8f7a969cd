"""Stokes flow driven by a stress that contains the rate of strain, in a periodic plane.

-Lap u + grad Pi = div sigma, div u = 0, mean(u) = 0, with sigma = sigma(eps) a symmetric traceless
tensor written as the complex field sigma_11 + i sigma_12. The unknown is the vorticity
w = d_x v - d_y u, whose coefficients are stored in the half-complex layout of real fields.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Complex, Float

from jaxsci.spectral import FourierGrid

from .._base import check_at_least, check_positive, complex_dtype, real_dtype


class StokesFlow(eqx.Module):
    """The linear maps between stress, vorticity, rate of strain and velocity.

    **Arguments:**

    - `grid`: two-dimensional grid in the real layout.
    - `dealias`: whether the 2/3 rule is applied to the stress.
    """

    grid: FourierGrid
    dealias: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.grid.ndim != 2 or not self.grid.real:
            raise ValueError(f"`grid` must be two-dimensional and real, got {self.grid}.")

    def _strain_symbols(self, dtype):
        """2 k_x k_y / k^2 and (k_x^2 - k_y^2) / k^2, zero for the mean."""
        kx, ky = self.grid.derivative_wavenumbers(dtype)
        inverse = -self.grid.lap_inv(jnp.ones(self.grid.spectral_shape, complex_dtype(dtype))).real
        return 2 * kx * ky * inverse, (kx**2 - ky**2) * inverse

    def vorticity(self, sigma: Complex[Array, "nx ny"]) -> Complex[Array, "nx half_ny"]:
        """Coefficients of the vorticity that a stress sigma_11 + i sigma_12 drives."""
        cross, difference = self._strain_symbols(real_dtype(sigma))
        s11, s12 = self.grid.fft(jnp.stack([sigma.real, sigma.imag]))
        vorticity = cross * s11 - difference * s12
        return self.grid.dealias(vorticity) if self.dealias else vorticity

    def _strain_coefficients(self, vorticity):
        cross, difference = self._strain_symbols(real_dtype(vorticity))
        return jnp.stack([-cross * vorticity, difference * vorticity]) / 2

    def strain(self, vorticity: Complex[Array, "nx half_ny"]) -> Complex[Array, "nx ny"]:
        """The rate of strain E_11 + i E_12 on the grid, from coefficients of the vorticity."""
        e11, e12 = self.grid.ifft(self._strain_coefficients(vorticity))
        return jax.lax.complex(e11, e12)

    def fields(
        self, vorticity: Complex[Array, "nx half_ny"]
    ) -> tuple[Float[Array, "2 nx ny"], Float[Array, "nx ny"], Complex[Array, "nx ny"]]:
        """Velocity, vorticity and rate of strain on the grid, in one inverse transform."""
        velocity = self.grid.velocity_from_vorticity(vorticity)
        strain = self._strain_coefficients(vorticity)
        u, v, w, e11, e12 = self.grid.ifft(jnp.concatenate([velocity, vorticity[None], strain]))
        return jnp.stack([u, v]), w, jax.lax.complex(e11, e12)


class StokesSolver(eqx.Module):
    """Abstract base class: finds the vorticity w = V(sigma(eps(w))) driven by a stress of eps.

    The result is differentiated implicitly, in forward and reverse mode, at the cost of one more
    linear solve. Where the iteration does not reach its tolerance the result is NaN, which the time
    stepper reports.
    """

    @abc.abstractmethod
    def __call__(
        self,
        flow: StokesFlow,
        stress: Callable,
        stiffness: Float[Array, ""],
        dtype: Any,
        precision: Any,
    ) -> Complex[Array, "nx half_ny"]:
        """Coefficients of the vorticity.

        **Arguments:**

        - `flow`: the maps between stress and rate of strain.
        - `stress`: function from the rate of strain to the stress, both complex (nx, ny) fields.
        - `stiffness`: upper bound on the spectrum of the map -V d(stress) eps, beta max(c)/4 for a
            realisable fourth moment. Convergence depends on it, the solution does not.
        - `dtype`: real floating dtype of the fields.
        - `precision`: dtype whose precision the stress has; sets the default tolerance.
        """


def _tolerance(rtol, precision) -> float:
    if rtol is not None:
        return rtol
    return 1e-9 if jnp.finfo(precision).bits >= 64 else 1e-5


class _RealView(eqx.Module):
    """Half-complex coefficients as a real array whose dot product is that of the fields.

    Interior columns of the half-complex layout stand for two modes each. With this weighting the
    strain operator and its adjoint are transposes of each other, as conjugate gradients need.
    """

    grid: FourierGrid

    def pack(self, coefficients):
        stacked = jnp.stack([coefficients.real, coefficients.imag])
        return stacked * jnp.sqrt(self.grid.mode_weights(stacked))

    def unpack(self, x):
        real, imag = x / jnp.sqrt(self.grid.mode_weights(x))
        return jax.lax.complex(real, imag)


def _rescale(x):
    """A constant that makes the largest entry of `x` one."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    return jnp.where(size > 0, size, 1)


class ConjugateGradientStokes(StokesSolver):
    """Conjugate gradients (lineax), for a stress that is affine in the rate of strain.

    The operator 1 + A* S A is symmetric positive definite because E:S:E = <(pp:E)^2> >= 0, with
    spectrum in [1, 1 + beta max(c)/4].

    **Arguments:**

    - `rtol`: tolerance relative to the largest coefficient; by default 1e-9 in float64, 1e-5 in
        float32. The error is smaller by about the factor of contraction.
    - `max_steps`: largest number of iterations.
    """

    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        if self.rtol is not None:
            check_positive("rtol", self.rtol)
        check_at_least("max_steps", self.max_steps, 1)

    def __call__(
        self,
        flow: StokesFlow,
        stress: Callable,
        stiffness: Float[Array, ""],
        dtype: Any,
        precision: Any,
    ) -> Complex[Array, "nx half_ny"]:
        """Coefficients of the vorticity; see `StokesSolver`."""
        del stiffness
        rest = jnp.zeros(flow.grid.shape, complex_dtype(dtype))
        driving, response = jax.linearize(stress, rest)
        view = _RealView(flow.grid)
        rhs = view.pack(flow.vorticity(driving))
        scale = _rescale(rhs)

        def operator(x):
            eps = flow.strain(view.unpack(x))
            return x - view.pack(flow.vorticity(response(eps)))

        tol = _tolerance(self.rtol, precision)
        solution = lx.linear_solve(
            lx.FunctionLinearOperator(
                operator, jax.eval_shape(lambda: rhs), lx.positive_semidefinite_tag
            ),
            rhs / scale,
            lx.CG(rtol=tol, atol=tol, stabilise_every=None, max_steps=self.max_steps),
            throw=False,
        )
        converged = solution.result == lx.RESULTS.successful
        return view.unpack(jnp.where(converged, solution.value * scale, jnp.nan))


class PicardStokes(StokesSolver):
    """Relaxed Picard iteration, for any stress, nonlinear in the rate of strain too.

    The unrelaxed iteration contracts by s = beta max(c)/4. Relaxed by 2/(2 + s) it contracts by
    s/(2 + s), for every s.

    **Arguments:**

    - `rtol`: tolerance relative to the largest coefficient; by default 1e-9 in float64, 1e-5 in
        float32. The error is smaller by about the factor of contraction.
    - `max_steps`: largest number of iterations.
    """

    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        if self.rtol is not None:
            check_positive("rtol", self.rtol)
        check_at_least("max_steps", self.max_steps, 1)

    def __call__(
        self,
        flow: StokesFlow,
        stress: Callable,
        stiffness: Float[Array, ""],
        dtype: Any,
        precision: Any,
    ) -> Complex[Array, "nx half_ny"]:
        """Coefficients of the vorticity; see `StokesSolver`."""
        view = _RealView(flow.grid)
        rest = jnp.zeros(flow.grid.shape, complex_dtype(dtype))
        guess = view.pack(flow.vorticity(stress(rest)))
        scale = _rescale(guess)
        relaxation = jax.lax.stop_gradient(2 / (2 + stiffness))

        def residual(x):
            eps = flow.strain(view.unpack(x * scale))
            return view.pack(flow.vorticity(stress(eps))) / scale - x

        tol = _tolerance(self.rtol, precision)

        def solve(residual, x):
            # A plain loop: optimistix's carries the default precision, whatever that of x is.
            def unfinished(carry):
                _, change, steps = carry
                return (change > tol) & (steps < self.max_steps)

            def sweep(carry):
                x, _, steps = carry
                change = relaxation * residual(x)
                return x + change, jnp.max(jnp.abs(change)), steps + 1

            start = (x, jnp.asarray(jnp.inf, x.dtype), 0)
            x, change, _ = jax.lax.while_loop(unfinished, sweep, start)
            return jnp.where(change <= tol, x, jnp.nan)

        def relax(slope, rhs):
            # The slope is minus a small perturbation of the identity, so the relaxed iteration that
            # solves the equation solves its linearisation; Krylov methods break down at rounding.
            size = _rescale(rhs)
            return size * solve(lambda x: slope(x) - rhs / size, jnp.zeros_like(rhs))

        def solve_linearised(slope, rhs):
            return jax.lax.custom_linear_solve(slope, rhs, relax, relax)

        x = jax.lax.custom_root(residual, guess / scale, solve, solve_linearised)
        return view.unpack(x * scale)
