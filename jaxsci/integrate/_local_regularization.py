"""`LocalRegularization`: penalise the solver's own estimate of one step at a random time.

Pal, Edelman, Rackauckas, Locally regularized neural differential equations, ICML 2023, arXiv
2303.02262. Training is pushed towards dynamics that take few steps. The penalty is that of one
extra step, so the main solve keeps its solver, adjoint and output.
"""

import warnings
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from .._base import check_choice, check_positive
from ._observed_solver import (
    AbstractObserver,
    AT_END,
    CHECKPOINTED,
    CONSTANT,
    observed_solve,
    Step,
)
from ._step_estimates import check_kind, check_options, normalized_controller, step_estimates


class LocalRegularization(eqx.Module):
    """Solve a differential equation and return, besides the solution, a penalty for hard dynamics.

    One step of length h is taken from (tau, y(tau)), and the penalty is, with `step_estimates`,

        kind="error":       h error         kind="stiffness":       stiffness

    By default tau, y(tau) and h are constants: the gradient reaches the parameters only through
    the one step, and the adjoint of the solve plays no role in it.

    **Arguments:**

    - `kind`: "error" works for every solver with an error estimate; "stiffness" for explicit
        Runge-Kutta methods with two stages at the end of the step (Tsit5, Dopri5, Dopri8).
    - `sampling`: "unbiased": tau is uniform in [t0, t1]; "biased": tau is the start of an accepted
        step, all with equal probability, so that tau is more often where the steps are short.
    - `step`: h. "accepted": length of the accepted step that holds tau; "initial": the step that
        `diffrax.PIDController` would start with at tau, as in the paper; or a number, in the units
        of t. Never beyond t1.
    - `normalize`: "tolerance": the error is in units of the controller's tolerance; "state": in
        units of 1 + |y|.
    - `through_solution`: differentiate through y(tau) as well. `diffrax.BacksolveAdjoint` cannot.
    - `stability_size`: length of the stability interval in the stiffness; by default that of the
        solver.

    !!! tip "Size of the penalty"

        With "tolerance" and "accepted" an error is of order one whatever the tolerance, and so are
        useful weights over h. The initial step is far more careful than the accepted one: at
        tolerances well above rounding its error is 1e-6 of that and less, and so are the effects
        of a weight of order one. With "state" errors are of the size of the tolerance. The
        stiffness needs no scale.

    ??? cite "Reference"

        Pal, Edelman, Rackauckas, Locally regularized neural differential equations: some black
        boxes were meant to remain closed!, ICML 2023, arXiv 2303.02262.
    """

    kind: str = eqx.field(static=True)
    sampling: str = eqx.field(static=True)
    step: str | float = eqx.field(static=True)
    normalize: str = eqx.field(static=True)
    through_solution: bool = eqx.field(static=True)
    stability_size: float | None = eqx.field(static=True)

    def __init__(
        self,
        kind: str = "error",
        sampling: str = "unbiased",
        step: str | float = "accepted",
        *,
        normalize: str = "tolerance",
        through_solution: bool = False,
        stability_size: float | None = None,
    ):
        check_options(kind, normalize, stability_size)
        check_choice("sampling", sampling, ("unbiased", "biased"))
        if isinstance(step, str):
            check_choice("step", step, ("accepted", "initial"))
        else:
            check_positive("step", step)
        self.kind = kind
        self.sampling = sampling
        self.step = step
        self.normalize = normalize
        self.through_solution = through_solution
        self.stability_size = stability_size

    def solve(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        solver: diffrax.AbstractSolver,
        t0: Any,
        t1: Any,
        dt0: Any,
        y0: PyTree,
        args: Any = None,
        *,
        key: Key[Array, ""] | None,
        saveat: diffrax.SaveAt = AT_END,
        stepsize_controller: diffrax.AbstractStepSizeController = CONSTANT,
        adjoint: diffrax.AbstractAdjoint = CHECKPOINTED,
        **options: Any,
    ) -> tuple[diffrax.Solution, Float[Array, ""]]:
        """`diffrax.diffeqsolve`, and the penalty.

        At test time call `diffrax.diffeqsolve` itself: the solution is the same.

        **Arguments:** as for `diffrax.diffeqsolve`, except

        - `key`: random key that draws tau; a new one for every update.

        **Returns:**

        The solution, with exactly what `saveat` asks for, and the penalty, a scalar. The penalty is
        zero if the solve ended (at an event, or failed with `throw=False`) before tau.

        **Raises:** `ValueError` if the solver lacks the estimate, the controller what `normalize`
        or `step` needs, or `t1` is not after `t0`.
        """
        if key is None:
            raise ValueError("`key` must be a random key, got None.")
        controller = normalized_controller(stepsize_controller, self.kind, self.normalize)
        check_kind(self.kind, terms, solver, t0, t1, y0, args, controller)
        self._check(terms, stepsize_controller, adjoint)
        sampler = _StepSampler(key, t0, t1, self.sampling, self.through_solution)
        sol, record = observed_solve(
            sampler,
            terms,
            solver,
            t0,
            t1,
            dt0,
            y0,
            args,
            saveat=saveat,
            stepsize_controller=stepsize_controller,
            adjoint=adjoint,
            **options,
        )
        return sol, self._penalty(terms, solver, t1, args, record, stepsize_controller, controller)

    def _penalty(self, terms, solver, t1, args, record, stepsize_controller, controller):
        t, y = record.t, record.y
        if not self.through_solution:
            y = jax.lax.stop_gradient(y)
        if self.step == "accepted":
            h = record.h
        elif self.step == "initial":
            inner = _pid(stepsize_controller)
            order = solver.error_order(terms)
            h = inner.init(terms, t, t1, y, None, args, solver.func, order)[0] - t
        else:
            h = jnp.asarray(self.step, t.dtype)
        remaining = jnp.asarray(t1, t.dtype) - t
        h = jax.lax.stop_gradient(jnp.minimum(h, remaining))
        taken = record.taken & (h > 0)
        h = jnp.where(taken, h, jnp.where(remaining > 0, remaining, 1))
        estimates = step_estimates(
            terms, solver, t, y, h, args, controller, stability_size=self.stability_size
        )
        if self.kind == "error":
            assert estimates.error is not None
            penalty = estimates.error * h.astype(estimates.error.dtype)
        else:
            assert estimates.stiffness is not None
            penalty = estimates.stiffness
        return jnp.where(taken, penalty, 0)

    def _check(self, terms, controller, adjoint):
        if self.through_solution and isinstance(adjoint, diffrax.BacksolveAdjoint):
            raise ValueError(
                "`through_solution` must be False with BacksolveAdjoint, which differentiates the "
                "saved states only; use RecursiveCheckpointAdjoint."
            )
        if self.step == "initial" and not (
            isinstance(terms, diffrax.ODETerm) and _pid(controller) is not None
        ):
            raise ValueError(
                f'step="initial" needs a `diffrax.ODETerm` and a `diffrax.PIDController`, got '
                f"{type(terms).__name__} and {type(controller).__name__}; use "
                'step="accepted" or a number.'
            )
        if self.sampling == "biased" and isinstance(controller, diffrax.ConstantStepSize):
            warnings.warn(
                'With ConstantStepSize all steps are equally long: sampling="biased" does not '
                "prefer times at which the solver works hard.",
                stacklevel=3,
            )


def _pid(controller: Any) -> Any:
    while isinstance(controller, diffrax.ClipStepSizeController):
        controller = controller.controller
    return controller if isinstance(controller, diffrax.PIDController) else None


class _Sample(NamedTuple):
    """Time and state where the extra step starts, length of the accepted step there."""

    t: Float[Array, ""]
    y: PyTree[Array]
    h: Float[Array, ""]
    taken: Array
    seen: Array


class _StepSampler(AbstractObserver):
    """Keeps one time of the solve: uniform in time, or (reservoir sampling) in accepted steps."""

    key: Key[Array, ""]
    t0: Any
    t1: Any
    sampling: str = eqx.field(static=True)
    through_solution: bool = eqx.field(static=True)

    def init(self, t0: Float[Array, ""], y0: PyTree[Array]) -> _Sample:
        """Nothing sampled yet."""
        return _Sample(t0, y0, jnp.zeros_like(t0), jnp.array(False), jnp.array(0))

    def observe(self, record: _Sample, step: Step) -> _Sample:
        """Keep the old sample or take one from this step."""
        seen = record.seen + 1
        if self.sampling == "biased":
            # The n-th step replaces the sample with probability 1/n: all are equally likely.
            draw = jax.random.uniform(jax.random.fold_in(self.key, record.seen))
            take, t = draw * seen < 1, step.t0
            state = lambda: step.y0
        else:
            dtype = step.t0.dtype
            t0, t1 = jnp.asarray(self.t0, dtype), jnp.asarray(self.t1, dtype)
            t = t0 + (t1 - t0) * jax.random.uniform(self.key, dtype=dtype)
            take = (step.t0 <= t) & (t < step.t1)

            def state():
                path = step.interpolation_cls(t0=step.t0, t1=step.t1, **step.dense_info)
                return jax.tree.map(lambda a, b: a.astype(b.dtype), path.evaluate(t), step.y0)

        y = jax.lax.cond(take, state, lambda: record.y)
        if not self.through_solution:
            y = jax.lax.stop_gradient(y)
        t = jnp.where(take, t, record.t)
        h = jnp.where(take, step.t1 - step.t0, record.h)
        t, h = jax.lax.stop_gradient((t, h))
        return _Sample(t, y, h, record.taken | take, seen)
