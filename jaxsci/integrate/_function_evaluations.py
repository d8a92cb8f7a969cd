"""`num_function_evaluations`: how often a solve evaluated the vector field."""

from typing import Any

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ._etd_multistep import ETDMultistep
from ._etdrk import ETDRK1, ETDRK2, ETDRK3, ETDRK4
from ._ifrk import IFRK4
from ._imex import CNAB2, CNRK2, CNRK4, SBDF2

# Evaluations a step, and at the start.
_COSTS: dict[type, tuple[int, int]] = {
    diffrax.Euler: (1, 0),
    diffrax.EulerHeun: (2, 0),
    ETDRK1: (1, 0),
    ETDRK2: (2, 0),
    ETDRK3: (3, 0),
    ETDRK4: (4, 1),
    IFRK4: (4, 0),
    ETDMultistep: (1, 0),
    SBDF2: (1, 0),
    CNAB2: (1, 0),
    CNRK2: (2, 0),
    CNRK4: (5, 0),
}


def num_function_evaluations(
    sol: diffrax.Solution, solver: diffrax.AbstractSolver
) -> Int[Array, "..."]:
    """Number of evaluations of the vector field (NFE) in the solve that returned `sol`.

    Rejected steps count. A method whose last stage is the first of the next step (Tsit5, Dopri5,
    Dopri8, Bosh3) takes one evaluation less a step and one at the start. Not counted are the one or
    two evaluations for an initial step (`dt0=None`), those of a new start after a jump or after a
    first step rejected, and the starting steps of a multistep method.

    **Arguments:**

    - `sol`: solution, possibly of a batch under `jax.vmap`.
    - `solver`: the solver it came from.

    **Returns:** the number, an integer array of the batch shape. For a stochastic equation, the
    number of evaluations of drift and diffusion together.

    **Raises:** `ValueError` for implicit methods, whose root finder decides.
    """
    per_step, start = _cost(solver)
    return jnp.asarray(sol.stats["num_steps"]) * per_step + start


def _cost(solver):
    if isinstance(solver, diffrax.HalfSolver):
        per_step, start = _cost(solver.solver)
        return 3 * per_step, 2 * start
    if type(solver) in _COSTS:
        return _COSTS[type(solver)]
    if isinstance(solver, diffrax.AbstractERK):
        tableau: Any = solver.tableau
        stages, fsal = tableau.num_stages, tableau.fsal
        return (stages - 1, 1) if fsal else (stages, 0)
    if isinstance(solver, diffrax.AbstractSRK):
        return len(solver.tableau.b_sol), 0
    raise ValueError(
        f"`solver` must evaluate the vector field a fixed number of times a step (an explicit or "
        f"stochastic Runge-Kutta method, an exponential or IMEX method of this room), got "
        f"{type(solver).__name__}."
    )
