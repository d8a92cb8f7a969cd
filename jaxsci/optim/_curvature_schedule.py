"""A learning rate and a momentum read off the curvature, refreshed during training.

A few Lanczos steps on a sub-sample give the largest eigenvalue lam1 of the Hessian and the mean
size mu of the others; the noise along its eigenvector gives the sharpness L that batches of the
training size see. Then

    gradient descent  lr = 2 c / L
    heavy ball        lr = c (2 / (sqrt L + sqrt mu))^2,
                      momentum = ((sqrt L - sqrt mu) / (sqrt L + sqrt mu))^2.

With c = 1 they stand at the limit of stability, and the sharpness of a network moves between two
estimates: heavy ball then diverges, gradient descent is left with a noisy end. The defaults are
c = 0.7 for gradient descent and c = 1/4 for heavy ball.

This is our version of the learner sketched by Granziol, Zohren and Roberts 2020 (arXiv:2006.09092);
its choice of mu, c and the limits is ours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from jaxsci._base import check_at_least, check_interval, check_positive
from jaxsci.curvature import hessian_operator, hvp, lanczos, rademacher_like, rmt


class SharpnessEstimate(NamedTuple):
    """What a few Hessian-vector products tell about the Hessian of the loss."""

    lam1: Float[Array, ""]
    """The largest eigenvalue, on a sub-sample."""
    noise: Float[Array, ""]
    """P sigma^2 along its eigenvector; divided by the batch size it is the s^2 of a batch."""
    mean_abs: Float[Array, ""]
    """The mean of |eigenvalue|, from one probe."""


class LearningRateAndMomentum(NamedTuple):
    """The two hyper-parameters of gradient descent with momentum."""

    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]


def estimate_sharpness(
    loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    data: PyTree,
    key: Key[Array, ""],
    batch_size: int,
    *,
    num_steps: int = 12,
    num_examples: int = 512,
    num_batches: int = 4,
) -> SharpnessEstimate:
    """Estimate the sharpness of a loss, and its noise over batches.

    **Arguments:**

    - `loss_fn`: `(params, batch) -> scalar`, a mean over the examples of the batch; weight decay
        that is part of the objective belongs in it.
    - `params`: pytree of real floating arrays.
    - `data`: the training data, a pytree whose leaves have a leading axis over examples.
    - `key`: a typed key; it draws the examples and the probe.
    - `batch_size`: that of training, at most the number of examples.
    - `num_steps`: Lanczos steps, each a Hessian-vector product on the sub-sample.
    - `num_examples`: the size of the sub-sample; all of the data if they are fewer.
    - `num_batches`: batches for the noise, each one Hessian-vector product.

    **Returns:**

    A [`SharpnessEstimate`][jaxsci.optim.SharpnessEstimate].

    **Raises:**

    `ValueError` if a count is below one or `batch_size` exceeds the number of examples.
    """
    for name, count in (
        ("batch_size", batch_size),
        ("num_steps", num_steps),
        ("num_examples", num_examples),
        ("num_batches", num_batches),
    ):
        check_at_least(name, count, 1)
    total = jax.tree.leaves(data)[0].shape[0]
    if batch_size > total:
        raise ValueError(
            f"`batch_size` must be at most the number of examples, {total}, got {batch_size}."
        )
    sample_key, probe_key, batch_key = jax.random.split(key, 3)

    def examples(indices):
        return jax.tree.map(lambda x: jnp.asarray(x)[indices], data)

    def drawn(k, count):
        return jax.random.permutation(k, total)[:count]

    sample = examples(drawn(sample_key, min(num_examples, total)))
    operator = hessian_operator(lambda p: loss_fn(p, sample), params)
    probe = rademacher_like(probe_key, params)
    size = sum(x.size for x in jax.tree.leaves(probe))
    steps = lanczos(operator, probe, min(num_steps, size))
    values, vectors = steps.ritz()
    top = jnp.take(vectors, steps.num_valid - 1, axis=1)
    u1 = jax.tree.map(lambda u, p: u.astype(p.dtype), steps.combine(top), probe)

    def batch_hvp(indices, v):
        return hvp(lambda p: loss_fn(p, examples(indices)), params, v)

    keys = jax.random.split(batch_key, num_batches)
    indices = jax.vmap(lambda k: drawn(k, batch_size))(keys)
    noise = rmt.batch_noise(batch_hvp, values[-1], u1, indices, total)
    mean_abs = jnp.sum(jnp.square(vectors[0]) * jnp.abs(values))
    return SharpnessEstimate(values[-1], noise, mean_abs)


def rates_from_sharpness(
    estimate: SharpnessEstimate,
    batch_size: ArrayLike,
    n_data: ArrayLike | None = None,
    *,
    previous: LearningRateAndMomentum | None = None,
    momentum: bool = True,
    scale: ArrayLike | None = None,
    smallest: ArrayLike | None = None,
    rule: str = "perturbative",
    min_curvature: ArrayLike = 1e-3,
    max_momentum: ArrayLike = 0.95,
    max_change: ArrayLike = 2.0,
) -> LearningRateAndMomentum:
    """The learning rate and momentum for an estimated sharpness.

    **Arguments:**

    - `estimate`: from [`estimate_sharpness`][jaxsci.optim.estimate_sharpness].
    - `batch_size`: that of training.
    - `n_data`: the number of examples; `None` is infinite.
    - `previous`: the rates before; the learning rate changes by no more than the factor
        `max_change` from it. `None` at the start.
    - `momentum`: `False` is plain gradient descent, with a momentum of zero.
    - `scale`: the factor c on the learning rate; `None` is 1/4 with momentum and 0.7 without.
    - `smallest`: mu; `None` is the mean of |eigenvalue|. With the weight decay in its place take
        `scale` between 0.05 and 0.1.
    - `rule`: how the noise raises the sharpness, see
        [`batch_sharpness`][jaxsci.curvature.rmt.batch_sharpness].
    - `min_curvature`: the least value of lam1.
    - `max_momentum`: the largest momentum, in [0, 1).
    - `max_change`: at least 1.

    **Returns:**

    `(learning_rate, momentum)`, a named tuple. Where the estimate is not finite it is `previous`.

    **Raises:**

    `ValueError` if a number is out of its range.
    """
    for name, value in (("min_curvature", min_curvature), ("scale", scale), ("smallest", smallest)):
        if value is not None:
            check_positive(name, value)
    check_interval("max_momentum", max_momentum, 0.0, 1.0, closed="left")
    check_at_least("max_change", max_change, 1)
    dtype = estimate.lam1.dtype
    lam1 = jnp.maximum(estimate.lam1, jnp.asarray(min_curvature, dtype))
    # A NaN is dealt with below; the checks of the rules would raise on it outside compiled code.
    finite = jnp.all(jnp.isfinite(jnp.stack(estimate)))
    lam1, noise, mean_abs = (jnp.where(finite, x, 1) for x in (lam1, *estimate[1:]))
    sharpness = rmt.batch_sharpness(lam1, noise, batch_size, n_data, rule)
    if momentum:
        mu = mean_abs if smallest is None else jnp.asarray(smallest, dtype)
        rate, rho = rmt.heavy_ball(sharpness, jnp.minimum(mu, sharpness))
        rho = jnp.minimum(rho, jnp.asarray(max_momentum, dtype))
    else:
        rate, rho = 2 / sharpness, jnp.zeros((), dtype)
    if scale is None:
        scale = 0.25 if momentum else 0.7
    rate = rate * jnp.asarray(scale, dtype)
    if previous is None:
        return LearningRateAndMomentum(
            jnp.where(finite, rate, jnp.nan), jnp.where(finite, rho, jnp.nan)
        )
    before, momentum_before = (jnp.asarray(x, dtype) for x in previous)
    factor = jnp.asarray(max_change, dtype)
    limited = jnp.clip(rate, before / factor, before * factor)
    return LearningRateAndMomentum(
        jnp.where(finite, limited, before), jnp.where(finite, rho, momentum_before)
    )


def curvature_schedule(
    loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    data: PyTree,
    key: Key[Array, ""],
    batch_size: int,
    *,
    num_steps: int = 12,
    num_examples: int = 512,
    num_batches: int = 4,
    **options: Any,
) -> LearningRateAndMomentum:
    """The learning rate and momentum for the next stretch of training, from the curvature here.

    Write them into the state of `optax.inject_hyperparams(optax.sgd)`, once an epoch or so; a call
    costs about `2 (num_steps num_examples / batch_size + num_batches)` gradients of a batch.

    ```python
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.0)
    state = tx.init(params)
    refresh = jax.jit(lambda p, k, previous: curvature_schedule(
        loss_fn, p, data, k, batch_size, previous=previous))
    rates = None
    for epoch in range(epochs):
        rates = refresh(params, jax.random.fold_in(key, epoch), rates)
        state.hyperparams.update(rates._asdict())
        ...  # the steps of the epoch
    ```

    **Arguments:**

    - `loss_fn`, `params`, `data`, `key`, `batch_size`, `num_steps`, `num_examples`, `num_batches`:
        as in [`estimate_sharpness`][jaxsci.optim.estimate_sharpness].
    - `options`: the keyword arguments of
        [`rates_from_sharpness`][jaxsci.optim.rates_from_sharpness]: `previous`, `momentum`,
        `scale`, `smallest`, `rule`, `min_curvature`, `max_momentum`, `max_change`.

    **Returns:**

    `(learning_rate, momentum)`, a named tuple. Where the estimate is not finite it is `previous`.

    **Raises:**

    `ValueError` if a number is out of its range.
    """
    estimate = estimate_sharpness(
        loss_fn,
        params,
        data,
        key,
        batch_size,
        num_steps=num_steps,
        num_examples=num_examples,
        num_batches=num_batches,
    )
    total = jax.tree.leaves(data)[0].shape[0]
    return rates_from_sharpness(estimate, batch_size, total, **options)
