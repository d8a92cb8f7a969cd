"""`GlobalRegularization`: penalise the solver's estimates of all accepted steps.

Pal, Ma, Shah, Rackauckas, Opening the blackbox: accelerating neural differential equations by
regularizing internal solver heuristics, ICML 2021, arXiv 2105.03918.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._base import real_dtype
from ._observed_solver import (
    AbstractObserver,
    AT_END,
    CHECKPOINTED,
    CONSTANT,
    observed_solve,
    Step,
)
from ._step_estimates import (
    check_kind,
    check_options,
    normalized_controller,
    scaled_error,
    stiffness_estimate,
)


class GlobalRegularization(eqx.Module):
    """Solve a differential equation and return, besides the solution, a sum over accepted steps.

        kind="error":       sum_j h_j error_j         kind="stiffness":       sum_j stiffness_j

    with the estimates of `step_estimates`. The gradient goes through the whole solve, so that the
    adjoint must differentiate the solver itself (`diffrax.RecursiveCheckpointAdjoint`, the
    default, `DirectAdjoint`, `ForwardMode`). Prefer `LocalRegularization`, which needs one step.

    **Arguments:**

    - `kind`, `normalize`, `stability_size`: as for `LocalRegularization`.

    ??? cite "Reference"

        Pal, Ma, Shah, Rackauckas, Opening the blackbox: accelerating neural differential equations
        by regularizing internal solver heuristics, ICML 2021, arXiv 2105.03918.
    """

    kind: str = eqx.field(static=True)
    normalize: str = eqx.field(static=True)
    stability_size: float | None = eqx.field(static=True)

    def __init__(
        self,
        kind: str = "error",
        *,
        normalize: str = "tolerance",
        stability_size: float | None = None,
    ):
        check_options(kind, normalize, stability_size)
        self.kind = kind
        self.normalize = normalize
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
        key: Any = None,
        saveat: diffrax.SaveAt = AT_END,
        stepsize_controller: diffrax.AbstractStepSizeController = CONSTANT,
        adjoint: diffrax.AbstractAdjoint = CHECKPOINTED,
        **options: Any,
    ) -> tuple[diffrax.Solution, Float[Array, ""]]:
        """`diffrax.diffeqsolve`, and the penalty.

        **Arguments:** as for `diffrax.diffeqsolve`, except

        - `key`: unused; there, so that this and `LocalRegularization` are called alike.

        **Returns:** the solution, with exactly what `saveat` asks for, and the penalty, a scalar.

        **Raises:** `ValueError` if the solver lacks the estimate or the controller tolerances, the
        adjoint does not differentiate the solver, or `t1` is not after `t0`.
        """
        del key
        if isinstance(adjoint, diffrax.BacksolveAdjoint):
            raise ValueError(
                "`adjoint` must differentiate the solver itself, got BacksolveAdjoint; use "
                "RecursiveCheckpointAdjoint, or LocalRegularization, which works with any."
            )
        controller = normalized_controller(stepsize_controller, self.kind, self.normalize)
        check_kind(self.kind, terms, solver, t0, t1, y0, args, controller)
        return observed_solve(
            _PenaltySum(self.kind, solver, controller, self.stability_size),
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


class _PenaltySum(AbstractObserver):
    kind: str = eqx.field(static=True)
    solver: diffrax.AbstractSolver
    controller: Any
    stability_size: float | None = eqx.field(static=True)

    def init(self, t0: Float[Array, ""], y0: PyTree[Array]) -> Float[Array, ""]:
        """Zero, in the precision of the state."""
        return jnp.zeros((), jnp.result_type(*(real_dtype(x) for x in jax.tree.leaves(y0))))

    def observe(self, record: Float[Array, ""], step: Step) -> Float[Array, ""]:
        """Add the penalty of this step."""
        h = step.t1 - step.t0
        if self.kind == "error":
            assert step.error is not None
            penalty = scaled_error(self.controller, step.y0, step.y1, step.error) * h
        else:
            info, size = step.dense_info, self.stability_size
            penalty = stiffness_estimate(self.solver, self.controller, h, step.y0, info, size)
        return record + penalty.astype(record.dtype)
