"""Estimates from one step of a solver: of its local error, and of the stiffness.

With the embedded error err of the step from y0 to y1, the norm of the controller (root mean square)
and its tolerances,

    error = || err / (atol + rtol max(|y0|, |y1|)) ||,

and with derivatives k_i, k_j at two stages g_i, g_j at the end of the step (Shampine 1977)

    stiffness = ||k_j - k_i|| / ||g_j - g_i|| / s,

s the length of the real stability interval. For y' = lambda y it is |lambda| / s exactly, so that
h times the stiffness is one where the method ceases to be stable.
"""

from functools import cache
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._base import check_choice, check_positive, is_concrete, real_dtype
from ._controller import SpectralPIDController
from ._diffrax_compat import for_single_step

WITH_ERROR = (
    "Tsit5, Dopri5, Dopri8, Bosh3, Heun, the Kvaerno and KenCarp families, ETDRK2, ETDRK3, ETDRK4; "
    "for stochastic equations SPaRK, ShARK, GeneralShARK, SlowRK; or `diffrax.HalfSolver(solver)`"
)


class StepEstimates(NamedTuple):
    """What one step tells.

    **Attributes:**

    - `error`: local error in units of the tolerance, a scalar; None if the solver has no estimate.
    - `stiffness`: magnitude of the stiff eigenvalue over the length of the stability interval, a
        scalar in units of 1/t; None if the solver does not have two stages at the end of its step.
    - `y1`: the state at the end of the step.
    """

    error: Float[Array, ""] | None
    stiffness: Float[Array, ""] | None
    y1: PyTree[Array]


def step_estimates(
    terms: PyTree[diffrax.AbstractTerm],
    solver: diffrax.AbstractSolver,
    t: Float[ArrayLike, ""],
    y: PyTree[ArrayLike],
    h: Float[ArrayLike, ""],
    args: Any = None,
    controller: diffrax.AbstractStepSizeController | None = None,
    *,
    stability_size: Float[ArrayLike, ""] | None = None,
) -> StepEstimates:
    """Take one step of length `h` from `y` at time `t` and estimate its error and the stiffness.

    Differentiable in all arguments, in forward and reverse mode.

    **Arguments:**

    - `terms`, `solver`: as for `diffrax.diffeqsolve`. The terms of a stochastic equation are asked
        for their noise on [t, t + h].
    - `t`, `h`: start and (positive) length of the step.
    - `y`: state at `t`.
    - `args`: passed to the terms.
    - `controller`: gives `rtol`, `atol` and `norm`; by default 1, 1 and the root mean square. A
        `SpectralPIDController` compares norms, any other scales entry by entry.
    - `stability_size`: s above; by default computed from the Butcher tableau (Tsit5 3.5068, Dopri5
        3.3066, Dopri8 5.1666).

    **Returns:** `StepEstimates`.

    **Raises:** `ValueError` for `h` not positive or a controller without tolerances.

    ??? cite "Reference"

        Pal, Edelman, Rackauckas, Locally regularized neural differential equations: some black
        boxes were meant to remain closed!, ICML 2023, arXiv 2303.02262.
    """
    check_positive("h", h)
    controller = check_controller(controller)
    y = jax.tree.map(jnp.asarray, y)
    dtype = jnp.result_type(*(real_dtype(x) for x in jax.tree.leaves(y)), t, h)
    t, h = jnp.asarray(t, dtype), jnp.asarray(h, dtype)
    single = for_single_step(solver, controller)
    state = single.init(terms, t, t + h, y, args)
    y1, err, info, _, _ = single.step(terms, t, t + h, y, args, state, False)
    error = None if err is None else scaled_error(controller, y, y1, err)
    stiffness = None
    if end_stages(solver) is not None and not is_stochastic(terms):
        stiffness = stiffness_estimate(solver, controller, h, y, info, stability_size)
    return StepEstimates(error, stiffness, y1)


def check_options(kind: str, normalize: str, stability_size: float | None) -> None:
    """Raise unless these are options of a regularisation."""
    check_choice("kind", kind, ("error", "stiffness"))
    check_choice("normalize", normalize, ("tolerance", "state"))
    if stability_size is not None:
        check_positive("stability_size", stability_size)


def check_controller(
    controller: diffrax.AbstractStepSizeController | None,
) -> diffrax.AbstractStepSizeController | None:
    """The controller that holds the tolerances: what a `ClipStepSizeController` wraps, or None."""
    if isinstance(controller, diffrax.ClipStepSizeController):
        return check_controller(controller.controller)
    if controller is None or isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        return controller
    raise ValueError(
        f"`controller` must have tolerances, as `diffrax.PIDController` has, or be None, got "
        f"{type(controller).__name__}."
    )


def controller_norm(controller: Any):
    """The norm of a controller, or the root mean square, made differentiable at zero."""
    norm = optx.rms_norm if controller is None else controller.norm

    def safe(x):
        zero = jnp.all(jnp.stack([jnp.all(leaf == 0) for leaf in jax.tree.leaves(x)]))
        value = norm(jax.tree.map(lambda leaf: jnp.where(zero, jnp.ones_like(leaf), leaf), x))
        return jnp.where(zero, jnp.zeros_like(value), value)

    return safe


def scaled_error(
    controller: Any, y0: PyTree[Array], y1: PyTree[Array], error: PyTree[Array]
) -> Float[Array, ""]:
    """The error of a step in units of the tolerance, as the controller sees it."""
    norm = controller_norm(controller)
    rtol, atol = (1.0, 1.0) if controller is None else (controller.rtol, controller.atol)
    if isinstance(controller, SpectralPIDController):
        return norm(error) / (atol + rtol * jnp.maximum(norm(y0), norm(y1)))
    scale = lambda a, b: atol + rtol * jnp.maximum(jnp.abs(a), jnp.abs(b))
    return norm(jax.tree.map(lambda e, a, b: e / scale(a, b).astype(real_dtype(e)), error, y0, y1))


def stiffness_estimate(
    solver: Any,
    controller: Any,
    h: Float[Array, ""],
    y0: PyTree[Array],
    info: dict[str, Any],
    stability_size: Any,
) -> Float[Array, ""]:
    """The stiffness from the stages that a Runge-Kutta step leaves for the interpolation."""
    tableau, norm = solver.tableau, controller_norm(controller)
    stages = end_stages(solver)
    assert stages is not None
    i, j = stages
    k = info["k"]
    weights = np.zeros(tableau.num_stages)
    weights[:j] += tableau.a_lower[j - 1]
    weights[:i] -= tableau.a_lower[i - 1]
    states = jax.tree.map(lambda x: jnp.tensordot(jnp.asarray(weights, x.dtype), x, axes=1), k)
    slopes = norm(jax.tree.map(lambda x: x[j] - x[i], k))
    size = norm(states) * h.astype(slopes.dtype)
    if stability_size is None:
        stability_size = real_stability_size(type(solver))
    zero = size == 0
    ratio = jnp.where(zero, 0, slopes / jnp.where(zero, 1, size))
    return ratio / jnp.asarray(stability_size, ratio.dtype)


def end_stages(solver: diffrax.AbstractSolver) -> tuple[int, int] | None:
    """Numbers, from 0, of the last two stages at the end of an explicit step, or None."""
    if not isinstance(solver, diffrax.AbstractERK) or not hasattr(solver, "tableau"):
        return None
    tableau: Any = solver.tableau
    at_end = [i + 1 for i, c in enumerate(tableau.c) if c == 1]
    return (at_end[-2], at_end[-1]) if len(at_end) > 1 else None


@cache
def real_stability_size(solver_cls: Any) -> float:
    """Largest x, to four decimals, with |R(-z)| <= 1 on [0, x], R the stability polynomial."""
    tableau = solver_cls.tableau
    n = tableau.num_stages
    a = np.zeros((n, n))
    for i, row in enumerate(tableau.a_lower):
        a[i + 1, : i + 1] = row
    powers = [np.ones(n)]
    for _ in range(n - 1):
        powers.append(a @ powers[-1])
    polynomial = np.array([1.0] + [tableau.b_sol @ v for v in powers])[::-1]
    # |R(-z)| = 1 where R(-z) = 1 or -1; rounding of the tableau makes roots near zero unsafe.
    minus_z = polynomial * (-1.0) ** np.arange(n, -1, -1)
    roots = np.concatenate([np.roots(np.polyadd(minus_z, [-c])) for c in (1.0, -1.0)])
    real = np.sort(roots.real[(abs(roots.imag) < 1e-8) & (roots.real > 0.1)])
    leaves = [x for x in real if abs(np.polyval(minus_z, 1.0001 * x)) > 1]
    return round(float(leaves[0]), 4)


def is_stochastic(terms: PyTree[diffrax.AbstractTerm]) -> bool:
    """Whether a Brownian motion is among the leaves of the terms."""
    is_path = lambda x: isinstance(x, diffrax.AbstractBrownianPath)
    return any(is_path(x) for x in jax.tree.leaves(terms, is_leaf=is_path))


def has_error_estimate(
    terms: Any,
    solver: diffrax.AbstractSolver,
    t0: Any,
    t1: Any,
    y0: Any,
    args: Any,
    controller: Any,
) -> bool:
    """Whether a step of the solver returns an error."""
    if isinstance(solver, diffrax.AbstractAdaptiveSolver):
        return True
    solver = for_single_step(solver, controller)

    def step(t0, t1, y0):
        state = solver.init(terms, t0, t1, y0, args)
        return solver.step(terms, t0, t1, y0, args, state, False)[1]

    y0 = jax.tree.map(jnp.asarray, y0)
    return (
        eqx.filter_eval_shape(step, jnp.asarray(t0, float), jnp.asarray(t1, float), y0) is not None
    )


def check_kind(
    kind: str, terms: Any, solver: Any, t0: Any, t1: Any, y0: Any, args: Any, controller: Any
) -> None:
    """Raise `ValueError` unless the solver has the estimate that is asked for."""
    if is_concrete(t0, t1) and not t1 > t0:
        raise ValueError(f"`t1` must be greater than `t0`, got t0 = {t0} and t1 = {t1}.")
    name = type(solver).__name__
    if kind == "error":
        if not has_error_estimate(terms, solver, t0, t1, y0, args, controller):
            raise ValueError(
                f'`solver` must have an error estimate for kind="error", got {name}; those that '
                f"have one: {WITH_ERROR}."
            )
    elif is_stochastic(terms):
        raise ValueError('kind="stiffness" is for deterministic equations; use kind="error".')
    elif end_stages(solver) is None:
        raise ValueError(
            f"`solver` must be an explicit Runge-Kutta method with two stages at the end of its "
            f'step for kind="stiffness" (Tsit5, Dopri5, Dopri8), got {name}.'
        )


def normalized_controller(controller: Any, kind: str, normalize: str) -> Any:
    """The controller by whose norm and tolerances the estimates are scaled."""
    while isinstance(controller, diffrax.ClipStepSizeController):
        controller = controller.controller
    if not isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        if kind == "error" and normalize == "tolerance":
            raise ValueError(
                f'`stepsize_controller` must have tolerances for normalize="tolerance", got '
                f'{type(controller).__name__}; use normalize="state".'
            )
        return None
    if normalize == "state":
        return eqx.tree_at(lambda c: (c.rtol, c.atol), controller, (1.0, 1.0))
    return controller
