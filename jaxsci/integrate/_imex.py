"""Implicit-explicit methods: L implicit by an exact solve, N explicit.

Cheaper a step than exponential methods and of order 2, with the multistep ones needing one
evaluation of N. Output between steps is interpolated linearly. No error estimates: constant steps.
"""

from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp

from .._base import real_dtype
from ._solver import AbstractSemilinearSolver, combine


class _IMEX(AbstractSemilinearSolver):
    """An IMEX method; it has no coefficients but h."""

    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms):
        """Order of convergence."""
        return 2

    def coefficients(self, term, t0, h):
        """None are needed: the solves are exact and cheap."""
        return ()

    def _dense_info(self, term, direction, y1, info):
        return {"y1": y1}


class _TwoStep(_IMEX):
    """Two-step methods: history is u, N and h of the step before.

    With r = h/h_before the coefficients hold for variable steps; h_before = inf, that is r = 0,
    makes either method its own one-step start, of local order 2.
    """

    def start(self, term, t0, u0, args):
        """No step before."""
        zeros = jax.tree.map(jnp.zeros_like, u0)
        return zeros, zeros, jnp.asarray(jnp.inf, real_dtype(jax.tree.leaves(u0)[0]))

    def _ratio(self, h, history):
        return h / history[2]


class SBDF2(_TwoStep):
    """Semi-implicit backward differentiation formula of order 2.

    (3 u2 - 4 u1 + u0)/(2 h) = L u2 + 2 N1 - N0, started by one IMEX Euler step; coefficients for
    variable steps. One evaluation of N and one solve a step; damps stiff modes strongly.
    """

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        u_before, n_before, _ = history
        r = self._ratio(h, history)
        n0 = term.nonlinear(t0, u0, args)
        scale = (1 + 2 * r) / (1 + r)
        rhs = combine(
            ((1 + r) / scale, u0),
            (-(r**2) / (1 + r) / scale, u_before),
            (h * (1 + r) / scale, n0),
            (-h * r / scale, n_before),
        )
        u1 = term.linear.solve(t0 + h, h / scale, rhs)
        return u1, None, {}, (u0, n0, _h(h, history))


class CNAB2(_TwoStep):
    """Crank-Nicolson for L, Adams-Bashforth of order 2 for N.

    (u2 - u1)/h = L (u2 + u1)/2 + (3 N1 - N0)/2, started by one Crank-Nicolson/Euler step;
    coefficients for variable steps. One evaluation of N and one solve a step; stiff modes are not
    damped.
    """

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        _, n_before, _ = history
        r = self._ratio(h, history)
        n0 = term.nonlinear(t0, u0, args)
        rhs = combine(
            (1, u0),
            (h / 2, term.linear.apply(t0, u0)),
            (h * (1 + r / 2), n0),
            (-h * r / 2, n_before),
        )
        u1 = term.linear.solve(t0 + h, h / 2, rhs)
        return u1, None, {}, (u0, n0, _h(h, history))


def _h(h, history):
    return jnp.asarray(h, history[2].dtype)


class CNRK2(_IMEX):
    """Crank-Nicolson for L with Heun's method for N: two evaluations and two solves a step."""

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        solve = lambda rhs: term.linear.solve(t0 + h, h / 2, rhs)
        base = combine((1, u0), (h / 2, term.linear.apply(t0, u0)))
        n0 = term.nonlinear(t0, u0, args)
        n1 = term.nonlinear(t0 + h, solve(combine((1, base), (h, n0))), args)
        return solve(combine((1, base), (h / 2, n0), (h / 2, n1))), None, {}, None


# Carpenter and Kennedy 1994: stage times, and the two coefficients of each low-storage stage.
_TIMES = (0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1)
_CARRY = (0, -0.4178904745, -1.192151694643, -1.697784692471, -1.514183444257)
_WEIGHTS = (0.1496590219993, 0.3792103129999, 0.8229550293869, 0.6994504559488, 0.1530572479681)


class CNRK4(_IMEX):
    """Crank-Nicolson for L within the five-stage low-storage Runge-Kutta method of order 4 for N.

    Order 4 in N and 2 in L: five evaluations and five solves a step, two arrays of storage.
    Carpenter and Kennedy 1994.
    """

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        u, carry = u0, None
        for i, (a, b) in enumerate(zip(_CARRY, _WEIGHTS)):
            t = t0 + _TIMES[i] * h
            n = term.nonlinear(t, u, args)
            carry = n if carry is None else combine((1, n), (a, carry))
            mu = h * (_TIMES[i + 1] - _TIMES[i]) / 2
            rhs = combine((1, u), (b * h, carry), (mu, term.linear.apply(t, u)))
            u = term.linear.solve(t0 + _TIMES[i + 1] * h, mu, rhs)
        return u, None, {}, None
