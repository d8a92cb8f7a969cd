"""How far each eigenmode of a kernel has come under gradient descent.

The residual r = f - y of the loss 1/2 sum r^2 obeys, for each eigenvalue w of the kernel, an
equation of its own. With decay(w) for what is left of the mode at time t, every function here is

    filter(w) = (1 - decay(w)) / w,        filter(w) -> rate * t as w -> 0

(rate t^2 / 2 from rest), with w + ridge for w. Gradient flow: decay = exp(-rate w t). Gradient
descent: (1 - rate w)^t. Heavy ball: r'' + friction r' + rate w r = 0 from rest. Momentum:
v <- momentum v - rate w r, r <- r + v.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


class Clock(NamedTuple):
    """What decides how far a mode has come: time, rate, ridge and momentum or friction.

    Eigenvalues up to `cutoff` are rounding errors of zero; it matters at t = inf only.
    """

    t: Array
    rate: Array
    ridge: Array
    inertia: Array
    cutoff: Array


def _flow_filter(w: Array, clock: Clock) -> Array:
    """(1 - exp(-rate (w + ridge) t)) / (w + ridge); at t = inf, the pseudo-inverse."""
    lam = jnp.maximum(w, 0) + clock.ridge
    forever = jnp.isinf(clock.t)
    t = jnp.where(forever, 0, clock.t)
    positive = lam > 0
    safe = jnp.where(positive, lam, 1)
    early = jnp.where(positive, -jnp.expm1(-clock.rate * safe * t) / safe, clock.rate * t)
    return jnp.where(forever, jnp.where(lam > clock.cutoff, 1 / safe, 0), early)


def _descent_filter(w: Array, clock: Clock) -> Array:
    """(1 - (1 - rate (w + ridge))^t) / (w + ridge)."""
    lam = jnp.maximum(w, 0) + clock.ridge
    step = clock.rate * lam
    positive = lam > 0
    safe = jnp.where(positive, lam, 1)
    small = step < 0.5
    slow = -jnp.expm1(clock.t * jnp.log1p(-jnp.where(small, step, 0)))
    # (1 - step)^t for a base of either sign and integer t.
    base = jnp.where(small, 1, 1 - step)
    size = jnp.where(base == 0, 1, jnp.abs(base))
    sign = jnp.where((base < 0) & (clock.t % 2 == 1), -1, 1)
    left = sign * jnp.exp(clock.t * jnp.log(size))
    left = jnp.where(base == 0, jnp.where(clock.t == 0, 1, 0), left)
    gone = jnp.where(small, slow, 1 - left)
    return jnp.where(positive, gone / safe, clock.rate * clock.t)


def _heavy_ball_filter(w: Array, clock: Clock) -> Array:
    """b'' + friction b' + rate (w + ridge) b = rate from rest at 0, at time t."""
    lam = jnp.maximum(w, 0) + clock.ridge
    t, half = clock.t, clock.inertia / 2
    square = half**2 - clock.rate * lam
    over, under = square > 0, square < 0
    root = jnp.sqrt(jnp.where(over, square, jnp.where(under, -square, 1)))
    fast = jnp.exp(-(half + jnp.where(over, root, 0)) * t)
    slow = jnp.exp(-(half - jnp.where(over, root, 0)) * t)
    damped = jnp.exp(-half * t)
    even = jnp.where(over, (slow + fast) / 2, damped * jnp.where(under, jnp.cos(root * t), 1))
    # sinh(s t)/s or sin(s t)/s, damped; t where s vanishes.
    odd = jnp.where(
        over, (slow - fast) / (2 * root), damped * jnp.where(under, jnp.sin(root * t) / root, t)
    )
    left = even + half * odd
    # While hardly anything has gone, the difference from one is lost to rounding: leading order.
    z = clock.inertia * t
    tiny = z < 1e-2
    safe_z = jnp.where(tiny, 1, z)
    phi2 = jnp.where(tiny, 0.5 - z / 6 + z**2 / 24, (safe_z + jnp.expm1(-safe_z)) / safe_z**2)
    leading = clock.rate * t**2 * phi2
    early = lam * leading < jnp.sqrt(jnp.finfo(lam.dtype).eps)
    return jnp.where(early, leading, (1 - left) / jnp.where(early, 1, lam))


def _momentum_filter(w: Array, clock: Clock) -> Array:
    """b_{k+1} = b_k + v_{k+1}, v_{k+1} = momentum v_k + rate (1 - (w + ridge) b_k), from rest."""
    lam = jnp.maximum(w, 0) + clock.ridge
    one, zero = jnp.ones_like(lam), jnp.zeros_like(lam)
    mu, rate = clock.inertia * one, clock.rate * one
    # One step of (b, v, 1), then its t-th power by squaring.
    rows = [[1 - rate * lam, mu, rate], [-rate * lam, mu, rate], [zero, zero, one]]
    power = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    state = jnp.stack([zero, zero, one], -1)
    steps = clock.t.astype(jnp.int32)

    def bit(k, carry):
        state, power = carry
        on = (steps >> k) & 1
        return jnp.where(
            on == 1, jnp.einsum("...ij,...j->...i", power, state), state
        ), power @ power

    def advance(k, carry):
        # Powers that no bit selects any more may overflow: leave them alone.
        needed = (steps >> k) > 0
        return jax.tree.map(lambda new, old: jnp.where(needed, new, old), bit(k, carry), carry)

    return jax.lax.fori_loop(0, 31, advance, (state, power))[0][..., 0]


_FILTERS: dict[tuple[bool, bool], Callable[[Array, Clock], Array]] = {
    (False, False): _flow_filter,
    (True, False): _descent_filter,
    (False, True): _heavy_ball_filter,
    (True, True): _momentum_filter,
}


def pick_filter(
    discrete: bool, momentum: ArrayLike | None, friction: ArrayLike | None
) -> Callable[[Array, Clock], Array]:
    """The filter of the dynamics, after a look whether the options belong together."""
    if discrete and friction is not None:
        raise ValueError(
            "`friction` belongs to continuous time; with `discrete=True` use `momentum`."
        )
    if not discrete and momentum is not None:
        raise ValueError(
            "`momentum` belongs to `discrete=True`; in continuous time use `friction`."
        )
    return _FILTERS[discrete, momentum is not None or friction is not None]
