"""A diagonal L(t) that varies in time.

With theta = (tau - t0)/h and S(theta) = int_tau^t1 L, the moments are

    M_k = h^(k+1) int_0^1 exp(S(theta)) theta^k/k! dtheta.

S is integrated exactly from the Legendre expansion of L over the step. The integrand is written as
exp(y (1 - rho)) times a smooth function, and that is interpolated by a polynomial in rho, whose
integral against the exponential is a sum of phi functions: accurate however large y is.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact, PyTree

from .._base import check_at_least, real_dtype
from ._phi import phi_functions
from ._propagator import AbstractPropagator, broadcast, in_precision_of, pytree_function

# As many nodes as there are phi functions, and both ends: the end is all that matters of a stiff
# mode. exp(-36) is the rounding error of float64.
_NODES = (1 - np.cos(np.pi * np.arange(6) / 5)) / 2
_NEGLIGIBLE = 36.0
# Row n turns values at the nodes into n! times the coefficient of rho^n.
_FIT = np.array([math.factorial(n) for n in range(6)])[:, None] * np.linalg.inv(
    np.vander(_NODES, increasing=True)
)


class TimeVaryingPropagator(AbstractPropagator):
    """A diagonal L(t) that varies in time: one function of t for each entry of the state.

    `propagate` is exact with an antiderivative, and accurate to rounding without one where L is
    smooth over a step. The moments are accurate for stiff decaying entries, Re L(t) < 0, and for
    oscillating ones as long as h^2 |L'(t)| is below about 1. Where all entries share one factor,
    L(t) = a(t) Lambda, `ScaledPropagator` is cheaper and free of that restriction.

    **Arguments:**

    - `symbol`: `symbol(t)`, the diagonal of L(t), as for `DiagonalPropagator`. To differentiate
        through `diffrax.diffeqsolve` with respect to its parameters, give a method of an
        `equinox.Module` that holds them.
    - `antiderivative`: a function of t whose derivative is `symbol`, with the same structure.
    - `points`: number of Gauss-Legendre points a step; exact for polynomials in t of degree below
        twice that in `propagate`.

    **Raises:** `ValueError` for `points` below 2, `TypeError` for what is no function.
    """

    symbol: Callable[[Array], PyTree[Array]]
    antiderivative: Callable[[Array], PyTree[Array]] | None
    points: int

    def __init__(
        self,
        symbol: Callable[..., PyTree[ArrayLike]],
        antiderivative: Callable[..., PyTree[ArrayLike]] | None = None,
        *,
        points: int = 8,
    ):
        self.symbol = pytree_function("symbol", symbol)
        self.antiderivative = antiderivative and pytree_function("antiderivative", antiderivative)
        check_at_least("points", points, 2)
        self.points = points

    @property
    def constant(self) -> bool:
        """False."""
        return False

    def diagonal(self, t: Float[ArrayLike, ""]) -> PyTree[Array]:
        """The diagonal of L(t)."""
        return jax.tree.map(jnp.asarray, self.symbol(jnp.asarray(t)))

    def integral(self, t0: Float[ArrayLike, ""], t1: Float[ArrayLike, ""]) -> PyTree[Array]:
        """int_t0^t1 L, the logarithm of `propagate`."""
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        if self.antiderivative is not None:
            return jax.tree.map(jnp.subtract, self.antiderivative(t1), self.antiderivative(t0))
        return jax.tree.map(
            lambda c: jnp.asarray(t1 - t0, real_dtype(c)) * c[0], self._expansion(t0, t1)
        )

    def propagate(self, t0, t1):
        """exp(int_t0^t1 L)."""
        return jax.tree.map(jnp.exp, self.integral(t0, t1))

    def moments(self, t0, t1, num):
        """M_0, ..., M_{num-1}."""
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        expansion = self._expansion(t0, t1)
        parts = jax.tree.map(lambda c: diagonal_moments(c, t1 - t0, num), expansion)
        outer = jax.tree.structure(expansion)
        return jax.tree.transpose(outer, jax.tree.structure((0,) * num), parts)

    def _expansion(self, t0, t1):
        return legendre_expansion(self.diagonal, t0, t1, self.points)

    def act(self, coefficient, u):
        """Multiply elementwise."""
        return broadcast(lambda c, x: c * x, coefficient, u)

    def apply(self, t, u):
        """L(t) u."""
        return broadcast(lambda s, x: in_precision_of(x, s) * x, self.diagonal(t), u)

    def solve(self, t, a, rhs):
        """rhs / (1 - a L(t))."""

        def divide(s, x):
            return x / (1 - jnp.asarray(a, real_dtype(x)) * in_precision_of(x, s))

        return broadcast(divide, self.diagonal(t), rhs)


def legendre_expansion(
    function: Callable[[Array], PyTree[Array]], t0: Any, t1: Any, points: int
) -> PyTree[Array]:
    """Legendre coefficients over [t0, t1] of a function of t, on a new leading axis."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    legendre = np.polynomial.legendre.legvander(nodes, points - 1).T
    matrix = (np.arange(points)[:, None] + 0.5) * legendre * weights
    t0 = jnp.asarray(t0)
    times = t0 + (jnp.asarray(t1) - t0) * jnp.asarray((nodes + 1) / 2, real_dtype(t0))
    values = jax.vmap(function)(times)
    return jax.tree.map(
        lambda v: jnp.tensordot(jnp.asarray(matrix, real_dtype(v)), v, axes=1), values
    )


def powers_from_end(expansion: Inexact[Array, "n ..."]) -> Inexact[Array, "n ..."]:
    """Coefficients of 1, s, s^2, ..., s = 1 - theta, from Legendre coefficients."""
    num = len(expansion)
    columns = [np.polynomial.legendre.leg2poly(row) for row in np.eye(num)]
    ends = [np.polynomial.Polynomial(c)(np.polynomial.Polynomial([1, -2])).coef for c in columns]
    matrix = np.stack([np.pad(c, (0, num - len(c))) for c in ends], axis=1)
    return jnp.tensordot(jnp.asarray(matrix, real_dtype(expansion)), expansion, axes=1)


def value_at(powers: Inexact[Array, "n ..."], s: Array) -> Array:
    """The polynomial at s."""
    total = powers[-1]
    for c in powers[-2::-1]:
        total = total * s + c
    return total


def tail_at(powers: Inexact[Array, "n ..."], s: Array) -> Array:
    """Its integral from 0 to s, that is over theta from 1 - s to 1."""
    inverse = 1 / jnp.arange(1, len(powers) + 1, dtype=real_dtype(powers))
    return s * value_at(powers * inverse.reshape(-1, *(1,) * (powers.ndim - 1)), s)


def fitted_moments(values: Inexact[Array, "nodes num ..."], y: Array) -> Array:
    """int_0^1 exp(y (1 - rho)) f_k(rho) drho, from the values of f_0, f_1, ... at the nodes."""
    phis = jnp.stack(phi_functions(len(_NODES), y)[1:])
    fit = jnp.tensordot(jnp.asarray(_FIT, real_dtype(values)), values, axes=1)
    fit = fit.reshape(*fit.shape, *(1,) * (phis.ndim + 1 - fit.ndim))
    return jnp.sum(fit * phis[:, None], axis=0)


def _monomials(theta, num):
    """theta^k/k!, k < num, on a new second axis."""
    powers = [jnp.ones_like(theta)]
    for k in range(1, num):
        powers.append(powers[-1] * theta / k)
    return jnp.stack(powers, axis=1)


def diagonal_moments(
    expansion: Inexact[Array, "n ..."], length: Any, num: int
) -> tuple[Inexact[Array, "..."], ...]:
    """The moments of a diagonal L(t) with the given Legendre coefficients, entry by entry."""
    dtype = real_dtype(expansion)
    h = jnp.asarray(length, dtype)
    powers = powers_from_end(h * expansion)
    # Stiff entries forget all but the end of the step: there the interval is shortened to that.
    decay = -jnp.real(powers[0])
    delta = jax.lax.stop_gradient(_NEGLIGIBLE / jnp.maximum(decay, _NEGLIGIBLE))
    s = jnp.asarray(1 - _NODES, dtype).reshape(-1, *(1,) * delta.ndim)
    tail = tail_at(powers, delta * s)
    smooth = jnp.exp(tail - tail[0] * s)
    values = smooth[:, None] * _monomials(1 - delta * s, num)
    moments = fitted_moments(values, tail[0])
    return tuple(h ** (k + 1) * delta * moments[k] for k in range(num))


def scaled_moments(
    expansion: Float[Array, " n"], z: Inexact[Array, "..."], length: Any, num: int
) -> tuple[Inexact[Array, "..."], ...]:
    """The moments of L(t) = a(t) Lambda, z = int L, where a keeps its sign over the step.

    In rho = int_t0^tau a / int_t0^t1 a the exponent is z (1 - rho) exactly, and what multiplies the
    exponential does not depend on Lambda.

    **Arguments:**

    - `expansion`: Legendre coefficients of a over the step.
    - `z`: Lambda times the integral of a over the step.
    """
    remaining = jnp.asarray(1 - _NODES, expansion.dtype)
    powers, mean = powers_from_end(expansion), expansion[0]

    def newton(s):
        excess = tail_at(powers, s) - mean * remaining
        return jnp.clip(s - excess / value_at(powers, s), 0, 1)

    # The last step alone carries the derivative: that of the root.
    s = jax.lax.fori_loop(0, 6, lambda _, s: newton(s), remaining)
    s = newton(jax.lax.stop_gradient(s))
    values = (mean / value_at(powers, s))[:, None] * _monomials(1 - s, num)
    h = jnp.asarray(length, real_dtype(z))
    moments = fitted_moments(values.astype(h.dtype), z)
    return tuple(h ** (k + 1) * moments[k] for k in range(num))
