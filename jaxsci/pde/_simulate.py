"""`simulate`: solve an equation in one call, physical fields in and out."""

import math
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact

from .._base import (
    all_finite,
    check_nonnegative,
    check_positive,
    is_complex,
    is_concrete,
    raise_if_failed,
    real_dtype,
    RESULTS,
)
from ..integrate import (
    AbstractSemilinearSolver,
    ETDRK4,
    simulate as stream,
    SpectralPIDController,
    ZarrStore,
)
from ._equation import AbstractEquation


class Simulation(eqx.Module):
    """What `simulate` returns.

    **Attributes:**

    - `ts`: times, `(time,)`.
    - `ys`: fields, `(time, channels, *grid.shape)`, or without channels if `u0` had none; with a
        store its zarr array, which reads from disk what is indexed.
    - `result`: a code of `RESULTS`, successful or why not.
    - `stats`: counts of steps taken, accepted and rejected.
    """

    ts: Float[Array, " time"]
    ys: Any
    result: RESULTS
    stats: dict[str, Any]


def simulate(
    equation: AbstractEquation,
    u0: Inexact[ArrayLike, "..."],
    ts: Float[ArrayLike, " time"],
    *,
    dt: Float[ArrayLike, ""] | None = None,
    rtol: Float[ArrayLike, ""] | None = None,
    atol: Float[ArrayLike, ""] | None = None,
    solver: AbstractSemilinearSolver | None = None,
    args: Any = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int | None = None,
    store: str | Path | ZarrStore | None = None,
    checkpoint: str | Path | None = None,
    chunk: int = 16,
    progress: bool = False,
    throw: bool = True,
) -> Simulation:
    """Solve an equation from the field `u0` at `ts[0]` and return the fields at the times `ts`.

    Transforms to Fourier space, integrates with `diffrax.diffeqsolve` and transforms back.
    Differentiable in the parameters of the equation and in `u0`; jit- and vmappable. With `store`
    the solve runs in pieces and streams the fields to disk, and with `checkpoint` it goes on after
    a crash: `jaxsci.integrate.simulate` says how; then neither derivatives nor transformations.

    **Arguments:**

    - `equation`: the equation, with its grid.
    - `u0`: initial field, `(channels, *grid.shape)`, or `grid.shape` for equations of one field.
    - `ts`: increasing times at which the solution is wanted, the first that of `u0`.
    - `dt`: constant step; times in `ts` need not be multiples of it.
    - `rtol`, `atol`: tolerances of an adaptive step, relative to the root mean square of the state.
        Without `dt` the step is adaptive, by default with `rtol=1e-4` and `atol=1e-6`.
    - `solver`: a solver of `jaxsci.integrate`, by default `ETDRK4()`.
    - `args`: passed to the nonlinear function of the equation.
    - `adjoint`: how to differentiate, as for `diffrax.diffeqsolve`.
    - `max_steps`: largest number of steps, by default enough for `dt`, else 65536.
    - `store`: path of a zarr store for the fields, with coordinates for xarray, or a `ZarrStore`.
    - `checkpoint`: file from which the solve goes on when it is called again; needs `store`.
    - `chunk`: number of saved times in a piece and in a chunk of the store.
    - `progress`: show a progress bar (a host callback: it slows short steps).
    - `throw`: raise `RuntimeError` if the solve fails, rather than only report it in `result`;
        without effect under `jax.jit`.

    **Returns:** a `Simulation`.

    **Raises:** `ValueError` for bad shapes, times, steps or tolerances.
    """
    grid = equation.grid
    u0 = jnp.asarray(u0)
    with_channels = (equation.channels, *grid.shape)
    bare = u0.shape == grid.shape and equation.channels == 1
    if not bare and u0.shape[-grid.ndim - 1 :] != with_channels:
        raise ValueError(
            f"`u0` must have shape {with_channels} for {type(equation).__name__} on {grid}, "
            f"got {u0.shape}."
        )
    ts = jnp.asarray(ts, real_dtype(u0))
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"`ts` must be at least two times, got shape {ts.shape}.")
    if is_concrete(ts) and not np.all(np.diff(np.asarray(ts)) > 0):
        raise ValueError(f"`ts` must increase strictly, got {ts}.")
    if dt is not None and (rtol is not None or atol is not None):
        raise ValueError("Give either `dt` or tolerances (`rtol`, `atol`), not both.")
    if dt is not None:
        check_positive("dt", dt)
        dt = jnp.asarray(dt, ts.dtype)
        if max_steps is None:
            max_steps = _steps_needed(ts, dt)
    else:
        rtol, atol = 1e-4 if rtol is None else rtol, 1e-6 if atol is None else atol
        check_nonnegative("rtol", rtol)
        check_nonnegative("atol", atol)
        rtol, atol = jnp.asarray(rtol, ts.dtype), jnp.asarray(atol, ts.dtype)
    solve = _Solve(
        solver=ETDRK4() if solver is None else solver,
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps=65536 if max_steps is None else max_steps,
        progress=progress,
    )
    field = u0[None] if bare else u0
    if store is not None or checkpoint is not None:
        disk = {"store": store, "checkpoint": checkpoint, "chunk": chunk}
        disk |= {"max_steps": max_steps, "progress": progress}
        return _streamed(solve, equation, field, ts, dt, rtol, atol, args, bare, disk, throw)
    ys, result, stats = eqx.filter_jit(solve)(equation, field, ts, dt, rtol, atol, args)
    if throw:
        raise_if_failed(result, "pde.simulate")
    return Simulation(ts, ys[:, 0] if bare else ys, result, stats)


def _streamed(solve, equation, u0, ts, dt, rtol, atol, args, bare, disk, throw) -> Simulation:
    """The solve in pieces, by `jaxsci.integrate.simulate`."""
    grid = equation.grid
    term, y0, controller, dt0 = solve.setup(equation, u0, ts, dt, rtol, atol)

    def save(t, y, args):
        u = grid.ifft(term.decode(y))
        return u[0] if bare else u

    if isinstance(disk["store"], str | Path):
        axes = ("x", "y", "z")[: grid.ndim]
        coords = {
            axis: np.asarray(jnp.moveaxis(x, i, 0).reshape(x.shape[i], -1)[:, 0])
            for i, (axis, x) in enumerate(zip(axes, grid.coordinates(ts.dtype)))
        }
        disk["store"] = ZarrStore(
            disk["store"],
            name="u",
            dims=axes if bare else ("channel", *axes),
            coords=coords,
            attrs={"equation": type(equation).__name__, "lengths": list(grid.lengths)},
        )
    found = stream(
        term,
        solve.solver,
        ts,
        y0,
        dt0=dt0,
        args=args,
        stepsize_controller=controller,
        save=save,
        throw=False,
        **disk,
    )
    if throw:
        raise_if_failed(found.result, "pde.simulate")
    return Simulation(jnp.asarray(found.ts), found.ys, found.result, found.stats)


def _steps_needed(ts, dt):
    if not is_concrete(ts, dt):
        return None
    # The last step may be cut in two by rounding. A power of two: each number is compiled anew.
    needed = int(np.ceil(float((ts[-1] - ts[0]) / dt) * (1 + 1e-6))) + 2
    return 2 ** math.ceil(math.log2(needed))


class _Solve(eqx.Module):
    """The compiled part of `simulate`."""

    solver: AbstractSemilinearSolver
    adjoint: diffrax.AbstractAdjoint
    max_steps: int
    progress: bool

    def setup(self, equation, u0, ts, dt, rtol, atol):
        """Term, state, controller and first step."""
        grid = equation.grid
        uh = grid.fft(u0)
        # A real state: diffrax warns on complex ones.
        term = equation.term(real_state=is_complex(uh))
        if dt is None:
            controller = SpectralPIDController(rtol, atol, grid.norm)
            dt = (ts[1] - ts[0]) / 10
        else:
            controller = diffrax.ConstantStepSize()
        return term, term.encode(uh), controller, dt

    def __call__(self, equation, u0, ts, dt, rtol, atol, args):
        grid = equation.grid
        term, y0, controller, dt = self.setup(equation, u0, ts, dt, rtol, atol)
        meter = diffrax.TqdmProgressMeter() if self.progress else diffrax.NoProgressMeter()
        sol = diffrax.diffeqsolve(
            term,
            self.solver,
            ts[0],
            ts[-1],
            dt,
            y0,
            args,
            saveat=diffrax.SaveAt(ts=ts, fn=lambda t, y, args: grid.ifft(term.decode(y))),
            stepsize_controller=controller,
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            progress_meter=meter,
            throw=False,
        )
        stats = {k: sol.stats[k] for k in ("num_steps", "num_accepted_steps", "num_rejected_steps")}
        finished = sol.result == diffrax.RESULTS.successful
        result = RESULTS.where(finished, RESULTS.successful, RESULTS.max_steps_reached)
        # Entries that a failed solve never reached hold infinity; only a NaN is a blow-up.
        ys = jnp.asarray(sol.ys)
        finite = all_finite(ys) | (~finished & ~jnp.any(jnp.isnan(ys)))
        result = RESULTS.where(finite, result, RESULTS.nonfinite)
        return ys, result, stats
