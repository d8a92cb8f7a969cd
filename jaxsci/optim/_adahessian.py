"""AdaHessian: Adam's update with the curvature diagonal in place of the gradient's square.

With g the gradient, d an estimate of diag(H) and dbar the block average of |d|,

    m  <- b1 m + (1 - b1) g,    nu <- b2 nu + (1 - b2) dbar^2,
    u  =  m / (1 - b1^t)  /  ((nu / (1 - b2^n))^(k/2) + eps),

t counting steps and n refreshes of nu: corrected by n, a lazily refreshed nu stays an average.

Yao, Gholami, Shen, Mustafa, Keutzer and Mahoney 2021, "AdaHessian: an adaptive second order
optimizer for machine learning" (arXiv:2006.00719), algorithm 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Int, PyTree

from jaxsci._base import (
    all_finite,
    at_least_float32,
    check_at_least,
    check_interval,
    check_nonnegative,
    check_real_leaves,
)
from jaxsci.curvature import AbstractDiagonalEstimator, Hutchinson

from ._block_axes import BlockAxes
from ._extra_args import aligned, has_masked, restricted, the_obj_fn
from ._moments import bias_correction, moving_average

_HUTCHINSON = Hutchinson(num_samples=1)


class ScaleByAdaHessianState(NamedTuple):
    """State of `scale_by_adahessian`: arrays only, so every checkpointer can write it."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    n: Int[Array, ""]  # refreshes of nu, while `count` counts steps
    mu: PyTree  # moving average of the gradient, in the dtypes of the parameters
    nu: PyTree  # moving average of the squared diagonal, in at least float32


def _check_instance(name: str, value: Any, cls: type) -> None:
    if not isinstance(value, cls):
        raise TypeError(f"`{name}` must be an instance of `{cls.__name__}`, got {value!r}.")


def scale_by_adahessian(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-4,
    hessian_power: ArrayLike = 1.0,
    estimator: AbstractDiagonalEstimator = _HUTCHINSON,
    update_interval: ArrayLike = 1,
    block_axes: BlockAxes = BlockAxes.none,
    seed: ArrayLike = 0,
    *,
    min_diag: ArrayLike = 0.0,
    refresh_warmup: ArrayLike = 10,
) -> optax.GradientTransformationExtraArgs:
    """Rescale gradients by AdaHessian (Yao et al. 2021, arXiv:2006.00719, algorithm 1).

    For the inputs of `update` and for the rules that apply inside other optax transforms see
    `adahessian`.

    **Arguments:**

    - `b1`, `b2`: decay rates, in [0, 1), of the averages of the gradient and of the squared
        curvature diagonal.
    - `eps`: added to the denominator, outside the power.
    - `hessian_power`: the power k in [0, 1]. 1 divides by the curvature, 0 by `1 + eps` (momentum).
    - `estimator`: how the diagonal is estimated from `obj_fn`.
    - `update_interval`: refresh the diagonal every so many steps. Under `jax.jit` the other steps
        do not pay for it (under a `jax.vmap` that batches the state's `count` they do).
    - `block_axes`: which entries share one averaged value.
    - `seed`: an integer; the probes of step t come from it and t. Ensemble members run under
        `jax.vmap` with the same seed share their probes.
    - `min_diag`: floor of the root of the averaged squared diagonal. A leaf in which the loss is
        linear has no curvature, and its step is divided by `min_diag^k + eps` only.
    - `refresh_warmup`: the first so many steps all refresh, whatever `update_interval` is: lazy
        steps are fragile while the average holds a single probe.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`. Updates have the dtypes of the gradients. Where an
    estimate holds a non-finite value, the last average is kept; until the first finite one,
    updates are zero.

    **Raises:**

    `ValueError` for a concrete argument out of its range. `init` and `update` raise `TypeError` for
    a leaf that is not real floating, and `update` raises `ValueError` if `params` or both of
    `obj_fn` and `hessian_diag` are missing, if `hessian_diag` does not match `params`, or if
    `params` is masked and `full_params` missing.
    """
    check_interval("b1", b1, 0.0, 1.0, closed="left")
    check_interval("b2", b2, 0.0, 1.0, closed="left")
    check_nonnegative("eps", eps)
    check_interval("hessian_power", hessian_power, 0.0, 1.0)
    check_at_least("update_interval", update_interval, 1)
    check_nonnegative("min_diag", min_diag)
    check_at_least("refresh_warmup", refresh_warmup, 0)
    _check_instance("estimator", estimator, AbstractDiagonalEstimator)
    _check_instance("block_axes", block_axes, BlockAxes)

    def init(params: PyTree) -> ScaleByAdaHessianState:
        check_real_leaves("params", params)
        return ScaleByAdaHessianState(
            count=jnp.zeros((), jnp.int32),
            n=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(lambda p: jnp.zeros_like(p, dtype=at_least_float32(p)), params),
        )

    def diagonal(params, count, obj_fn, hessian_diag, full_params) -> PyTree:
        if hessian_diag is not None:
            return aligned("hessian_diag", hessian_diag, params)
        if has_masked(params):
            obj_fn = restricted(obj_fn, params, full_params)
        key = jax.random.fold_in(jax.random.key(seed), count)
        return estimator.diagonal(obj_fn, params, key)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        obj_fn: Callable[[PyTree], Any] | None = None,
        value_fn: Callable[[PyTree], Any] | None = None,
        hessian_diag: PyTree | None = None,
        full_params: PyTree | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, ScaleByAdaHessianState]:
        del extra_args
        obj_fn = the_obj_fn(obj_fn, value_fn)
        if params is None or (obj_fn is None and hessian_diag is None):
            missing = "`params`" if params is None else "both `obj_fn` and `hessian_diag`"
            raise ValueError(
                f"`update` of AdaHessian: {missing} missing. It needs `params` and one of `obj_fn` "
                "(or `value_fn`: the loss on the current batch, params -> scalar) and "
                "`hessian_diag`. "
                "`flax.training.TrainState.apply_gradients` does not forward these; "
                "`flax.nnx.Optimizer.update` and `optax.chain` do."
            )
        check_real_leaves("params", params)

        def refresh(nu, n):
            diag = diagonal(params, state.count, obj_fn, hessian_diag, full_params)
            diag = jax.tree.map(lambda d, v: jnp.asarray(d).astype(v.dtype), diag, nu)
            squares = jax.tree.map(jnp.square, block_axes.average(diag))
            finite = all_finite(squares)
            new = jax.tree.map(
                lambda v, s: jnp.where(finite, moving_average(b2, v, s), v), nu, squares
            )
            return new, n + finite

        def keep(nu, n):
            return nu, n

        if isinstance(update_interval, int) and update_interval == 1:
            nu, n = refresh(state.nu, state.n)
        else:
            due = (state.count < refresh_warmup) | (state.count % update_interval == 0)
            nu, n = jax.lax.cond(due, refresh, keep, state.nu, state.n)

        count = jnp.asarray(optax.safe_increment(state.count))
        mu = jax.tree.map(lambda m, g: moving_average(b1, m, g), state.mu, updates)
        mu_correction = bias_correction(b1, count)
        nu_correction = bias_correction(b2, jnp.maximum(n, 1))

        def step(m: Array, v: Array, g: Array) -> Array:
            mean_square = jnp.maximum(v / nu_correction.astype(v.dtype), jnp.square(min_diag))
            # The power of zero has no derivative; a step must have one where the curvature is zero.
            positive = mean_square > 0
            power = jnp.power(jnp.where(positive, mean_square, 1), hessian_power / 2)
            power = jnp.where(positive, power, jnp.where(hessian_power == 0, 1, 0))
            u = m.astype(v.dtype) / mu_correction.astype(v.dtype) / (power + eps)
            return jnp.where(n > 0, u, 0).astype(g.dtype)

        new_updates = jax.tree.map(step, mu, nu, updates)
        return new_updates, ScaleByAdaHessianState(count=count, n=n, mu=mu, nu=nu)

    return optax.GradientTransformationExtraArgs(init, update)


def adahessian(
    learning_rate: optax.ScalarOrSchedule = 0.15,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-4,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_decay_mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    hessian_power: ArrayLike = 1.0,
    estimator: AbstractDiagonalEstimator = _HUTCHINSON,
    update_interval: ArrayLike = 1,
    block_axes: BlockAxes = BlockAxes.none,
    seed: ArrayLike = 0,
    *,
    min_diag: ArrayLike = 0.0,
    refresh_warmup: ArrayLike = 10,
) -> optax.GradientTransformationExtraArgs:
    """AdaHessian with decoupled weight decay (Yao et al. 2021, arXiv:2006.00719, algorithm 1).

    Pass the loss as a closure over the current batch; it costs one Hessian-vector product, and
    under one `jax.jit` shares the gradient you take yourself:

    ```python
    tx = jaxsci.optim.adahessian(0.15, block_axes=BlockAxes.flax_fan_in)
    state = tx.init(params)

    @jax.jit
    def step(params, state, batch):
        obj_fn = lambda p: loss(p, batch)
        grads = jax.grad(obj_fn)(params)
        updates, state = tx.update(grads, state, params, obj_fn=obj_fn)
        return optax.apply_updates(params, updates), state
    ```

    `update(grads, state, params, *, obj_fn=None, value_fn=None, hessian_diag=None,
    full_params=None, **extra)` takes

    - `obj_fn` or `value_fn`, `params -> scalar`: optax's two names for this closure;
    - `hessian_diag`: instead, an estimate like `params`, e.g. one averaged over microbatches;
    - `full_params`: inside `optax.masked` and `optax.partition`, the unmasked parameters. The
        product is then that of the selected block.

    `optax.MultiSteps` calls the inner update on every microbatch and shows it the last `obj_fn`
    only: average the estimates yourself and pass `hessian_diag`. Under
    `optax.inject_hyperparams`, name a callable `weight_decay_mask` in `static_args`, and for
    bfloat16 parameters set `hyperparam_dtype=jnp.float32` (`b2` would round to one). For Equinox
    models, `params` is `eqx.filter(model, eqx.is_inexact_array)`.

    **Arguments:**

    - `learning_rate`: a number or a schedule. The paper uses 0.15 for images.
    - `weight_decay`: decoupled and multiplied by the learning rate, as in AdamW.
    - `weight_decay_mask`: which leaves decay; see `optax.add_decayed_weights`.

    The other arguments are those of `scale_by_adahessian`.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`.

    **Raises:**

    As `scale_by_adahessian`.
    """
    return optax.chain(
        scale_by_adahessian(
            b1=b1,
            b2=b2,
            eps=eps,
            hessian_power=hessian_power,
            estimator=estimator,
            update_interval=update_interval,
            block_axes=block_axes,
            seed=seed,
            min_diag=min_diag,
            refresh_warmup=refresh_warmup,
        ),
        optax.add_decayed_weights(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )
