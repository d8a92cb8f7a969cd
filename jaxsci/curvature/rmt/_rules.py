"""Learning rates, momentum and damping from the ends of a spectrum.

Gradient descent on a quadratic diverges for a learning rate above 2 over its largest eigenvalue;
here that eigenvalue is the one of the Hessian of a batch. With s^2 = noise / b,

    spiked           lam + s^2 / lam  if lam > s,  2 s otherwise
    perturbative     lam + s^2 / lam
    self-consistent  (lam + sqrt(lam^2 + 4 s^2)) / 2

agree for large batches. Small batches: the perturbative form gives learning rates proportional to
B, the two others to sqrt(B). All follow one eigenvalue; a network with several large ones close
together has batches sharper than all three say, by up to 70 % where we looked: keep a safety
factor.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxsci._base import (
    check_at_least,
    check_choice,
    check_finite,
    check_nonnegative,
    check_positive,
    is_concrete,
)

from ._noise import inverse_batch_size
from ._spikes import spiked_edges
from ._values import real_values

_SHARPNESS = ("spiked", "perturbative", "self-consistent")
_BISECTIONS = 60


def batch_sharpness(
    lam1: ArrayLike,
    noise: ArrayLike,
    batch_size: ArrayLike,
    n_data: ArrayLike | None = None,
    rule: str = "spiked",
) -> Float[Array, "*shape"]:
    """The largest eigenvalue of the Hessian of a batch.

    **Arguments:**

    - `lam1`: the largest eigenvalue of the Hessian of all data, positive for the rules other than
        "spiked".
    - `noise`: P sigma^2, at least zero; best from
        [`batch_noise`][jaxsci.curvature.rmt.batch_noise].
    - `batch_size`: B.
    - `n_data`: N, for batches drawn without replacement; `None` is infinite.
    - `rule`: "spiked", "perturbative" or "self-consistent", the formulas above.

    **Returns:**

    The sharpness; all numbers broadcast against each other.

    **Raises:**

    `ValueError` if B is not from 1 to N, `noise` is negative or `rule` is not one of the three.
    """
    check_choice("rule", rule, _SHARPNESS)
    check_finite("lam1", lam1)
    lam1, s2 = _lam_and_s2(lam1, noise, batch_size, n_data)
    if rule == "spiked":
        return spiked_edges(jnp.maximum(lam1, 0), s2)[0]
    if rule == "perturbative":
        return lam1 + s2 / lam1
    return (lam1 + jnp.sqrt(jnp.square(lam1) + 4 * s2)) / 2


def max_learning_rate(
    lam1: ArrayLike,
    noise: ArrayLike,
    batch_size: ArrayLike,
    n_data: ArrayLike | None = None,
    rule: str = "sgd",
    damping: ArrayLike | None = None,
    *,
    allow_nonpositive: bool = False,
) -> Float[Array, "*shape"]:
    """The largest stable learning rate at a batch size.

    **Arguments:**

    - `lam1`: the largest eigenvalue of the Hessian of all data.
    - `noise`: P sigma^2, from [`batch_noise`][jaxsci.curvature.rmt.batch_noise] for gradient
        descent, from [`bulk_noise`][jaxsci.curvature.rmt.bulk_noise] for the adaptive rule.
    - `batch_size`: B.
    - `n_data`: N, for batches drawn without replacement; `None` is infinite.
    - `rule`: "sgd" is 2 over the "spiked"
        [`batch_sharpness`][jaxsci.curvature.rmt.batch_sharpness]; "perturbative" and
        "self-consistent" take the sharpness of that name. "adaptive" is for
        methods that divide by the curvature plus a damping (Adam and its like): sharp directions
        are then all alike, and the edge 2 s of the noise in flat ones allows damping / s,
        proportional to sqrt(B). It leaves the noiseless limit 2 (lam1 + damping) / lam1 of the
        sharpest direction aside.
    - `damping`: for "adaptive", what the method adds to the curvature (epsilon), positive.
    - `allow_nonpositive`: return infinity where `lam1 <= 0`, no curvature that limits the step;
        by default that is an error, where it can be seen (not under `jax.jit`).

    **Returns:**

    The learning rate; all numbers broadcast against each other. "adaptive" without noise is
    infinite.

    **Raises:**

    `ValueError` if `lam1` is not positive, B is not from 1 to N, `noise` is negative, `rule` is
    unknown, or `damping` is missing or not positive.
    """
    check_choice("rule", rule, ("sgd", "perturbative", "self-consistent", "adaptive"))
    if rule == "adaptive" and damping is None:
        raise ValueError("`damping` must be given for the rule 'adaptive', got None.")
    if allow_nonpositive:
        check_finite("lam1", lam1)
    else:
        _check_curvature(lam1)
    lam1, s2 = _lam_and_s2(lam1, noise, batch_size, n_data)
    positive = lam1 > 0
    if damping is not None and rule == "adaptive":
        check_positive("damping", damping)
        noisy = s2 > 0
        s = jnp.sqrt(jnp.where(noisy, s2, 1))
        rate = jnp.where(noisy, jnp.asarray(damping, s.dtype) / s, jnp.inf)
    else:
        rule = "spiked" if rule == "sgd" else rule
        safe = jnp.where(positive, lam1, 1)
        rate = 2 / batch_sharpness(safe, s2, 1, rule=rule)
    return jnp.where(positive, rate, jnp.inf)


def scale_learning_rate(
    lr: ArrayLike,
    from_batch: ArrayLike,
    to_batch: ArrayLike,
    lam1: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    rule: str = "linear",
    *,
    n_data: ArrayLike | None = None,
) -> Float[Array, "*shape"]:
    """Carry a learning rate that works at one batch size over to another.

    **Arguments:**

    - `lr`: the learning rate at `from_batch`, positive.
    - `from_batch`, `to_batch`: the batch sizes, at least one.
    - `lam1`, `noise`: for "spiked", as in
        [`max_learning_rate`][jaxsci.curvature.rmt.max_learning_rate].
    - `rule`: "linear" multiplies by to / from (gradient descent, small batches), "sqrt" by its
        square root (Adam and its like), "spiked" by the ratio of the maximal learning rates: it
        saturates for large batches.
    - `n_data`: for "spiked", the number of examples; `None` is infinite.

    **Returns:**

    The learning rate at `to_batch`.

    **Raises:**

    `ValueError` if `lr` is not positive, a batch size is out of range, `rule` is unknown, or
    "spiked" comes without `lam1` and `noise`.
    """
    check_choice("rule", rule, ("linear", "sqrt", "spiked"))
    check_positive("lr", lr)
    for name, size in (("from_batch", from_batch), ("to_batch", to_batch)):
        check_at_least(name, size, 1)
    if rule == "spiked":
        if lam1 is None or noise is None:
            raise ValueError(
                "`lam1` and `noise` must be given for the rule 'spiked', got "
                f"lam1={lam1!r}, noise={noise!r}."
            )
        _check_curvature(lam1)
        before = batch_sharpness(lam1, noise, from_batch, n_data)
        after = batch_sharpness(lam1, noise, to_batch, n_data)
        return before / after * lr
    lr, before, after = real_values(lr, from_batch, to_batch)
    ratio = after / before
    return lr * (ratio if rule == "linear" else jnp.sqrt(ratio))


def minimal_damping(
    learning_rate: ArrayLike,
    noise: ArrayLike,
    batch_size: ArrayLike,
    n_data: ArrayLike | None = None,
    lam: ArrayLike | None = None,
) -> Float[Array, "*shape"]:
    """The damping that a preconditioned step needs to withstand the noise of its batch.

    The step is alpha (H + delta I)^-1 g, with a curvature H from other data than the gradient.
    Flat directions, where the preconditioner is 1 / delta and the noise reaches 2 s, need
    delta > alpha s, proportional to alpha / sqrt(B). Along an outlier lam the noise adds
    s^2 / lam to the curvature; delta = alpha s^2 / lam, proportional to alpha / B, is enough there
    for alpha <= 2.

    **Arguments:**

    - `learning_rate`: alpha, positive.
    - `noise`, `batch_size`, `n_data`: as in
        [`max_learning_rate`][jaxsci.curvature.rmt.max_learning_rate].
    - `lam`: the outlier, positive; `None` for the flat directions.

    **Returns:**

    delta.

    **Raises:**

    `ValueError` if a number is out of its range.
    """
    check_positive("learning_rate", learning_rate)
    if lam is not None:
        check_positive("lam", lam)
    rate, s2 = _lam_and_s2(learning_rate, noise, batch_size, n_data)
    if lam is not None:
        return rate * s2 / jnp.asarray(lam, s2.dtype)
    return rate * jnp.where(s2 > 0, jnp.sqrt(jnp.where(s2 > 0, s2, 1)), 0)


def mean_square_limit(eigenvalues: Float[Array, " P"], s2: ArrayLike) -> Float[Array, ""]:
    """The learning rate below which the mean square distance to a minimum shrinks.

    With a fresh noise matrix every step, independent entries of variance s^2 / P, the energy e_i
    along eigendirection i of H obeys

        e_i <- (1 - alpha lam_i)^2 e_i + alpha^2 (s^2 / P) sum_j e_j,

    which shrinks if alpha max(lam) < 2 and sum_i (alpha s^2 / P) / (lam_i (2 - alpha lam_i)) < 1.
    For P equal eigenvalues the limit is 2 / (lam + s^2 / lam).

    **Arguments:**

    - `eigenvalues`: all P eigenvalues of H, positive.
    - `s2`: s^2 = noise / b, at least zero.

    **Returns:**

    The limit, differentiable in both.

    **Raises:**

    `ValueError` if an eigenvalue is not positive or `s2` is negative.
    """
    check_positive("eigenvalues", eigenvalues)
    check_nonnegative("s2", s2)
    lam, s2 = real_values(eigenvalues, s2)
    top = jnp.max(lam)
    noisy = s2 > 0

    def excess(alpha, lam, s2):
        return jnp.mean(alpha * s2 / (lam * (2 - alpha * lam))) - 1

    fixed = jax.lax.stop_gradient((lam, jnp.where(noisy, s2, 1)))

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        stable = excess(middle, *fixed) < 0
        return jnp.where(stable, middle, low), jnp.where(stable, high, middle)

    start = (jnp.zeros_like(top), 2 / fixed[0].max())
    alpha, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, start)
    alpha = jax.lax.stop_gradient(alpha)
    # One step of Newton's method: it carries the derivatives, by the implicit function theorem.
    slope = jax.lax.stop_gradient(jax.grad(excess)(alpha, *fixed))
    root = alpha - excess(alpha, lam, jnp.where(noisy, s2, 1)) / slope
    return jnp.where(noisy, root, 2 / top)


def heavy_ball(
    L: ArrayLike, mu: ArrayLike
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The learning rate and momentum that are best for a quadratic with eigenvalues in [mu, L].

    lr = (2 / (sqrt L + sqrt mu))^2, rho = ((sqrt L - sqrt mu) / (sqrt L + sqrt mu))^2; every
    direction then shrinks by sqrt(rho) a step. It stands at the limit of stability,
    lr L = 2 (1 + rho): on a noisy function take a fraction of lr. Polyak 1964, "Some methods of
    speeding up the convergence of iteration methods".

    **Arguments:**

    - `L`, `mu`: the largest and the smallest eigenvalue, `L > 0` and `0 <= mu <= L`.

    **Returns:**

    `(learning_rate, momentum)`.

    **Raises:**

    `ValueError` if a number is out of its range.
    """
    check_positive("L", L)
    check_nonnegative("mu", mu)
    if is_concrete(L, mu) and not np.all(np.asarray(mu) <= np.asarray(L)):
        raise ValueError(f"`mu` must be at most `L`, {L!r}, got {mu!r}.")
    a, b = (jnp.sqrt(x) for x in real_values(L, mu))
    return jnp.square(2 / (a + b)), jnp.square((a - b) / (a + b))


def _lam_and_s2(
    lam: ArrayLike, noise: ArrayLike, batch_size: ArrayLike, n_data: ArrayLike | None
) -> list[Array]:
    check_nonnegative("noise", noise)
    lam, noise = real_values(lam, noise)
    s2 = noise * inverse_batch_size(batch_size, n_data).astype(noise.dtype)
    return list(jnp.broadcast_arrays(lam, s2))


def _check_curvature(lam1: ArrayLike) -> None:
    check_finite("lam1", lam1)
    if is_concrete(lam1) and not np.all(np.asarray(lam1) > 0):
        raise ValueError(
            f"`lam1` must be positive, got {lam1!r}: without positive curvature no learning rate "
            "is too large."
        )
