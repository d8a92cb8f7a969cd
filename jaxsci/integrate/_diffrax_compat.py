"""The one place that knows internals of diffrax."""

from typing import Any

import diffrax
import equinox as eqx
import jax
from diffrax._root_finder import use_stepsize_tol
from diffrax._term import WrapTerm


def unwrap(terms: Any) -> tuple[Any, Any]:
    """The user's term and the direction (+1, -1) in which it is integrated.

    `diffrax.diffeqsolve` always integrates forwards: it wraps each term, and backwards the wrapped
    time is minus the user's.
    """
    if isinstance(terms, diffrax.AbstractTerm) and hasattr(terms, "direction"):
        return terms.term, terms.direction  # pyright: ignore[reportAttributeAccessIssue]
    return terms, 1


def wrap(terms: Any) -> Any:
    """The terms as `diffrax.diffeqsolve` passes them to solver and controller, forwards in time.

    Its guess of the first step (`dt0=None`) depends on the wrapping.
    """
    is_term = lambda x: isinstance(x, diffrax.AbstractTerm) and not isinstance(x, diffrax.MultiTerm)
    return jax.tree.map(lambda x: WrapTerm(x, 1), terms, is_leaf=is_term)


def with_tolerances(solver: Any, controller: Any) -> Any:
    """The solver, the tolerances of whose root finder are those of the controller if not given.

    **Raises:** `ValueError` if the controller has none.
    """
    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return solver
    finder: Any = solver.root_finder
    taken = [n for n in ("rtol", "atol", "norm") if getattr(finder, n) is use_stepsize_tol]
    missing = [n for n in taken if not hasattr(controller, n)]
    if missing:
        raise ValueError(
            f"The root finder of {type(solver).__name__} has no {', '.join(missing)}, and "
            f"{type(controller).__name__} has none to share; give the solver a `root_finder`."
        )
    return eqx.tree_at(
        lambda s: [getattr(s.root_finder, n) for n in taken],
        solver,
        [getattr(controller, n) for n in taken],
    )


def for_single_step(solver: Any, controller: Any) -> Any:
    """The solver as `diffrax.diffeqsolve` would use it, differentiable in both modes.

    Runge-Kutta methods loop over their stages; the default loop has no forward mode. Implicit
    methods may take the tolerances of their root finder from the controller.
    """
    if isinstance(solver, diffrax.HalfSolver):
        inner = for_single_step(solver.solver, controller)
        return eqx.tree_at(lambda s: s.solver, solver, inner)
    is_rk = isinstance(solver, diffrax.AbstractRungeKutta | diffrax.AbstractSRK)
    if is_rk and getattr(solver, "scan_kind", "") is None:
        solver = eqx.tree_at(lambda s: s.scan_kind, solver, "bounded", is_leaf=lambda x: x is None)
    return solver if controller is None else with_tolerances(solver, controller)
