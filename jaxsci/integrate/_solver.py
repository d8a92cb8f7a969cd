"""What the exponential and IMEX solvers share: a step on a semilinear term, as diffrax wants it."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._diffrax_compat import unwrap
from ._interpolation import ETDInterpolation
from ._propagator import cast_coefficients
from ._term import SemilinearTerm


class AbstractSemilinearSolver(diffrax.AbstractSolver):
    """A solver for `SemilinearTerm`s.

    A method states its order and two functions: the `coefficients` of a step, which depend on L, t0
    and h, and the step itself, `advance`. Between steps it may keep a `history`. From those this
    class makes a diffrax solver, which reuses coefficients as long as the step stays the same, and
    `jaxsci.integrate.rollout` a scan, which computes them once.
    """

    term_structure: ClassVar = SemilinearTerm
    interpolation_cls: ClassVar = ETDInterpolation

    @abc.abstractmethod
    def coefficients(self, term: SemilinearTerm, t0: Any, h: Any) -> PyTree[Array]:
        """Coefficients of the step from t0 to t0 + h."""

    def start(self, term: SemilinearTerm, t0: Any, u0: PyTree[Array], args: Any) -> PyTree[Array]:
        """History at the first step, or after a jump; None for methods that keep nothing."""
        return None

    @abc.abstractmethod
    def advance(
        self,
        term: SemilinearTerm,
        coefficients: PyTree[Array],
        t0: Float[Array, ""],
        h: Float[Array, ""],
        u0: PyTree[Array],
        args: Any,
        history: PyTree[Array],
    ) -> tuple[PyTree[Array], PyTree[Array] | None, dict[str, Any], PyTree[Array]]:
        """One step: the state at t0 + h, a local error estimate or None, dense info, history.

        Dense info is a dictionary for the interpolation, without states and times.
        """

    def func(self, terms, t0, y0, args):
        """The vector field."""
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args):
        """Coefficients of the first step, and the history."""
        term, direction = unwrap(terms)
        h = direction * (t1 - t0)
        u0 = term.decode(y0)
        coefficients = self._coefficients(term, direction * t0, h, u0)
        return h, coefficients, self.start(term, direction * t0, u0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """One step from t0 to t1."""
        term, direction = unwrap(terms)
        u0 = term.decode(y0)
        old_h, coefficients, history = solver_state
        start, h = direction * t0, direction * (t1 - t0)

        def recompute():
            return h, self._coefficients(term, start, h, u0)

        h, coefficients = reuse_or(recompute, term, t0, t1, h, old_h, coefficients)
        if made_jump is not False:
            restart = lambda: self.start(term, start, u0, args)
            history = jax.lax.cond(made_jump, restart, lambda: history)
        u1, error, info, history = self.advance(term, coefficients, start, h, u0, args, history)
        y1 = term.encode(term.project(u1))
        error = None if error is None else term.encode(error)
        dense_info = {"y0": y0, **self._dense_info(term, direction, y1, info)}
        return y1, error, dense_info, (h, coefficients, history), diffrax.RESULTS.successful

    def _coefficients(self, term, t0, h, u0):
        return cast_coefficients(self.coefficients(term, t0, h), u0)

    def _dense_info(self, term, direction, y1, info):
        return {**info, "propagator": term.linear, "direction": direction}


def reuse_or(
    recompute: Callable[[], tuple[Any, PyTree[Array]]],
    term: SemilinearTerm,
    t0: Any,
    t1: Any,
    h: Any,
    old_h: Any,
    old: PyTree[Array],
) -> tuple[Any, PyTree[Array]]:
    """The old step and coefficients if L is constant and the step the same, else new ones."""
    if not term.linear.constant:
        return recompute()
    # t1 - t0 jitters by rounding of t even at a constant step.
    tolerance = 4 * jnp.finfo(jnp.result_type(t1)).eps * jnp.maximum(abs(t0), abs(t1))
    return jax.lax.cond(jnp.abs(h - old_h) <= tolerance, lambda: (old_h, old), recompute)


def combine(*pairs: tuple[Any, PyTree[Array]]) -> PyTree[Array]:
    """Linear combination of pytrees: pairs of a number and a pytree."""
    numbers, trees = zip(*pairs)
    return jax.tree.map(lambda *xs: sum(_scale(a, x) for a, x in zip(numbers, xs)), *trees)


def _scale(a, x):
    if isinstance(a, int | float):
        return x if a == 1 else a * x
    return jnp.asarray(a, jnp.finfo(x.dtype).dtype) * x
