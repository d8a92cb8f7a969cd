"""Exponential Adams-Bashforth methods."""

import math

import jax
import jax.numpy as jnp

from .._base import real_dtype
from ._etdrk import ETDRK2, ETDRK4
from ._interpolation import etd_update
from ._solver import AbstractSemilinearSolver, combine


class ETDMultistep(AbstractSemilinearSolver):
    """Exponential Adams-Bashforth method: one evaluation of N a step.

    u1 = E u0 + sum_k M_k N^(k)(t0), with the derivatives of the polynomial through N at t0 and the
    `order - 1` points before, at any spacing. It is started, and started again after a jump, by
    ETDRK2 (order 2) or ETDRK4 (higher orders). It has no error estimate; use a constant step.

    **Arguments:**

    - `order`: number of values of N used, 1 to 5.
    """

    num: int

    def __init__(self, order: int = 2):
        if not isinstance(order, int) or not 1 <= order <= 5:
            raise ValueError(f"`order` must be an integer from 1 to 5, got {order!r}.")
        self.num = order

    def order(self, terms):
        """Order of convergence."""
        return self.num

    @property
    def _starter(self):
        return ETDRK2() if self.num == 2 else ETDRK4()

    def coefficients(self, term, t0, h):
        """E and the moments, and the coefficients of the starting method."""
        t1 = t0 + h
        own = term.linear.propagate(t0, t1), term.linear.moments(t0, t1, self.num)
        return own, (None if self.num == 1 else self._starter.coefficients(term, t0, h))

    def start(self, term, t0, u0, args):
        """No points before: their number, their values of N, and the steps between them."""
        zeros = jax.tree.map(jnp.zeros_like, u0)
        steps = jnp.ones(self.num - 1, real_dtype(jax.tree.leaves(u0)[0]))
        return jnp.array(0), (zeros,) * (self.num - 1), steps

    def advance(self, term, coefficients, t0, h, u0, args, history):
        """One step."""
        (propagate, moments), starting = coefficients
        count, values, steps = history
        n0 = term.nonlinear(t0, u0, args)
        points = (n0, *values)
        h = jnp.asarray(h, steps.dtype)

        def multistep():
            # Times of the points before, in units of h, from the steps between them.
            before = jnp.cumsum(steps) / h
            weights = _derivative_weights([0.0, *(-before[i] for i in range(self.num - 1))])
            derivatives = tuple(
                combine(*((w / h**k, n) for w, n in zip(row, points)))
                for k, row in enumerate(weights)
            )
            return etd_update(term.linear, propagate, moments, u0, derivatives), derivatives

        def starting_step():
            u1, _, info, _ = self._starter.advance(term, starting, t0, h, u0, args, n0)
            derivatives = info["derivatives"][: self.num]
            zeros = jax.tree.map(jnp.zeros_like, n0)
            return u1, derivatives + (zeros,) * (self.num - len(derivatives))

        if self.num == 1:
            u1, derivatives = multistep()
        else:
            u1, derivatives = jax.lax.cond(count >= self.num - 1, multistep, starting_step)
        steps = jnp.concatenate([h[None], steps[:-1]]) if self.num > 1 else steps
        history = jnp.minimum(count + 1, self.num), points[: self.num - 1], steps
        return u1, None, {"derivatives": derivatives}, history


def _derivative_weights(s):
    """W[k][j]: weight of the value at s_j in the k-th derivative at 0 of the interpolant."""
    num = len(s)
    weights = [[0.0] * num for _ in range(num)]
    for j in range(num):
        polynomial = [1.0]  # coefficients of the j-th Lagrange polynomial, lowest first
        for i in range(num):
            if i != j:
                scale = 1 / (s[j] - s[i])
                shifted = [0.0, *polynomial]
                padded = [*polynomial, 0.0]
                polynomial = [(a - s[i] * b) * scale for a, b in zip(shifted, padded)]
        for k in range(num):
            weights[k][j] = math.factorial(k) * polynomial[k]
    return weights
