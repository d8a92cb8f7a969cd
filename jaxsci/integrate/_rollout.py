"""`rollout`: a fixed-step solve as a plain scan, for training through solvers."""

import math
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from .._base import (
    check_at_least,
    check_choice,
    check_finite,
    checkpointed_scan,
    is_concrete,
    real_dtype,
)
from ._propagator import cast_coefficients
from ._solver import AbstractSemilinearSolver

CHECKPOINTS = ("none", "step", "sqrt", "binomial", "windowed")

Step = Callable[[Any, Any], Any]


def rollout(
    solver: diffrax.AbstractSolver,
    term: PyTree[diffrax.AbstractTerm],
    y0: PyTree[Array],
    *,
    dt: Float[ArrayLike, ""],
    num_steps: int,
    t0: Float[ArrayLike, ""] = 0.0,
    args: Any = None,
    save_every: int = 1,
    save: Callable[[Any, PyTree[Array], Any], PyTree[Array]] | None = None,
    include_initial: bool = False,
    checkpoint: str = "none",
    snapshots: int | None = None,
    window: int | None = None,
    return_finite: bool = False,
) -> PyTree[Array] | tuple[PyTree[Array], Bool[Array, " saves"]]:
    """Take `num_steps` steps of length `dt` and return the states after every `save_every` of them.

    The same steps as `diffrax.diffeqsolve` with `ConstantStepSize`, in a `jax.lax.scan`: cheaper to
    compile and to differentiate, without events, adaptive steps or output between steps.

    **Arguments:**

    - `solver`: any diffrax solver. Those of this room compute their coefficients once.
    - `term`: what the solver takes, usually a `SemilinearTerm`.
    - `y0`: initial state, a pytree of arrays.
    - `dt`: step, in the units of t; negative to integrate backwards.
    - `num_steps`: number of steps, a multiple of `save_every`.
    - `t0`: initial time.
    - `args`: passed to the term.
    - `save_every`: steps between saved states.
    - `save`: what to save, `save(t, y, args)`; the state by default.
    - `include_initial`: whether the first saved state is that at `t0`.
    - `checkpoint`: what reverse-mode differentiation stores. "none": all intermediates of all
        steps; "step": the state before each step, one more forward solve; "sqrt": about
        2 sqrt(num_steps) states, two more forward solves; "binomial": `snapshots` states, placed so
        that the fewest steps are repeated (Griewank and Walther 2000), without forward mode.
        "windowed" is another derivative, truncated backpropagation through time: it does not
        flow through the states at multiples of `window` steps, and is stored as in "sqrt".
        `memory_plan` chooses.
    - `snapshots`: stored states of "binomial", by default about sqrt(2 num_steps).
    - `window`: number of steps of "windowed".
    - `return_finite`: also return which saved states are finite.

    **Returns:**

    The saved states, stacked along a new leading axis; and the mask if asked for.

    **Raises:** `ValueError` for bad `dt`, `num_steps`, `save_every`, `checkpoint`, `snapshots` or
    `window`.
    """
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    _check_option("snapshots", snapshots, checkpoint, "binomial", needed=False)
    _check_option("window", window, checkpoint, "windowed", needed=True)
    check_at_least("num_steps", num_steps, 1)
    check_at_least("save_every", save_every, 1)
    check_finite("dt", dt)
    if is_concrete(dt) and dt == 0:
        raise ValueError("`dt` must not be zero.")
    if num_steps % save_every:
        raise ValueError(
            f"`num_steps` must be a multiple of `save_every`, got {num_steps} and {save_every}."
        )
    time_dtype = real_dtype(jnp.result_type(*jax.tree.leaves(y0)))
    t0, dt = jnp.asarray(t0, time_dtype), jnp.asarray(dt, time_dtype)
    # Else the compiler folds a constant step into whole arrays of coefficients, which then stay out
    # of its fusions: up to 1.5 times slower.
    dt = jax.lax.optimization_barrier(dt)
    y0 = jax.tree.map(jnp.asarray, y0)
    step, carry = make_step(solver, term, y0, t0, dt, args)
    if window is not None:
        step = _cut(step, window)
    save = save or (lambda t, y, args: y)

    def block(carry, index):
        start = index * save_every
        one = lambda c, i: (step(c, start + i), None)
        carry, _ = _scan(one, carry, save_every, checkpoint, snapshots)
        return carry, save(t0 + (start + save_every) * dt, carry[0], args)

    num_saves = num_steps // save_every
    # Inside a block the steps are checkpointed already; blocks of one step are the steps.
    single = checkpoint == "step" or (checkpoint != "binomial" and save_every > num_saves)
    _, saved = _scan(
        block, carry, num_saves, "none" if single else checkpoint, snapshots, remat_body=False
    )
    if include_initial:
        first = save(t0, y0, args)
        saved = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, saved)
    if not return_finite:
        return saved
    finite = [
        jnp.all(jnp.isfinite(x), axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(saved)
    ]
    return saved, jnp.all(jnp.stack(finite), axis=0)


def _check_option(name, value, checkpoint, mode, *, needed):
    if checkpoint != mode:
        if value is not None:
            raise ValueError(f"`{name}` goes with `checkpoint='{mode}'`, not with {checkpoint!r}.")
    elif value is None:
        if needed:
            raise ValueError(f"`checkpoint='{mode}'` needs `{name}`.")
    else:
        check_at_least(name, value, 1)


def _cut(step, window) -> Step:
    """The step, without derivative at the start of each window."""

    def cut(carry, index):
        begins = index % window == 0
        stop = lambda x: jnp.where(begins, jax.lax.stop_gradient(x), x)
        return step(jax.tree.map(stop, carry), index)

    return cut


def make_step(solver, term, y0, t0, dt, args) -> tuple[Step, Any]:
    """The step `(carry, index) -> carry`, and the first carry, whose first entry is the state."""
    if isinstance(solver, AbstractSemilinearSolver):
        return _semilinear_step(solver, term, y0, t0, dt, args)

    def step(carry, index):
        y, state = carry
        t = t0 + index * dt
        y, _, _, state, _ = solver.step(term, t, t0 + (index + 1) * dt, y, args, state, False)
        return y, state

    return step, (y0, solver.init(term, t0, t0 + dt, y0, args))


def _semilinear_step(solver, term, y0, t0, dt, args) -> tuple[Step, Any]:
    u0 = term.decode(y0)
    coefficients_at = lambda t: cast_coefficients(solver.coefficients(term, t, dt), u0)
    fixed = coefficients_at(t0) if term.linear.constant else None

    def step(carry, index):
        y, history = carry
        t, u = t0 + index * dt, term.decode(y)
        coefficients = coefficients_at(t) if fixed is None else fixed
        u, _, _, history = solver.advance(term, coefficients, t, dt, u, args, history)
        return term.encode(term.project(u)), history

    return step, (y0, solver.start(term, t0, u0, args))


def _scan(body, carry, length, checkpoint, snapshots=None, *, remat_body=True):
    """Scan `body(carry, index)` with the chosen checkpoints."""
    if checkpoint == "binomial":
        if length == 1:
            return jax.lax.scan(body, carry, jnp.arange(1))
        snapshots = None if snapshots is None else min(snapshots, length)
        return checkpointed_scan(body, carry, length, snapshots)
    nested = checkpoint in ("sqrt", "windowed")
    if (nested or checkpoint == "step") and remat_body:
        body = jax.checkpoint(body)
    inner = math.isqrt(length)
    if not nested or inner < 2:
        return jax.lax.scan(body, carry, jnp.arange(length))

    @jax.checkpoint
    def segment(carry, start):
        return jax.lax.scan(lambda c, i: body(c, start + i), carry, jnp.arange(inner))

    outer = length // inner
    carry, main = jax.lax.scan(segment, carry, inner * jnp.arange(outer))
    main = jax.tree.map(lambda x: x.reshape(outer * inner, *x.shape[2:]), main)
    if outer * inner == length:
        return carry, main
    carry, rest = jax.lax.scan(body, carry, jnp.arange(outer * inner, length))
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), main, rest)
