"""Darcy flow: the Poisson equation with a variable coefficient, steady or as it relaxes."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact

from .._base import (
    all_finite,
    check_at_least,
    check_finite,
    check_positive,
    raise_if_failed,
    real_dtype,
    RESULTS,
)
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid, Grid
from ._equation import AbstractEquation, like, parameter


class SteadyState(eqx.Module):
    """What `Darcy.steady` returns.

    **Attributes:**

    - `u`: the field, `grid.shape`.
    - `result`: a code of `RESULTS`, successful or why not.
    - `stats`: the number of iterations, "num_steps".
    """

    u: Float[Array, "..."]
    result: RESULTS
    stats: dict[str, Any]


class Darcy(AbstractEquation):
    """Flow in a porous medium: u_t = div(a grad u) + f, whose steady state is -div(a grad u) = f.

    u is the pressure and a the permeability, which depends on place. On a `SineGrid` u = 0 on the
    walls, on a `CosineGrid` no fluid crosses them. The steady problem with a binary a and f = 1 on
    the unit square is the Darcy benchmark of Li et al. 2021, arXiv 2010.08895.

    In time, L = c lap with c = (max a + min a)/2, for which the rest, div((a - c) grad u), is
    always weaker than L: exponential solvers take steps that the largest a does not limit.
    Invariants: "energy" <a |grad u|^2/2 - f u> falls.

    The product a grad u is taken at the grid points; the operator is then exactly symmetric and
    definite on the modes below Nyquist. With walls the error is spectral where a is even and f odd
    (sines) or even (cosines) about every wall, and otherwise of second order.

    **Arguments:**

    - `grid`: a real periodic grid or a grid with walls.
    - `permeability`: a > 0 at the grid points, `grid.shape`, or a number.
    - `source`: f at the grid points, `grid.shape`, or a number.
    """

    walls: ClassVar[tuple[str, ...]] = ("sine", "cosine")
    grid: Grid
    permeability: Float[Array, "..."]
    source: Float[Array, "..."]

    def __init__(
        self,
        grid: Grid,
        permeability: Float[ArrayLike, "..."],
        source: Float[ArrayLike, "..."] = 1.0,
    ):
        if isinstance(grid, FourierGrid) and not grid.real:
            raise ValueError(f"`grid` must be for real fields, got {grid}.")
        check_positive("permeability", permeability)
        check_finite("source", source)
        for name, value in (("permeability", permeability), ("source", source)):
            if jnp.shape(value) not in ((), grid.shape):
                raise ValueError(
                    f"`{name}` must be a number or have the shape {grid.shape} of the grid, got "
                    f"{jnp.shape(value)}."
                )
        self.grid = grid
        self.permeability = jnp.broadcast_to(parameter(permeability), grid.shape)
        self.source = jnp.broadcast_to(parameter(source), grid.shape)

    def _middle(self):
        return (jnp.max(self.permeability) + jnp.min(self.permeability)) / 2

    def symbol(self):
        """-c |k|^2, c halfway between the smallest and the largest permeability."""
        return -self._middle() * self.grid.k2

    def nonlinear(self, t, uh, args=None):
        """div((a - c) grad u) + f."""
        rest = like(self.permeability - self._middle(), uh)
        source = self.grid.fft(like(self.source, uh))
        return _weighted_laplacian(self.grid, rest, uh) + source

    def invariants(self, uh):
        """Energy."""
        grid = self.grid
        flux = -grid.inner(uh, _weighted_laplacian(grid, like(self.permeability, uh), uh))
        source = jnp.broadcast_to(grid.fft(like(self.source, uh)), uh.shape)
        return {"energy": flux / 2 - grid.inner(uh, source)}

    def steady(
        self,
        *,
        rtol: Float[ArrayLike, ""] | None = None,
        max_steps: int = 1000,
        throw: bool = True,
    ) -> SteadyState:
        """Solve -div(a grad u) = f by conjugate gradients, preconditioned with the Poisson solve.

        The number of iterations grows with the root of max a/min a and hardly with the resolution.
        Differentiable in the permeability and the source, at the cost of one more solve. Where
        constants solve the homogeneous problem, u has zero mean and the mean of f is ignored.

        **Arguments:**

        - `rtol`: tolerance of the residual and of the last step, relative to their root mean
            squares in the norm of the preconditioner; by default 1e-10 (1e-5 in float32).
        - `max_steps`: largest number of iterations.
        - `throw`: raise `RuntimeError` if the iteration fails, rather than only report it in
            `result`; without effect under `jax.jit`.
        """
        check_at_least("max_steps", max_steps, 1)
        grid = self.grid
        dtype = jnp.result_type(self.permeability, self.source)
        if rtol is None:
            rtol = 1e-10 if dtype == np.float64 else 1e-5
        check_positive("rtol", rtol)
        middle = self._middle().astype(dtype)
        operator = _Preconditioned(grid, self.permeability.astype(dtype) / middle)
        rhs = operator.root(self.source.astype(dtype) / middle)
        scale = jax.lax.stop_gradient(jnp.sqrt(jnp.mean(rhs**2)))
        scale = jnp.where(scale == 0, 1, scale)
        structure = jax.ShapeDtypeStruct(grid.shape, dtype)
        tolerance = jnp.asarray(rtol, dtype)
        solution = lineax.linear_solve(
            lineax.FunctionLinearOperator(operator, structure, lineax.positive_semidefinite_tag),
            rhs / scale,
            # A tolerance may be traced, whatever the annotation says.
            lineax.CG(tolerance, tolerance, norm=_rms, max_steps=max_steps),  # pyright: ignore
            throw=False,
        )
        u = operator.root(solution.value * scale)
        converged = solution.result == lineax.RESULTS.successful
        result = RESULTS.where(converged, RESULTS.successful, RESULTS.not_converged)
        result = RESULTS.where(all_finite(u), result, RESULTS.nonfinite)
        if throw:
            raise_if_failed(result, "pde.Darcy.steady")
        return SteadyState(u, result, {"num_steps": solution.stats["num_steps"]})


class _Preconditioned(eqx.Module):
    """S (-div a grad) S with S = (-lap)^(-1/2), on fields.

    Conjugate gradients on it are those preconditioned with the Poisson solve, without transforms of
    their own for the preconditioner. S drops constants and Nyquist modes.
    """

    grid: Grid
    permeability: Float[Array, "..."]

    def __call__(self, y):
        grid = self.grid
        inner = _weighted_laplacian(grid, self.permeability, self._scale(y) * grid.fft(y))
        return -grid.ifft(self._scale(y) * inner)

    def root(self, y):
        """S y."""
        return self.grid.ifft(self._scale(y) * self.grid.fft(y))

    def _scale(self, like):
        k2 = self.grid.squared_wavenumber(real_dtype(like))
        kept = (k2 > 0) & jnp.asarray(_below_nyquist(self.grid))
        return jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, k2, 1)), 0)


def _weighted_laplacian(
    grid: Grid, a: Float[Array, "..."], uh: Inexact[Array, "..."]
) -> Inexact[Array, "..."]:
    """div(a grad u) of modes below Nyquist, from and to coefficients."""
    mask = jnp.asarray(_below_nyquist(grid), real_dtype(uh))
    gradient = grid.grad(mask * uh)
    if isinstance(grid, FourierGrid):
        flux = grid.fft(a * grid.ifft(gradient))
    else:
        partners = [grid.derivative_grid(i) for i in range(grid.ndim)]
        parts = zip(partners, grid.components(gradient))
        flux = [partner.fft(a * partner.ifft(part)) for partner, part in parts]
        flux = jnp.stack(flux, axis=uh.ndim - grid.ndim)
    return mask * grid.div(flux)


def _below_nyquist(grid):
    factor = 2 if isinstance(grid, FourierGrid) else 1
    mask = np.ones(grid.spectral_shape, bool)
    for m, n in zip(grid.mode_numbers(), grid.shape):
        mask = mask & (factor * np.abs(m) < n)
    return mask


def _rms(x):
    return jnp.sqrt(jnp.mean(x**2))


def darcy(grid: Grid, permeability: Float[ArrayLike, "..."], **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.Darcy`][]."""
    return Darcy(grid, permeability, **parameters).term()
