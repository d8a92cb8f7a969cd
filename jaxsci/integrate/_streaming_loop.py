"""The loop of `diffrax.diffeqsolve`, cut in pieces of any length without a trace in the result.

`diffeqsolve` shortens its last step to end at t1, so a solve in pieces takes other steps than one
in one go. This loop stops between two steps instead, and carries the solver's and the controller's
state and the length of the next step to the next piece.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from .._base import all_finite


class LoopState(eqx.Module):
    """Everything that the rest of a solve depends on.

    **Attributes:**

    - `t`, `t_next`: time, and the end of the next step.
    - `y`: the state.
    - `solver_state`, `controller_state`, `made_jump`: as in diffrax.
    - `num_saved`: how many of the wanted times are reached and handed over.
    - `num_accepted_steps`, `num_rejected_steps`: counts.
    - `failed`: whether solver or controller reported a failure.
    """

    t: Float[Array, ""]
    t_next: Float[Array, ""]
    y: PyTree
    solver_state: PyTree
    controller_state: PyTree
    made_jump: Any
    num_saved: Int[Array, ""]
    num_accepted_steps: Int[Array, ""]
    num_rejected_steps: Int[Array, ""]
    failed: Bool[Array, ""]


class StreamingLoop(eqx.Module):
    """A solve of `term` that saves `save(t, y, args)` at the times `ts`."""

    term: PyTree
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    ts: Float[Array, " time"]
    args: Any
    save: Callable[[Any, Any, Any], Any]

    def init(self, y0: PyTree, dt0: Float[ArrayLike, ""] | None) -> LoopState:
        """The state at `ts[0]`."""
        t0, t1 = self.ts[0], self.ts[-1]
        t_next, controller_state = self.controller.init(
            self.term, t0, t1, y0, dt0, self.args, self.solver.func, self._error_order
        )
        t_next = jnp.minimum(t_next, t1)
        zero = jnp.asarray(0)
        return LoopState(
            t=t0,
            t_next=t_next,
            y=y0,
            solver_state=_as_arrays(self.solver.init(self.term, t0, t_next, y0, self.args)),
            controller_state=_as_arrays(controller_state),
            made_jump=False,
            num_saved=zero,
            num_accepted_steps=zero,
            num_rejected_steps=zero,
            failed=jnp.asarray(False),
        )

    @property
    def _error_order(self) -> Any:
        return self.solver.error_order(self.term)

    def advance(
        self, state: LoopState, num_saves: int, num_steps: int, max_steps: Int[ArrayLike, ""]
    ) -> tuple[LoopState, PyTree[Array]]:
        """Go on until `num_saves` outputs are there, `num_steps` steps are taken, or the end.

        A step that reaches more times than there is room for is not finished: its outputs are
        handed over as far as they fit, and it is taken again in the next piece.

        **Arguments:**

        - `state`: where to start.
        - `num_saves`: room for outputs.
        - `num_steps`: largest number of steps of this piece.
        - `max_steps`: largest number of steps of the whole solve.

        **Returns:** the new state, and the outputs, of which the first
        `new.num_saved - state.num_saved` count.
        """
        # A jump that no controller can make must stay known to be false, or solvers prepare for it.
        _, jump = eqx.filter_eval_shape(self._attempt, state)
        static_jump = isinstance(jump, bool)
        if not static_jump:
            state = eqx.tree_at(lambda s: s.made_jump, state, jnp.asarray(state.made_jump))
        dynamic, static = eqx.partition(state, eqx.is_array)
        first = state.num_saved
        like = eqx.filter_eval_shape(self.save, state.t, state.y, self.args)
        buffer = jax.tree.map(lambda x: jnp.zeros((num_saves, *x.shape), x.dtype), like)

        def running(loop):
            dynamic, _, count, full = loop
            now = eqx.combine(dynamic, static)
            steps = now.num_accepted_steps + now.num_rejected_steps
            return (
                (now.t < self.ts[-1])
                & ~full
                & ~now.failed
                & (count < num_steps)
                & (steps < max_steps)
            )

        def body(loop):
            dynamic, buffer, count, _ = loop
            now = eqx.combine(dynamic, static)
            (proposed, keep, interpolation), _ = self._attempt(now)
            saved, buffer = self._hand_over(now, interpolation, keep, buffer, first)
            full = saved - first >= num_saves
            waiting = keep & (saved < len(self.ts))
            waiting &= self.ts[jnp.minimum(saved, len(self.ts) - 1)] <= now.t_next
            proposed = eqx.tree_at(lambda s: s.num_saved, proposed, saved)
            # Outputs of this step did not fit: stay before it.
            again = eqx.tree_at(lambda s: s.num_saved, now, saved)
            chosen = jax.tree.map(
                lambda a, b: jnp.where(waiting, a, b),
                eqx.filter(again, eqx.is_array),
                eqx.filter(proposed, eqx.is_array),
            )
            return chosen, buffer, count + 1, full

        start = dynamic, buffer, jnp.asarray(0), jnp.asarray(False)
        dynamic, buffer, _, _ = jax.lax.while_loop(running, body, start)
        return eqx.combine(dynamic, static), buffer

    def _attempt(self, now):
        """The state after one attempted step, whether it is kept, its dense output; made_jump."""
        y, error, dense, solver_state, solver_result = self.solver.step(
            self.term, now.t, now.t_next, now.y, self.args, now.solver_state, now.made_jump
        )
        error = jax.tree.map(lambda x: jnp.where(jnp.isnan(x), jnp.inf, x), error)
        keep, t, t_next, jump, controller_state, controller_result = (
            self.controller.adapt_step_size(
                now.t,
                now.t_next,
                now.y,
                y,
                self.args,
                error,
                self._error_order,
                now.controller_state,
            )
        )
        keep = jnp.asarray(keep)
        t1 = self.ts[-1]
        t = jnp.minimum(t, t1)
        # Within rounding of the end, go there.
        floor = t1 - 100 * (t1 - jnp.nextafter(t1, jnp.full_like(t1, -jnp.inf)))
        t_next = jnp.where(t_next > floor, jnp.where(keep, t1, t + 0.5 * (t1 - t)), t_next)
        kept = lambda a, b: jax.tree.map(lambda x, y: jnp.where(keep, x, y), a, b)
        stuck = (t_next <= t) & (t < t1)
        ok = jnp.asarray(solver_result == diffrax.RESULTS.successful) | ~keep
        ok &= jnp.asarray(controller_result == diffrax.RESULTS.successful)
        jump_out = jump
        if not isinstance(jump, bool):
            jump = jnp.where(keep, jump, now.made_jump)
        state = LoopState(
            t=t,
            t_next=t_next,
            y=kept(y, now.y),
            solver_state=_keep_arrays(keep, solver_state, now.solver_state),
            controller_state=_as_arrays(controller_state),
            made_jump=jump,
            num_saved=now.num_saved,
            num_accepted_steps=now.num_accepted_steps + keep,
            num_rejected_steps=now.num_rejected_steps + ~keep,
            failed=now.failed | ~ok | stuck | (keep & ~all_finite(y)),
        )
        interpolation = self.solver.interpolation_cls(t0=now.t, t1=now.t_next, **dense)
        return (state, keep, interpolation), jump_out

    def _hand_over(self, now, interpolation, keep, buffer, first):
        """Save at the wanted times within the step, as long as there is room."""
        room = jax.tree.leaves(buffer)[0].shape[0]

        def wanted(loop):
            saved, _ = loop
            t = self.ts[jnp.minimum(saved, len(self.ts) - 1)]
            return keep & (saved < len(self.ts)) & (t <= now.t_next) & (saved - first < room)

        def one(loop):
            saved, buffer = loop
            t = self.ts[saved]
            out = self.save(t, interpolation.evaluate(t), self.args)
            buffer = jax.tree.map(lambda b, x: b.at[saved - first].set(x), buffer, out)
            return saved + 1, buffer

        return jax.lax.while_loop(wanted, one, (now.num_saved, buffer))


def _as_arrays(tree):
    """Numbers as arrays: some solvers start with a Python bool that becomes an array."""
    return jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_array_like(x) else x, tree)


def _keep_arrays(keep, new, old):
    new_arrays, static = eqx.partition(_as_arrays(new), eqx.is_array)
    old_arrays = eqx.filter(old, eqx.is_array)
    chosen = jax.tree.map(lambda a, b: jnp.where(keep, a, b), new_arrays, old_arrays)
    return eqx.combine(chosen, static)
