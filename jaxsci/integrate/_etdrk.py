"""Exponential Runge-Kutta methods for u' = L u + N(t, u), exact where N vanishes.

With E = exp(h L), E2 = exp(h L/2), p_j = phi_j(h L), q_j = phi_j(h L/2), all methods end with

    u1 = E u0 + h [(p1 - 3 p2 + 4 p3) N_0 + (4 p2 - 8 p3) N_m + (4 p3 - p2) N_1]

(or its first terms): N is replaced by its interpolant through the stage values at t0, t0 + h/2 and
t0 + h, whose derivatives at t0 are handed to the moments of the propagator. Cox and Matthews 2002;
Krogstad 2005; Hochbruck and Ostermann 2010.
"""

import diffrax
import jax
import jax.numpy as jnp

from .._base import check_choice
from ._interpolation import etd_update
from ._solver import AbstractSemilinearSolver, combine


def linear_fit(h, n0, n1):
    """Derivatives at t0 of the line through N(t0), N(t0 + h)."""
    return n0, combine((1 / h, n1), (-1 / h, n0))


def quadratic_fit(h, n0, nm, n1):
    """Derivatives at t0 of the parabola through N(t0), N(t0 + h/2), N(t0 + h)."""
    first = combine((-3 / h, n0), (4 / h, nm), (-1 / h, n1))
    second = combine((4 / h**2, n0), (-8 / h**2, nm), (4 / h**2, n1))
    return n0, first, second


class ETDRK1(AbstractSemilinearSolver):
    """Exponential Euler method, order 1: u1 = E u0 + h p1 N(u0).

    It has no error estimate; use a constant step.
    """

    def order(self, terms):
        """Order of convergence."""
        return 1

    def coefficients(self, term, t0, h):
        """E and M_0."""
        t1 = t0 + h
        return term.linear.propagate(t0, t1), term.linear.moments(t0, t1, 1)

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        propagate, moments = coefficients
        n0 = term.nonlinear(t0, u0, args)
        u1 = etd_update(term.linear, propagate, moments, u0, (n0,))
        return u1, None, {"derivatives": (n0,)}, None


class ETDRK2(AbstractSemilinearSolver, diffrax.AbstractAdaptiveSolver):
    """Exponential Runge-Kutta method of order 2 (exponential Heun).

    The error estimate is the difference from the exponential Euler step.
    """

    def order(self, terms):
        """Order of convergence."""
        return 2

    def coefficients(self, term, t0, h):
        """E, M_0 and M_1."""
        t1 = t0 + h
        return term.linear.propagate(t0, t1), term.linear.moments(t0, t1, 2)

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        propagate, moments = coefficients
        act = term.linear.act
        n0 = term.nonlinear(t0, u0, args)
        a = etd_update(term.linear, propagate, moments, u0, (n0,))
        derivatives = linear_fit(h, n0, term.nonlinear(t0 + h, a, args))
        error = act(moments[1], derivatives[1])
        u1 = jax.tree.map(jnp.add, a, error)
        return u1, error, {"derivatives": derivatives}, None


class ETDRK3(AbstractSemilinearSolver, diffrax.AbstractAdaptiveSolver):
    """Exponential Runge-Kutta method of order 3 of Cox and Matthews.

    The error estimate is the difference from the second-order method with the same midpoint stage.
    """

    def order(self, terms):
        """Order of convergence."""
        return 3

    def coefficients(self, term, t0, h):
        """E, M_0, M_1, M_2 of the step, E and M_0 of its first half."""
        linear, tm, t1 = term.linear, t0 + h / 2, t0 + h
        return (
            linear.propagate(t0, t1),
            linear.moments(t0, t1, 3),
            linear.propagate(t0, tm),
            linear.moments(t0, tm, 1),
        )

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        propagate, moments, half_propagate, half_moments = coefficients
        linear = term.linear
        n0 = term.nonlinear(t0, u0, args)
        a = etd_update(linear, half_propagate, half_moments, u0, (n0,))
        na = term.nonlinear(t0 + h / 2, a, args)
        eu = linear.act(propagate, u0)
        b = combine((1, eu), (1, linear.act(moments[0], combine((2, na), (-1, n0)))))
        nb = term.nonlinear(t0 + h, b, args)
        derivatives = quadratic_fit(h, n0, na, nb)
        parts = [linear.act(m, n) for m, n in zip(moments, derivatives)]
        u1 = combine((1, eu), *((1, part) for part in parts))
        midpoint_slope = combine((2 / h, na), (-2 / h, n0))
        second = linear.act(moments[1], midpoint_slope)
        error = combine((1, parts[1]), (1, parts[2]), (-1, second))
        return u1, error, {"derivatives": derivatives}, None


class ETDRK4(AbstractSemilinearSolver, diffrax.AbstractAdaptiveSolver):
    """Exponential Runge-Kutta method of order 4.

    Both variants share the final update and differ in their inner stages; Krogstad's are more
    accurate and stable on stiff problems. The error estimate h (4 p3 - p2)(N(c) - N(u1)) is free,
    since N(u1) is the first stage of the next step: four evaluations of N a step.

    **Arguments:**

    - `variant`: "krogstad" or "cox-matthews".
    """

    variant: str = "krogstad"

    def __check_init__(self):
        check_choice("variant", self.variant, ("krogstad", "cox-matthews"))

    def order(self, terms):
        """Order of convergence."""
        return 4

    def coefficients(self, term, t0, h):
        """Coefficients of the three inner stages, E and the weights of the update."""
        linear, tm, t1 = term.linear, t0 + h / 2, t0 + h
        e = linear.propagate(t0, t1)
        m0, m1, m2 = linear.moments(t0, t1, 3)
        e2 = linear.propagate(t0, tm)
        weights = (
            combine((1, m0), (-3 / h, m1), (4 / h**2, m2)),
            combine((2 / h, m1), (-4 / h**2, m2)),
            combine((4 / h**2, m2), (-1 / h, m1)),
        )
        if self.variant == "krogstad":
            q0, q1 = linear.moments(t0, tm, 2)
            stages = (e2, q0, combine((4 / h, q1)), m0, combine((2 / h, m1)))
        else:
            (q0,) = linear.moments(t0, tm, 1)
            if linear.constant:
                stages = (e2, q0, e2, q0)
            else:
                second_half = linear.propagate(tm, t1), *linear.moments(tm, t1, 1)
                stages = (e2, q0, *second_half)
        return e, stages, weights

    def start(self, term, t0, u0, args):
        """N at the first point."""
        return term.nonlinear(t0, u0, args)

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        e, stages, (w0, wm, w1) = coefficients
        act = term.linear.act
        n0 = history
        eu = act(e, u0)
        if self.variant == "krogstad":
            e2, q0, q1, m0, m1 = stages
            a = combine((1, act(e2, u0)), (1, act(q0, n0)))
            na = term.nonlinear(t0 + h / 2, a, args)
            b = combine((1, a), (1, act(q1, combine((1, na), (-1, n0)))))
            nb = term.nonlinear(t0 + h / 2, b, args)
            c = combine((1, eu), (1, act(m0, n0)), (1, act(m1, combine((1, nb), (-1, n0)))))
        else:
            e2, q0, e2b, q0b = stages
            half = act(e2, u0)
            a = combine((1, half), (1, act(q0, n0)))
            na = term.nonlinear(t0 + h / 2, a, args)
            b = combine((1, half), (1, act(q0, na)))
            nb = term.nonlinear(t0 + h / 2, b, args)
            c = combine((1, act(e2b, a)), (1, act(q0b, combine((2, nb), (-1, n0)))))
        nc = term.nonlinear(t0 + h, c, args)
        middle = combine((1, na), (1, nb))
        u1 = combine((1, eu), (1, act(w0, n0)), (1, act(wm, middle)), (1, act(w1, nc)))
        n1 = term.nonlinear(t0 + h, u1, args)
        error = act(w1, combine((1, nc), (-1, n1)))
        derivatives = quadratic_fit(h, n0, combine((0.5, middle)), nc)
        return u1, error, {"derivatives": derivatives}, n1
