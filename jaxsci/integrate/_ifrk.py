"""The integrating-factor Runge-Kutta method."""

from typing import ClassVar

import diffrax

from ._solver import AbstractSemilinearSolver, combine


class IFRK4(AbstractSemilinearSolver):
    """Classical Runge-Kutta method of order 4 applied to v = exp(-t L) u (Lawson 1967).

    Exact where N vanishes, but unlike the ETD methods it does not keep fixed points, and its error
    constant grows with the stiffness of L. Output between steps is interpolated linearly. It has no
    error estimate; use a constant step.
    """

    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms):
        """Classical order of convergence."""
        return 4

    def coefficients(self, term, t0, h):
        """exp of L over the first half, the second half and the step."""
        tm, t1 = t0 + h / 2, t0 + h
        propagate = term.linear.propagate
        first = propagate(t0, tm)
        second = first if term.linear.constant else propagate(tm, t1)
        return first, second, propagate(t0, t1)

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        first, second, whole = coefficients
        act, tm, t1 = term.linear.act, t0 + h / 2, t0 + h
        n0 = term.nonlinear(t0, u0, args)
        half = act(first, u0)
        half_n0 = act(first, n0)
        na = term.nonlinear(tm, combine((1, half), (h / 2, half_n0)), args)
        nb = term.nonlinear(tm, combine((1, half), (h / 2, na)), args)
        eu = act(whole, u0)
        nc = term.nonlinear(t1, combine((1, eu), (h, act(second, nb))), args)
        middle = act(second, combine((1, na), (1, nb)))
        u1 = combine((1, eu), (h / 6, act(whole, n0)), (h / 3, middle), (h / 6, nc))
        return u1, None, {}, None

    def _dense_info(self, term, direction, y1, info):
        return {"y1": y1}
