"""L(t) = a(t) Lambda: a constant diagonal times a function of time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._base import check_at_least, is_complex, real_dtype
from ._propagator import AbstractPropagator, broadcast, in_precision_of, pytree_function
from ._time_varying_propagator import (
    diagonal_moments,
    legendre_expansion,
    powers_from_end,
    scaled_moments,
    value_at,
)

# The substitution of `scaled_moments` divides by a: it must not come close to zero in the step.
_SMALLEST_RATIO = 0.2


class ScaledPropagator(AbstractPropagator):
    """L(t) = a(t) Lambda, a constant diagonal Lambda and a real function a of time.

    Viscosity that is switched on, dispersion management, a mesh that expands. `propagate` is
    exp((A(t1) - A(t0)) Lambda), exact with the antiderivative A of a, and accurate to rounding
    without where a is smooth over a step. The moments are accurate for any Lambda, stiff, growing
    or oscillating, as long as a keeps its sign over a step; in a step where it comes close to zero
    the restrictions of `TimeVaryingPropagator` hold.

    **Arguments:**

    - `scale`: a, a function of t that returns a real scalar. To differentiate through
        `diffrax.diffeqsolve` with respect to its parameters, give a method of an `equinox.Module`
        that holds them.
    - `symbol`: the diagonal of Lambda, or a function without arguments that returns it, as for
        `DiagonalPropagator`.
    - `antiderivative`: A, a function of t.
    - `points`: number of Gauss-Legendre points a step; exact for polynomials a of degree below
        twice that in `propagate`.

    **Raises:** `ValueError` for `points` below 2 or a scale that is not a real scalar, `TypeError`
    for what is no function.
    """

    scale: Callable[[Array], Array]
    symbol: PyTree[Array] | Callable[[], PyTree[Array]]
    antiderivative: Callable[[Array], Array] | None
    points: int

    def __init__(
        self,
        scale: Callable[..., ArrayLike],
        symbol: PyTree[ArrayLike] | Callable[[], PyTree[ArrayLike]],
        antiderivative: Callable[..., ArrayLike] | None = None,
        *,
        points: int = 8,
    ):
        self.scale = pytree_function("scale", scale)
        if callable(symbol):
            self.symbol = pytree_function("symbol", symbol)
        else:
            self.symbol = jax.tree.map(jnp.asarray, symbol)
        self.antiderivative = antiderivative and pytree_function("antiderivative", antiderivative)
        check_at_least("points", points, 2)
        self.points = points

    @property
    def constant(self) -> bool:
        """False."""
        return False

    @property
    def unscaled(self) -> PyTree[Array]:
        """The diagonal of Lambda."""
        return self.symbol() if callable(self.symbol) else self.symbol

    def diagonal(self, t: Float[ArrayLike, ""]) -> PyTree[Array]:
        """The diagonal of L(t)."""
        a = self._scale_at(jnp.asarray(t))
        return jax.tree.map(lambda s: jnp.asarray(a, real_dtype(s)) * s, self.unscaled)

    def _scale_at(self, t):
        a = jnp.asarray(self.scale(t))
        if a.shape != () or is_complex(a):
            raise ValueError(
                f"`scale` must return a real scalar, got shape {a.shape} and {a.dtype}; use "
                "`TimeVaryingPropagator` for an L whose entries vary differently."
            )
        return a

    def integral(self, t0: Float[ArrayLike, ""], t1: Float[ArrayLike, ""]) -> PyTree[Array]:
        """int_t0^t1 L, the logarithm of `propagate`."""
        return self._integral(t0, t1, None)

    def _integral(self, t0, t1, expansion):
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        if self.antiderivative is not None:
            total = self.antiderivative(t1) - self.antiderivative(t0)
        else:
            expansion = self._expansion(t0, t1) if expansion is None else expansion
            total = (t1 - t0) * expansion[0]
        return jax.tree.map(lambda s: jnp.asarray(total, real_dtype(s)) * s, self.unscaled)

    def _expansion(self, t0, t1):
        return legendre_expansion(self._scale_at, t0, t1, self.points)

    def propagate(self, t0, t1):
        """exp((A(t1) - A(t0)) Lambda)."""
        return jax.tree.map(jnp.exp, self.integral(t0, t1))

    def moments(self, t0, t1, num):
        """M_0, ..., M_{num-1}."""
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        expansion = self._expansion(t0, t1)
        positions = jnp.linspace(0.0, 1.0, self.points, dtype=expansion.dtype)
        values = value_at(powers_from_end(expansion), positions)
        size = jnp.abs(values)
        same_sign = jnp.all(values > 0) | jnp.all(values < 0)
        usable = same_sign & (jnp.min(size) >= _SMALLEST_RATIO * jnp.max(size))
        # What is not used must still be finite, and so must its derivative.
        safe = jnp.where(usable, expansion, jnp.zeros_like(expansion).at[0].set(1))
        total = self._integral(t0, t1, expansion)

        def monotone():
            return jax.tree.map(lambda z: scaled_moments(safe, z, t1 - t0, num), total)

        def general():
            def on_leaf(s):
                a = expansion.astype(real_dtype(s)).reshape(-1, *(1,) * s.ndim)
                return diagonal_moments(a * s, t1 - t0, num)

            return jax.tree.map(on_leaf, self.unscaled)

        parts = jax.lax.cond(usable, monotone, general)
        outer = jax.tree.structure(self.unscaled)
        return jax.tree.transpose(outer, jax.tree.structure((0,) * num), parts)

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
