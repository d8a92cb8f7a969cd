"""`fit`: gradient training of any pytree model by any optax transform."""

import contextlib
import operator
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._base import (
    at_least_float32,
    check_at_least,
    check_interval,
    is_array,
    progress_bar,
    raise_if_failed,
    RESULTS,
)
from ._checkpoint import Checkpoint, CheckpointManager
from ._masks import trainable
from ._placement import kept_shardings, place
from ._run import Rows, Run
from ._update import Carry, evaluate, Parts, Program

_RESERVED = ("step", "loss", "grad_norm")
# Updates handed to the device ahead of the one it works on; each holds its batch in memory.
_RUN_AHEAD = 64
# Stands where the batches have their step, so that the loss draws from keys of its own.
_LOSS_STREAM = np.uint32(2**32 - 1)


class FitResult(eqx.Module):
    """What [`fit`][jaxsci.train.fit] returns.

    - `model`: the trained model; after a failure, with its last finite parameters.
    - `opt_state`: the state of the optimizer.
    - `ema`: the model with the moving average of its parameters (half-precision parameters in
        float32), or `None`.
    - `step`: the number of updates taken, those before a resumed checkpoint included.
    - `metrics`: arrays over the logged steps: `step`, `loss`, `grad_norm` and the auxiliary ones.
        The row of step s holds the loss and gradient that the s-th update started from.
    - `result`: `RESULTS.successful` or `RESULTS.nonfinite`.
    """

    model: PyTree
    opt_state: PyTree
    ema: PyTree
    step: int
    metrics: dict[str, Any]
    result: RESULTS


class FitState(NamedTuple):
    """What a callback of [`fit`][jaxsci.train.fit] sees.

    - `step`: the number of updates taken.
    - `metrics`: this step's row of the metrics, as NumPy scalars and arrays.
    - `model`: a function returning the current model. It copies the parameters, which the next
        update overwrites; not calling it costs nothing.
    - `ema`: a function returning the averaged model, or `None` without averaging.
    """

    step: int
    metrics: dict[str, Any]
    model: Callable[[], PyTree]
    ema: Callable[[], PyTree]


def fit(
    loss: Callable[..., Any],
    model: PyTree,
    batches: Callable[..., PyTree],
    tx: optax.GradientTransformation,
    *,
    key: PRNGKeyArray,
    num_steps: int,
    where: Callable[[PyTree], PyTree] = trainable,
    microbatch: int = 1,
    ema: float | None = None,
    callbacks: Sequence[Callable[[FitState], Any]] = (),
    checkpoint: Checkpoint | None = None,
    mesh: Any = None,
    throw: bool = True,
    log_every: int = 10,
    steps_per_call: int = 1,
    progress: bool = False,
) -> FitResult:
    """Train `model` by `num_steps` updates of `tx` on `loss`.

    Step s (from 0) uses `batches(s, jax.random.fold_in(key, s))` and, for the loss, another key
    folded in with s, so a run that is stopped and resumed repeats exactly the run that was not. The
    update is compiled once; calling `fit` again with the same `loss`, `tx` and structure compiles
    nothing. The host stays ahead of the device: it waits only at logged steps, where it reads the
    metrics and checks that all was finite.

    Each update calls `tx.update(grads, state, params, value=, grad=, value_fn=, obj_fn=)`, where
    `value_fn` and `obj_fn` are the same function `params -> loss` on the current batch and key:
    line searches and second-order transforms work unchanged. Where the loss has a method
    `objective(batch, key)`, as that of [`likelihood_loss`][jaxsci.train.likelihood_loss], `obj_fn`
    is the `curvature` objective it returns, as a function of the parameters.

    Inputs may be sharded (data-parallel: parameters replicated, batches split): arrays on a single
    device are replicated over the mesh of the sharded ones, and parameters keep their sharding.

    **Arguments:**

    - `loss`: `(model, batch, key) -> scalar` or `-> (scalar, dict of metrics)`. The arrays of a
        loss that is a pytree (an Equinox module, a `jax.tree_util.Partial`) are arguments of the
        compiled update; what a plain function closes over is a constant of it, as in `jax.jit`.
    - `model`: any pytree: an Equinox module, a dictionary of parameters, ...
    - `batches`: `(step, key) -> batch`, a pure function with a key of its own for every step; see
        [`minibatches`][jaxsci.train.minibatches] for a data set.
    - `tx`: an optax transform.
    - `key`: a typed key (`jax.random.key`).
    - `num_steps`: the step to reach, those before a resumed checkpoint included.
    - `where`: `model -> pytree of bool` (or a prefix of one, as for `eqx.partition`): what is
        trained.
    - `microbatch`: split the leading axis of every batch leaf into this many parts (scalars are
        shared), whose losses, metrics and gradients are averaged one after the other: for losses
        that are means over the batch, the same update in a fraction of the memory.
    - `ema`: the decay d in [0, 1) of the moving average `e <- d e + (1 - d) p` of the parameters,
        started at the initial ones.
    - `callbacks`: functions of a [`FitState`][jaxsci.train.FitState], called at logged steps; a
        truthy answer ends the run.
    - `checkpoint`: where to save and resume; see [`Checkpoint`][jaxsci.train.Checkpoint]. The
        restored key takes the place of `key`.
    - `mesh`: not supported yet.
    - `throw`: whether to raise when a non-finite loss or parameter ends the run.
    - `log_every`: log the first step, the multiples of this number and the last one.
    - `steps_per_call`: run up to this many updates in one compiled loop, for models so small that
        the time goes into starting each update. `batches` must then be traceable.
    - `progress`: show a progress bar, if tqdm is installed.

    **Returns:**

    A [`FitResult`][jaxsci.train.FitResult].

    **Raises:**

    - `ValueError`, `TypeError`: an argument is out of range or does not fit the others; the loss is
        not a real scalar; a trained leaf is complex or not floating-point; the structure differs
        from that of the checkpoint, with the first path that differs.
    - `ImportError`: `checkpoint` is given and orbax is not installed.
    - `RuntimeError`: the loss or a parameter became non-finite (only with `throw=True`).
    """
    if mesh is not None:
        raise ValueError(
            "`mesh` must be None (not supported yet), got a mesh: shard the model and the batches "
            "yourself, `fit` keeps their sharding."
        )
    for name, count, minimum in (
        ("num_steps", num_steps, 0),
        ("microbatch", microbatch, 1),
        ("log_every", log_every, 1),
        ("steps_per_call", steps_per_call, 1),
    ):
        _check_count(name, count, minimum)
    if ema is not None:
        check_interval("ema", ema, 0.0, 1.0, closed="left")
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"`key` must be a typed key, as from `jax.random.key(0)`, got {key!r}.")

    params, rest = _partition(model, where)
    opt_state = tx.init(params)
    average = None if ema is None else jax.tree.map(_averaged, params)
    carry = Carry(params, opt_state, average, jnp.int32(0), jnp.array(True))
    # The update takes over its buffers: it must own them, each once.
    carry = jax.tree.map(_owned, carry)
    in_loop = steps_per_call > 1
    parts = Parts(loss, batches if in_loop else None, rest)
    arrays, static = eqx.partition(parts, is_array)
    arrays = jax.tree.map(jnp.asarray, arrays)

    with contextlib.ExitStack() as stack:
        manager = None
        if checkpoint is not None:
            manager = stack.enter_context(CheckpointManager(checkpoint))
        start = 0 if manager is None else manager.latest or 0
        if in_loop:
            example = eqx.filter_eval_shape(batches, jnp.int32(start), key)
        else:
            example = batches(start, _fold_in(key, start))
        carry, arrays, key = place((carry, arrays, key), example)
        _check_loss(parts, params, example, key, microbatch)
        program = Program.build(static, arrays, carry, tx, microbatch, kept_shardings(carry))
        run, rows = Run(program, carry, arrays, key, ema), Rows()
        if manager is not None and manager.latest is not None:
            rows = Rows(run.restore(manager))
        settings = {
            "microbatch": microbatch,
            "ema": None if ema is None else float(ema),
            "x64": jnp.result_type(float) == jnp.float64,
        }
        bar = stack.enter_context(progress_bar(progress, "step", num_steps, start))
        batch_key, loss_key = run.key, _fold_in(run.key, _LOSS_STREAM)

        def is_logged(step):
            return step == 1 or step % log_every == 0 or step == num_steps

        def is_saved(step):
            return checkpoint is not None and step % checkpoint.every == 0

        step, stop, finite = start, False, True
        in_flight = deque()
        while step < num_steps and not stop:
            if in_loop:
                count = 1
                while count < steps_per_call and not (
                    is_logged(step + count) or is_saved(step + count)
                ):
                    count += 1
                row = run.update_many(count, (loss_key, batch_key))
            else:
                count = 1
                row = run.update(batches(step, _fold_in(batch_key, step)), loss_key)
            step += count
            in_flight.append(row["loss"])
            if len(in_flight) > _RUN_AHEAD:
                in_flight.popleft().block_until_ready()
            if not (is_logged(step) or is_saved(step)):
                continue
            finite, row = jax.device_get((run.finite, row))
            if not finite:
                break
            if is_logged(step):
                in_flight.clear()
                row = {"step": np.int32(step), **row}
                rows.append(row)
                answers = [f(FitState(step, row, run.model, run.ema)) for f in callbacks]
                stop = any(answers)
                bar.set_postfix(loss=f"{row['loss']:.3e}", refresh=False)
                bar.update(step - bar.n)
            if manager is not None and is_saved(step):
                manager.save(step, run.state(), rows.stacked(), settings)
        if manager is not None and finite:
            manager.save(step, run.state(), rows.stacked(), settings)

    result: Any = RESULTS.successful if finite else RESULTS.nonfinite
    carry = run.carry
    step = int(carry.step)
    if throw:
        raise_if_failed(result, f"`fit` after {step} updates")
    model, average = run.model(copy=False), run.ema(copy=False)
    return FitResult(model, carry.opt_state, average, step, rows.stacked(), result)


_fold_in = jax.jit(jax.random.fold_in)


def _check_count(name: str, value: Any, minimum: int) -> None:
    try:
        operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, got {value!r}.") from None
    check_at_least(name, value, minimum)


def _owned(x: Any) -> Array:
    """A copy of `x`, strongly typed: a weak type would be lost, and compiled anew, in an update."""
    is_key = jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key)
    return jnp.copy(x) if is_key else jnp.array(x, dtype=jnp.result_type(x))


def _averaged(x: Array) -> Array:
    return jnp.asarray(x, at_least_float32(x))


def _partition(model: PyTree, where: Callable[[PyTree], PyTree]) -> tuple[PyTree, PyTree]:
    params, rest = eqx.partition(model, where(model))
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        raise ValueError(
            "`where` must select at least one parameter of `model`, got none (are its arrays "
            "floating-point, and outside `NonTrainable`?)."
        )
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        if not (is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)):
            raise ValueError(
                f"`where` must select floating-point arrays, got {leaf!r} at `model`{name}."
            )
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise ValueError(
                f"`where` must select real arrays, got {leaf.dtype} at `model`{name}: store real "
                "and imaginary parts. JAX's gradient of a complex array is the conjugate of the "
                "direction of ascent, and optax does not conjugate it."
            )
    return jax.tree.map(jnp.asarray, params), rest


def _check_loss(
    parts: Parts, params: PyTree, batch: PyTree, key: PRNGKeyArray, microbatch: int
) -> None:
    if microbatch > 1:
        sizes = {jnp.shape(x)[0] for x in jax.tree.leaves(batch) if jnp.ndim(x)}
        if len(sizes) != 1:
            raise ValueError(
                "`microbatch` needs batches whose leaves have one leading axis, got lengths "
                f"{sorted(sizes)}."
            )
        if (size := sizes.pop()) % microbatch:
            raise ValueError(
                f"`microbatch` must divide the leading axis of the batches, {size}, got "
                f"{microbatch}."
            )
    value, aux = eqx.filter_eval_shape(evaluate, parts, params, batch, key)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            "`loss` must return a real floating-point scalar, got shape "
            f"{value.shape} and dtype {value.dtype}."
        )
    if not isinstance(aux, dict) or not all(hasattr(x, "shape") for x in aux.values()):
        raise ValueError(f"`loss` must return its metrics as one dict of arrays, got {aux}.")
    if taken := sorted(set(aux) & set(_RESERVED)):
        raise ValueError(f"`loss` must not name a metric {taken[0]!r}: `fit` logs its own.")
