"""Propagators: everything an integrator needs to know of the linear part of u' = L(t) u + N(t, u).

`propagate` is exp of the integral of L, and the moments M_k integrate it against (tau - t0)^k/k!,
so that N(t) = sum_k N_k (t - t0)^k/k! is solved exactly by u1 = propagate u0 + sum_k M_k N_k.
"""

import abc
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, Inexact, PyTree

from .._base import complex_dtype, is_complex, real_dtype
from ._phi import phi_functions


class AbstractPropagator(eqx.Module):
    """The linear operator L(t) of a semilinear equation, and its exact solution.

    Coefficients (what `propagate` and `moments` return) are pytrees of arrays that may be added to
    each other and scaled; `act` applies one to a state.
    """

    @property
    @abc.abstractmethod
    def constant(self) -> bool:
        """Whether L does not depend on t, so that coefficients depend on t1 - t0 alone."""

    @abc.abstractmethod
    def propagate(self, t0: Float[ArrayLike, ""], t1: Float[ArrayLike, ""]) -> PyTree[Array]:
        """exp(int_t0^t1 L)."""

    @abc.abstractmethod
    def moments(
        self, t0: Float[ArrayLike, ""], t1: Float[ArrayLike, ""], num: int
    ) -> tuple[PyTree[Array], ...]:
        """M_0, ..., M_{num-1}: M_k = int_t0^t1 exp(int_tau^t1 L) (tau - t0)^k/k! dtau."""

    @abc.abstractmethod
    def act(self, coefficient: PyTree[Array], u: PyTree[Array]) -> PyTree[Array]:
        """Apply a coefficient to a state."""

    @abc.abstractmethod
    def apply(self, t: Float[ArrayLike, ""], u: PyTree[Array]) -> PyTree[Array]:
        """L(t) u."""

    @abc.abstractmethod
    def solve(
        self, t: Float[ArrayLike, ""], a: Float[ArrayLike, ""], rhs: PyTree[Array]
    ) -> PyTree[Array]:
        """(I - a L(t))^{-1} rhs."""


class DiagonalPropagator(AbstractPropagator):
    """A constant diagonal L: one number, real or complex, for each entry of the state.

    **Arguments:**

    - `symbol`: the diagonal of L: a scalar, an array that broadcasts to the state, or a pytree of
        those whose structure is a prefix of the state's. Or a function without arguments that
        returns one: then nothing derived is stored, and derivatives reach the parameters that the
        function holds (pass a bound method of an `equinox.Module`).
    """

    symbol: PyTree[Array] | Callable[[], PyTree[Array]]

    def __init__(self, symbol: PyTree[ArrayLike] | Callable[[], PyTree[ArrayLike]]):
        if isinstance(symbol, lx.AbstractLinearOperator) or _takes_arguments(symbol):
            raise ValueError(
                "`symbol` must be the diagonal of L or a function without arguments that returns "
                f"it, got {symbol!r}; {_ALTERNATIVES}"
            )
        if callable(symbol):
            self.symbol = pytree_function("symbol", symbol)
        else:
            self.symbol = jax.tree.map(jnp.asarray, symbol)

    @property
    def constant(self) -> bool:
        """True."""
        return True

    @property
    def diagonal(self) -> PyTree[Array]:
        """The diagonal of L."""
        return self.symbol() if callable(self.symbol) else self.symbol

    def propagate(self, t0, t1):
        """exp(h L), h = t1 - t0."""
        return self._map(lambda z, h: jnp.exp(z), t0, t1)

    def moments(self, t0, t1, num):
        """M_k = h^(k+1) phi_{k+1}(h L)."""
        parts = self._map(
            lambda z, h: tuple(h ** (k + 1) * p for k, p in enumerate(phi_functions(num, z)[1:])),
            t0,
            t1,
        )
        outer = jax.tree.structure(self.diagonal)
        return jax.tree.transpose(outer, jax.tree.structure((0,) * num), parts)

    def _map(self, function, t0, t1):
        def on_leaf(symbol):
            h = jnp.asarray(t1 - t0, real_dtype(symbol))
            return function(h * symbol, h)

        return jax.tree.map(on_leaf, self.diagonal)

    def act(self, coefficient, u):
        """Multiply elementwise."""
        return broadcast(lambda c, x: c * x, coefficient, u)

    def apply(self, t, u):
        """L u."""
        return broadcast(lambda s, x: in_precision_of(x, s) * x, self.diagonal, u)

    def solve(self, t, a, rhs):
        """rhs / (1 - a L)."""

        def divide(s, x):
            s = in_precision_of(x, s)
            return x / (1 - jnp.asarray(a, real_dtype(x)) * s)

        return broadcast(divide, self.diagonal, rhs)


# Told to whoever gives a diagonal that is none.
_ALTERNATIVES = (
    "use `BlockPropagator` for an L that couples fields, `ScaledPropagator` or "
    "`TimeVaryingPropagator` for one that varies in time, and `KrylovPropagator` for any other "
    "operator, such as one with coefficients that vary in space."
)


def _takes_arguments(symbol) -> bool:
    if not callable(symbol):
        return False
    try:
        inspect.signature(symbol).bind()
    except TypeError:
        return True
    except ValueError:  # no signature to be had
        return False
    return False


def broadcast(function: Callable[[Any, Any], Any], prefix, tree):
    """Map over a pytree and a prefix of it whose leaves broadcast to those of the tree."""

    def on_leaf(p, x):
        tail = x.shape[max(x.ndim - p.ndim, 0) :]
        if p.ndim > x.ndim or any(a not in (1, b) for a, b in zip(p.shape, tail)):
            raise ValueError(
                f"`linear` must broadcast to the state: its diagonal has shape {p.shape}, the "
                f"state {x.shape}; {_ALTERNATIVES}"
            )
        return function(p, x)

    return jax.tree.map(lambda p, sub: jax.tree.map(lambda x: on_leaf(p, x), sub), prefix, tree)


def in_precision_of(
    x: Inexact[Array, "..."], symbol: Inexact[Array, "..."]
) -> Inexact[Array, "..."]:
    """`symbol` in the precision of `x`, still real or complex as it was."""
    return symbol.astype(complex_dtype(x) if is_complex(symbol) else real_dtype(x))


def pytree_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that may be a field of a propagator: a bare one would be a leaf no loop carries.

    **Raises:** `TypeError` if it is no function.
    """
    if not callable(function):
        raise TypeError(f"`{name}` must be a function, got {function!r}.")
    if isinstance(function, eqx.Module | jax.tree_util.Partial):
        return function  # pyright: ignore[reportReturnType]
    return jax.tree_util.Partial(function)


def cast_coefficients(coefficients: PyTree[Array], y: PyTree[Array]) -> PyTree[Array]:
    """Coefficients in the precision of the state `y`, real ones staying real."""
    leaves = jax.tree.leaves(y)
    x = jnp.zeros((), jnp.result_type(*leaves))
    return jax.tree.map(lambda c: in_precision_of(x, c), coefficients)
