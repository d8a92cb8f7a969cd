"""A diffrax solver that also keeps a record of its accepted steps.

diffrax keeps the solver state of accepted steps only, so what a step writes there is a record of
the accepted ones. It costs the memory of the record, whatever is saved of the solution and whatever
the adjoint.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

# The defaults of `diffrax.diffeqsolve`.
AT_END = diffrax.SaveAt(t1=True)
CONSTANT = diffrax.ConstantStepSize()
CHECKPOINTED = diffrax.RecursiveCheckpointAdjoint()


class Step(NamedTuple):
    """A step of a solver, not yet accepted or rejected; times run forwards."""

    t0: Any
    t1: Any
    y0: PyTree[Array]
    y1: PyTree[Array]
    error: PyTree[Array] | None
    dense_info: dict[str, Any]
    interpolation_cls: Callable[..., diffrax.AbstractLocalInterpolation]


class AbstractObserver(eqx.Module):
    """What is recorded of the accepted steps: a first record, and how a step changes it."""

    @abc.abstractmethod
    def init(self, t0: Any, y0: PyTree[Array]) -> PyTree[Array]:
        """The record before the first step."""

    @abc.abstractmethod
    def observe(self, record: PyTree[Array], step: Step) -> PyTree[Array]:
        """The record after `step`, should it be accepted."""


class ObservedSolver(diffrax.AbstractWrappedSolver):
    """`inner`, with the state (state of `inner`, record of `observer`).

    Checks of the kind `isinstance(solver, diffrax.AbstractERK)` see the wrapped solver.
    """

    inner: diffrax.AbstractSolver
    observer: AbstractObserver

    @property
    def solver(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """The innermost solver: diffrax looks through one wrapper only."""
        inner: Any = self.inner
        return inner.solver if hasattr(inner, "solver") else inner

    @property
    def term_structure(self):
        """Of the wrapped solver, as are all properties."""
        return self.inner.term_structure

    @property
    def interpolation_cls(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Of the wrapped solver."""
        return self.inner.interpolation_cls

    @property
    def term_compatible_contr_kwargs(self):
        """Of the wrapped solver."""
        return self.inner.term_compatible_contr_kwargs

    @property
    def scan_kind(self):
        """Of the wrapped Runge-Kutta solver; some adjoints set it."""
        return self.solver.scan_kind  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def root_finder(self):
        """Of the wrapped implicit solver; `diffrax.diffeqsolve` sets its tolerances."""
        return self.solver.root_finder  # pyright: ignore[reportAttributeAccessIssue]

    def order(self, terms):
        """Of the wrapped solver."""
        return self.inner.order(terms)

    def strong_order(self, terms):
        """Of the wrapped solver."""
        return self.inner.strong_order(terms)

    def error_order(self, terms):
        """Of the wrapped solver."""
        return self.inner.error_order(terms)

    def func(self, terms, t0, y0, args):
        """Of the wrapped solver."""
        return self.inner.func(terms, t0, y0, args)

    def init(self, terms, t0, t1, y0, args):
        """State of the wrapped solver and the first record."""
        return self.inner.init(terms, t0, t1, y0, args), self.observer.init(t0, y0)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """A step of the wrapped solver, observed."""
        state, record = solver_state
        y1, error, dense_info, state, result = self.inner.step(
            terms, t0, t1, y0, args, state, made_jump
        )
        step = Step(t0, t1, y0, y1, error, dense_info, self.inner.interpolation_cls)
        return y1, error, dense_info, (state, self.observer.observe(record, step)), result


def observed_solve(
    observer: AbstractObserver,
    terms: PyTree[diffrax.AbstractTerm],
    solver: diffrax.AbstractSolver,
    *solve_args: Any,
    saveat: diffrax.SaveAt,
    adjoint: diffrax.AbstractAdjoint,
    **options: Any,
) -> tuple[diffrax.Solution, PyTree[Array]]:
    """`diffrax.diffeqsolve`, and the record of `observer` at its end."""
    if isinstance(adjoint, diffrax.ImplicitAdjoint):
        raise ValueError(
            "`adjoint` must follow the solution in time, got ImplicitAdjoint(), which is for "
            "steady states."
        )
    if options.get("solver_state") is not None:
        raise ValueError("`solver_state` must be None: a regularised solve starts afresh.")
    if isinstance(adjoint, diffrax.BacksolveAdjoint):
        # The backward solve has nothing to observe.
        adjoint = diffrax.BacksolveAdjoint(**{"solver": solver, **adjoint.kwargs})
    sol = diffrax.diffeqsolve(
        terms,
        ObservedSolver(solver, observer),
        *solve_args,
        saveat=dataclasses.replace(saveat, solver_state=True),
        adjoint=adjoint,
        **options,
    )
    assert sol.solver_state is not None
    state, record = sol.solver_state
    return dataclasses.replace(sol, solver_state=state if saveat.solver_state else None), record
