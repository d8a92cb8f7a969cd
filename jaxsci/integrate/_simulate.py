"""`simulate`: long solves in compiled pieces, streamed to disk, that survive a crash."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._base import (
    all_finite,
    check_at_least,
    check_finite,
    raise_if_failed,
    real_dtype,
    RESULTS,
)
from ._diffrax_compat import with_tolerances, wrap
from ._loop_checkpoint import fingerprint, load_checkpoint, save_checkpoint
from ._streaming_loop import LoopState, StreamingLoop
from ._zarr_store import ZarrStore


class StreamedSolution(eqx.Module):
    """What `simulate` returns.

    **Attributes:**

    - `ts`: the times reached, `(time,)`.
    - `ys`: what was saved at them, NumPy arrays with a leading time axis; with a store its zarr
        arrays, which read from disk what is indexed.
    - `y`: the state at the end of the last step.
    - `result`: a code of `RESULTS`, successful or why not.
    - `stats`: counts of steps taken, accepted and rejected.
    """

    ts: np.ndarray
    ys: Any
    y: PyTree
    result: RESULTS
    stats: dict[str, int]


def simulate(
    term: PyTree[diffrax.AbstractTerm],
    solver: diffrax.AbstractSolver,
    ts: Float[ArrayLike, " time"],
    y0: PyTree[Array],
    *,
    dt0: Float[ArrayLike, ""] | None,
    args: Any = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    save: Callable[[Any, PyTree[Array], Any], PyTree[Array]] | None = None,
    chunk: int = 16,
    chunk_steps: int = 4096,
    store: str | Path | ZarrStore | None = None,
    checkpoint: str | Path | None = None,
    max_steps: int | None = None,
    progress: bool = False,
    throw: bool = True,
) -> StreamedSolution:
    """Solve from `ts[0]` to `ts[-1]` in compiled pieces, and save at the times `ts`.

    The same accepted steps and saved values as one `diffrax.diffeqsolve`, whatever the pieces.
    While the device works on one piece, a thread writes the piece before: outputs to the store,
    then the state of the solve to the checkpoint. Called again with the same arguments after a
    crash, it goes on from the checkpoint, and the end is the same to the last bit.

    A Python loop: not for use inside `jax.jit`, and without derivatives; use `rollout` or
    `diffrax.diffeqsolve` for those. Integrates forwards only.

    **Arguments:**

    - `term`, `solver`, `y0`, `dt0`, `args`, `stepsize_controller`: as for `diffrax.diffeqsolve`;
        the step is constant by default.
    - `ts`: increasing times to save at; `y0` is the state at the first.
    - `save`: what to save, `save(t, y, args)`; the state by default.
    - `chunk`: number of saved times in a piece, and in a chunk of the store.
    - `chunk_steps`: largest number of steps in a piece: how much work a crash costs.
    - `store`: where to stream what is saved: a path, or a `ZarrStore` with names and coordinates.
        By default everything is kept in memory.
    - `checkpoint`: file of the checkpoint; needs `store`, which keeps the outputs before it.
    - `max_steps`: largest number of steps in all; by default there is none.
    - `progress`: show a progress bar of the saved times.
    - `throw`: raise `RuntimeError` if the solve fails, rather than only report it in `result`.

    **Returns:** a `StreamedSolution`.

    **Raises:** `ValueError` for bad times or sizes, or for a checkpoint of another solve, as far as
    array leaves tell (numbers that a function has captured cannot be compared);
    `FileExistsError` if there is something at `store` already, but no checkpoint.
    """
    y0 = jax.tree.map(jnp.asarray, y0)
    ts = np.asarray(ts, real_dtype(jnp.result_type(*jax.tree.leaves(y0))))
    _check(ts, dt0, chunk, chunk_steps, max_steps, store, checkpoint)
    controller = diffrax.ConstantStepSize() if stepsize_controller is None else stepsize_controller
    loop = StreamingLoop(
        term=wrap(term),
        solver=with_tolerances(solver, controller),
        controller=controller,
        ts=jnp.asarray(ts),
        args=args,
        save=_state if save is None else save,
    )
    dt0 = None if dt0 is None else jnp.asarray(dt0, ts.dtype)
    state = _init(loop, y0, dt0)
    configuration = {
        "times": fingerprint(ts),
        "initial state, step or arguments": fingerprint((y0, dt0, args)),
        "term, solver or controller": fingerprint((term, solver, stepsize_controller))
        + str(jax.tree.structure((term, solver, stepsize_controller)).num_leaves),
    }
    path = None if checkpoint is None else Path(checkpoint)
    store = ZarrStore(store) if isinstance(store, str | Path) else store
    if path is not None and path.exists():
        state = load_checkpoint(path, state, configuration)
    elif store is not None:
        store.check_absent()
        if path is not None:
            # From now on the store is known to be of this solve.
            save_checkpoint(path, state, configuration)
    output = _Output(loop, state, chunk, store, path, configuration)
    limit = np.iinfo(np.int32).max if max_steps is None else max_steps
    state = _run(loop, state, output, chunk, chunk_steps, limit, progress, len(ts))
    result = _result(loop, state)
    if throw:
        raise_if_failed(result, "integrate.simulate")
    accepted, rejected = int(state.num_accepted_steps), int(state.num_rejected_steps)
    stats = {
        "num_steps": accepted + rejected,
        "num_accepted_steps": accepted,
        "num_rejected_steps": rejected,
    }
    return StreamedSolution(ts[: int(state.num_saved)], output.saved(), state.y, result, stats)


def _state(t, y, args):
    return y


def _check(ts, dt0, chunk, chunk_steps, max_steps, store, checkpoint):
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"`ts` must be at least two times, got shape {ts.shape}.")
    check_finite("ts", ts)
    if not np.all(np.diff(ts) > 0):
        raise ValueError(f"`ts` must increase strictly, got {ts}.")
    if dt0 is not None and not dt0 > 0:
        raise ValueError(f"`dt0` must be positive, got {dt0}.")
    check_at_least("chunk", chunk, 1)
    check_at_least("chunk_steps", chunk_steps, 1)
    if max_steps is not None:
        check_at_least("max_steps", max_steps, 1)
    if checkpoint is not None and store is None:
        raise ValueError("`checkpoint` needs `store`, which keeps the outputs before it.")


@eqx.filter_jit
def _init(loop, y0, dt0):
    return loop.init(y0, dt0)


@eqx.filter_jit
def _advance(loop, state, num_saves, num_steps, max_steps):
    return loop.advance(state, num_saves, num_steps, max_steps)


def _run(loop, state, output, chunk, chunk_steps, limit, progress, total) -> LoopState:
    """Advance to the end, one piece ahead of the writer."""
    limit = jnp.asarray(limit)
    bar = _bar(progress, total, int(state.num_saved))
    try:
        pending = _advance(loop, state, chunk, chunk_steps, limit)
        while True:
            new, buffer = pending
            # Dispatched before the results are waited for: the device does not idle. At the end it
            # finds nothing to do.
            pending = _advance(loop, new, chunk, chunk_steps, limit)
            first, last = int(state.num_saved), int(new.num_saved)
            before, after = _steps(state), _steps(new)
            output.put(first, last, buffer, new)
            bar.update(last - first)
            state = new
            done = float(new.t) >= float(loop.ts[-1]) and last == len(loop.ts)
            if done or bool(new.failed) or after >= int(limit) or (before, first) == (after, last):
                break
    finally:
        output.close()
        bar.close()
    return state


def _steps(state):
    return int(state.num_accepted_steps) + int(state.num_rejected_steps)


def _result(loop, state):
    finite = bool(all_finite(state.y)) and not bool(state.failed)
    if bool(state.t >= loop.ts[-1]) and finite:
        return RESULTS.successful
    if not finite:
        return RESULTS.nonfinite if not bool(all_finite(state.y)) else RESULTS.not_converged
    return RESULTS.max_steps_reached


class _Output:
    """Takes pieces in order, and writes them from a thread of its own."""

    def __init__(self, loop, state, chunk, store, checkpoint, configuration):
        self.ts = np.asarray(loop.ts)
        self.checkpoint = checkpoint
        self.configuration = configuration
        self.parts: list[Any] = []
        self.error: BaseException | None = None
        like = eqx.filter_eval_shape(loop.save, state.t, state.y, loop.args)
        self.store = store
        if self.store is not None:
            self.like = like
            self.arrays = self.store.open(like, chunk, int(state.num_saved))
        # Room for two: a slow disk holds up the solve rather than fill the memory.
        self.queue: queue.Queue = queue.Queue(maxsize=2)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def put(self, first, last, buffer, state):
        """Hand over the outputs `first` to `last` and the state after them."""
        if self.error is not None:
            raise self.error
        self.queue.put((first, last, buffer, state))

    def _work(self):
        while (item := self.queue.get()) is not None:
            if self.error is None:
                try:
                    self._write(*item)
                except BaseException as error:
                    self.error = error

    def _write(self, first, last, buffer, state):
        ys = jax.tree.map(lambda x: np.asarray(x)[: last - first], buffer)
        if self.store is None:
            self.parts.append(ys)
            return
        if last > first:
            self.store.append(self.arrays, self.ts[first:last], ys)
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint, state, self.configuration)

    def close(self):
        """Wait until everything is written."""
        self.queue.put(None)
        self.thread.join()
        if self.error is not None:
            raise self.error

    def saved(self):
        """All outputs: arrays in memory, or those of the store."""
        if self.store is None:
            return jax.tree.map(lambda *x: np.concatenate(x), *self.parts)
        names = self.store.named(self.like)
        structure = jax.tree.structure(self.like)
        return jax.tree.unflatten(structure, [self.arrays[name] for name in names])


def _bar(progress, total, start):
    if not progress:
        return _NoBar()
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("`progress` needs tqdm: pip install 'jaxsci[train]'.") from error
    return tqdm(total=total, initial=start, unit="save")


class _NoBar:
    """A progress bar that shows nothing."""

    def update(self, count):
        """Do nothing."""

    def close(self):
        """Do nothing."""
