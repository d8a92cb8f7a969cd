"""Duals of activations: what a layer of random features does to a covariance.

For centred Gaussian (u, v) of variances q, q' and covariance c, the dual of the activation s is the
pair K = E[s(u) s(v)], K_dot = E[s'(u) s'(v)] (Daniely, Frostig and Singer 2016, arXiv:1602.05897;
the arc-cosine kernel of ReLU is Cho and Saul 2009, the arcsine kernel of erf Williams 1997).

Every closed form is written so that equal arguments (q = q' = c) give the exact diagonal and finite
derivatives. The derivative kernel of an activation with a kink has itself a kink where the two
inputs coincide; the derivative taken there is the symmetric one, zero.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from ._quadrature import Dual, dual_quadrature


class ABReLU(eqx.Module):
    """The activation `a x` for x > 0 and `b x` for x < 0, with its slopes as parameters.

    ReLU is (1, 0), leaky ReLU (1, slope), the absolute value (1, -1).
    """

    a: ArrayLike = 1.0
    b: ArrayLike = 0.0

    def __call__(self, x: Array) -> Array:
        """Apply the activation, elementwise."""
        return jnp.where(x > 0, self.a * x, self.b * x)


def _angle(q: Array, q2: Array, c: Array) -> tuple[Array, Array]:
    """The angle between u and v, and sqrt(q q' - c^2); both zero where u and v coincide."""
    product = q * q2
    positive = product > 0
    norm = jnp.sqrt(jnp.where(positive, product, 1))
    squared = (norm - c) * (norm + c)
    # Below this the difference is rounding error of the covariances.
    apart = positive & (squared > 4 * jnp.finfo(norm.dtype).eps * norm**2)
    sine = jnp.sqrt(jnp.where(apart, squared, 1))
    angle = jnp.arctan2(sine, jnp.where(apart, c, 1))
    return (
        jnp.where(apart, angle, jnp.where(positive & (c < 0), jnp.pi, 0)),
        jnp.where(apart, sine, 0),
    )


def _relu(q, q2, c):
    angle, sine = _angle(q, q2, c)
    return (sine + (jnp.pi - angle) * c) / (2 * jnp.pi), (jnp.pi - angle) / (2 * jnp.pi)


def _abrelu(a: Any, b: Any) -> Dual:
    def evaluate(q: Array, q2: Array, c: Array) -> tuple[Array, Array]:
        value, slope = _relu(q, q2, c)
        return a * b * c + (a - b) ** 2 * value, a * b + (a - b) ** 2 * slope

    return evaluate


def _erf(q, q2, c):
    root = jnp.sqrt((1 + 2 * q) * (1 + 2 * q2) - 4 * c**2)
    return 2 / jnp.pi * jnp.arctan2(2 * c, root), 4 / jnp.pi / root


def _damped_hyperbolic(q, q2, c):
    """exp(-(q + q')/2) times sinh c and cosh c; |c| is at most (q + q')/2, so nothing overflows."""
    m = (q + q2) / 2
    above, below = jnp.where(c > 0, c, 0), jnp.where(c > 0, 0, c)
    sinh = jnp.where(
        c > 0,
        -jnp.exp(above - m) * jnp.expm1(-2 * above) / 2,
        jnp.exp(-below - m) * jnp.expm1(2 * below) / 2,
    )
    return sinh, (jnp.exp(c - m) + jnp.exp(-c - m)) / 2


def _sin(q, q2, c):
    return _damped_hyperbolic(q, q2, c)


def _cos(q, q2, c):
    sinh, cosh = _damped_hyperbolic(q, q2, c)
    return cosh, sinh


def _exp(q, q2, c):
    value = jnp.exp((q + q2) / 2 + c)
    return value, value


def _square(q, q2, c):
    return q * q2 + 2 * c**2, 4 * c


def _identity(q, q2, c):
    return c, jnp.ones_like(c)


def _gelu(q, q2, c):
    one, one2 = 1 + q, 1 + q2
    squared = one * one2 - c**2
    root = jnp.sqrt(squared)
    angle = jnp.arctan2(c, root)
    value = ((c**2 + q * q2 * squared) / (one * one2 * root) + c * angle) / (2 * jnp.pi) + c / 4
    slope = c / (2 * jnp.pi * root) * (1 / squared + (1 - q * q2) / (one * one2) + 1)
    return value, 0.25 + angle / (2 * jnp.pi) + slope


_NAMED: dict[str, Dual] = {
    "relu": _relu,
    "leaky_relu": _abrelu(1.0, 0.01),
    "abs": _abrelu(1.0, -1.0),
    "erf": _erf,
    "sin": _sin,
    "cos": _cos,
    "exp": _exp,
    "square": _square,
    "identity": _identity,
    "gelu": _gelu,
}
_NAMED_BY_QUADRATURE: dict[str, Callable] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.swish,
    "softplus": jax.nn.softplus,
}
# Keyed by the function itself: `jax.nn.gelu` is absent, its default is the tanh approximation.
_REGISTERED: dict[Any, Dual] = {
    jax.nn.relu: _relu,
    jax.nn.leaky_relu: _abrelu(1.0, 0.01),
    jnp.abs: _abrelu(1.0, -1.0),
    jnp.absolute: _abrelu(1.0, -1.0),
    jax.lax.erf: _erf,
    jax.scipy.special.erf: _erf,
    jnp.sin: _sin,
    jax.lax.sin: _sin,
    jnp.cos: _cos,
    jax.lax.cos: _cos,
    jnp.exp: _exp,
    jax.lax.exp: _exp,
    jnp.square: _square,
    jax.lax.square: _square,
    jax.nn.identity: _identity,
}


def _of_partial(activation: functools.partial) -> Dual | None:
    """The closed form of `partial(jax.nn.leaky_relu, ...)` and `partial(jax.nn.gelu, ...)`."""
    if activation.args:
        return None
    options = activation.keywords
    if activation.func is jax.nn.leaky_relu and set(options) == {"negative_slope"}:
        return _abrelu(1.0, options["negative_slope"])
    if activation.func is jax.nn.gelu and options == {"approximate": False}:
        return _gelu
    return None


def _on_arrays(evaluate: Dual) -> Dual:
    """`evaluate` on arguments broadcast against each other, floating at least."""

    def dual_fn(q, q2, c):
        dtype = jnp.result_type(q, q2, c)
        if not jnp.issubdtype(dtype, jnp.floating):
            dtype = jnp.result_type(float)
        return evaluate(*jnp.broadcast_arrays(*(jnp.asarray(a, dtype) for a in (q, q2, c))))

    return dual_fn


def register_dual(activation: Callable, evaluate: Dual) -> None:
    """Make `dual(activation)` return the closed form `evaluate` from here on.

    **Arguments:**

    - `activation`: the function, as it will be passed to `dual`; must be hashable.
    - `evaluate`: `(q, q2, c) -> (K, K_dot)`, arrays of one shape to arrays of that shape.

    **Raises:**

    `TypeError` if either is not callable or `activation` is not hashable.
    """
    for name, value in (("activation", activation), ("evaluate", evaluate)):
        if not callable(value):
            raise TypeError(f"`{name}` must be callable, got {value!r}.")
    _REGISTERED[activation] = evaluate


def dual(activation: str | Callable, *, num_nodes: int = 100) -> Dual:
    """The dual of an activation: its closed form if there is one, else quadrature.

    Closed forms: relu, leaky_relu, abs and `ABReLU`, erf, sin, cos, exp, square, identity, gelu
    (the exact one, x times the normal distribution function). `jax.nn.gelu` as it stands is the
    tanh approximation, and goes through quadrature like any function not known here;
    `functools.partial(jax.nn.gelu, approximate=False)` is known, and so is `jax.nn.leaky_relu` with
    a `negative_slope`.

    **Arguments:**

    - `activation`: a name (those above, "tanh", "sigmoid", "silu", "swish", "softplus"), or a
        scalar function.
    - `num_nodes`: quadrature nodes a dimension, where quadrature is used.

    **Returns:**

    `(q, q2, c) -> (K, K_dot)` with `K = E[s(u) s(v)]` and `K_dot = E[s'(u) s'(v)]` for centred
    Gaussian `u, v` of variances `q`, `q2` and covariance `c`; elementwise, with broadcasting.

    **Raises:**

    `ValueError` for a name that is not known, `TypeError` for what is neither name nor function.
    """
    if isinstance(activation, str):
        if activation in _NAMED:
            return _on_arrays(_NAMED[activation])
        if activation in _NAMED_BY_QUADRATURE:
            return _on_arrays(dual_quadrature(_NAMED_BY_QUADRATURE[activation], num_nodes))
        known = ", ".join(repr(n) for n in sorted({*_NAMED, *_NAMED_BY_QUADRATURE}))
        raise ValueError(f"`activation` must be a function or one of {known}, got {activation!r}.")
    if not callable(activation):
        raise TypeError(f"`activation` must be a name or a function, got {activation!r}.")
    if isinstance(activation, ABReLU):
        return _on_arrays(_abrelu(activation.a, activation.b))
    if isinstance(activation, functools.partial):
        closed = _of_partial(activation)
        if closed is not None:
            return _on_arrays(closed)
    try:
        registered = _REGISTERED.get(activation)
    except TypeError:
        registered = None
    if registered is not None:
        return _on_arrays(registered)
    return _on_arrays(dual_quadrature(activation, num_nodes))
