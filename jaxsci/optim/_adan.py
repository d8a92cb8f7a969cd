"""Adan: Adam's normalisation of a Nesterov momentum that needs no look-ahead gradient.

With g_t the gradient and D_t = g_t - g_{t-1} (D_1 = 0),

    m <- b1 m + (1 - b1) g_t,    v <- b2 v + (1 - b2) D_t,    n <- b3 n + (1 - b3) (g_t + b2 D_t)^2,
    u  = (m / (1 - b1^t) + b2 v / (1 - b2^t)) / ((n / (1 - b3^t))^(1/2) + eps).

Xie, Zhou, Li, Lin and Yan 2022, "Adan: adaptive Nesterov momentum algorithm for faster optimizing
deep models" (arXiv:2208.06677), algorithm 1. The paper writes beta_i for 1 - b_i, and has plain
averages that start at the first gradient; here, as in the authors' code, averages start at zero and
are corrected for it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from jaxsci._base import (
    at_least_float32,
    check_at_least,
    check_interval,
    check_nonnegative,
    check_positive,
    check_real_leaves,
)

from ._moments import bias_correction, moving_average

Mask = PyTree | Callable[[PyTree], PyTree] | None


class RestartState(NamedTuple):
    """How far the parameters have gone since the last restart."""

    params: PyTree  # at the last update
    path: Float[Array, ""]  # sum of the squared lengths of the steps, in the metric sqrt(n)


class ScaleByAdanState(NamedTuple):
    """State of `scale_by_adan`: arrays only, so every checkpointer can write it."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]  # since a restart
    m: PyTree  # moving average of the gradient
    v: PyTree  # moving average of its differences
    n: PyTree  # moving average of the squared extrapolated gradient, in at least float32
    g_prev: PyTree  # the last gradient
    restart: RestartState | tuple[()]  # empty unless `restart_radius` is given


class ProximalDecayState(NamedTuple):
    """State of `proximal_decay`."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


def _root(x: Array) -> Array:
    # The root of zero has no derivative; a step must have one where all gradients were zero.
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _sum(tree: PyTree) -> Any:
    return sum(jax.tree.leaves(tree), start=jnp.zeros(()))


def scale_by_adan(
    b1: ArrayLike = 0.98,
    b2: ArrayLike = 0.92,
    b3: ArrayLike = 0.99,
    eps: ArrayLike = 1e-8,
    restart_radius: ArrayLike | None = None,
    restart_every: ArrayLike | None = None,
    *,
    state_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Rescale gradients by Adan (Xie et al. 2022, arXiv:2208.06677, algorithm 1).

    The difference of gradients is that of the gradients entering this transform: clip before it.

    **Arguments:**

    - `b1`, `b2`, `b3`: decay rates, in [0, 1), of the averages of the gradient, of its differences
        and of the squared extrapolated gradient. They are one minus the paper's.
    - `eps`: added to the denominator, outside the root.
    - `restart_radius`: R > 0 of the paper's restart condition. With K steps since the last restart,
        forget all averages when K sum_j |step_j|^2 > R^2, where |x|^2 is the sum of
        x^2 (sqrt(n) + eps) with n corrected for its start. Costs a copy of the parameters, and
        `update` needs `params`. `None`: never.
    - `restart_every`: forget all averages every so many steps. `None`: never.
    - `state_dtype`: dtype of `m`, `v` and the last gradient in the state, e.g. `jnp.bfloat16`.
        `None`: that of each parameter. `n` always has at least float32, because an average that
        moves by one percent a step stands still in bfloat16.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`. Updates have the dtypes of the gradients. A
    non-finite gradient stays in the averages for good: wrap the optimizer in
    `optax.apply_if_finite` where one may come.

    **Raises:**

    `ValueError` for a concrete argument out of its range, and from `update` if `params` is missing
    with `restart_radius`. `init` raises `TypeError` for a leaf that is not real floating.
    """
    check_interval("b1", b1, 0.0, 1.0, closed="left")
    check_interval("b2", b2, 0.0, 1.0, closed="left")
    check_interval("b3", b3, 0.0, 1.0, closed="left")
    check_nonnegative("eps", eps)
    if restart_radius is not None:
        check_positive("restart_radius", restart_radius)
    if restart_every is not None:
        check_at_least("restart_every", restart_every, 1)
    if state_dtype is not None and not jnp.issubdtype(state_dtype, jnp.floating):
        raise ValueError(f"`state_dtype` must be real floating, got {np.dtype(state_dtype)}.")

    def init(params: PyTree) -> ScaleByAdanState:
        check_real_leaves("params", params)
        zeros = lambda: jax.tree.map(lambda p: jnp.zeros_like(p, dtype=state_dtype), params)
        n = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=at_least_float32(p)), params)
        restart = ()
        if restart_radius is not None:
            dtypes = [at_least_float32(p) for p in jax.tree.leaves(params)]
            path = jnp.zeros((), jnp.result_type(*dtypes) if dtypes else jnp.float32)
            restart = RestartState(jax.tree.map(jnp.zeros_like, params), path)
        return ScaleByAdanState(
            count=jnp.zeros((), jnp.int32),
            m=zeros(),
            v=zeros(),
            n=n,
            g_prev=zeros(),
            restart=restart,
        )

    def path_length(state: Any, params: PyTree) -> Float[Array, ""]:
        correction = bias_correction(b3, jnp.maximum(state.count, 1))

        def squared_length(p, p_prev, n):
            step = p.astype(n.dtype) - p_prev.astype(n.dtype)
            return jnp.sum(step**2 * (_root(n / correction.astype(n.dtype)) + eps))

        lengths = jax.tree.map(squared_length, params, state.restart.params, state.n)
        # Before the first step since a restart there is nothing to measure.
        moved = jnp.where(state.count > 0, _sum(lengths), 0)
        return (state.restart.path + moved).astype(state.restart.path.dtype)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, ScaleByAdanState]:
        del extra_args
        count, restart, fresh = state.count, (), jnp.asarray(False)
        if restart_every is not None:
            fresh = count >= restart_every
        if restart_radius is not None:
            if params is None:
                raise ValueError("`update` of Adan needs `params` when `restart_radius` is given.")
            path = path_length(state, params)
            fresh = fresh | (count * path > jnp.square(restart_radius))
            # A copy, not the caller's own arrays: both may be donated to the next step.
            kept = jax.tree.map(lambda p: jnp.array(p, copy=True), params)
            restart = RestartState(kept, jnp.where(fresh, 0, path).astype(path.dtype))
        m, v, n = state.m, state.v, state.n
        if restart_radius is not None or restart_every is not None:
            count = jnp.where(fresh, 0, count)
            m, v, n = jax.tree.map(lambda x: jnp.where(fresh, 0, x).astype(x.dtype), (m, v, n))

        first = count == 0
        count = jnp.asarray(optax.safe_increment(count))
        c1, c2, c3 = (bias_correction(b, count) for b in (b1, b2, b3))

        def difference(g, g_prev, n):
            return jnp.where(first, 0, g.astype(n.dtype) - g_prev.astype(n.dtype))

        def squares(g, d, n):
            return jnp.square(g.astype(n.dtype) + b2 * d).astype(n.dtype)

        def step(m, v, n, g):
            c1_, c2_, c3_ = (c.astype(n.dtype) for c in (c1, c2, c3))
            mean = m.astype(n.dtype) / c1_ + b2 * v.astype(n.dtype) / c2_
            denominator = _root(n / c3_) + eps
            positive = denominator > 0
            u = jnp.where(positive, mean / jnp.where(positive, denominator, 1), 0)
            return u.astype(g.dtype)

        d = jax.tree.map(difference, updates, state.g_prev, n)
        m = jax.tree.map(lambda m, g: moving_average(b1, m, g), m, updates)
        v = jax.tree.map(lambda v, d: moving_average(b2, v, d), v, d)
        n = jax.tree.map(lambda n, g, d: moving_average(b3, n, squares(g, d, n)), n, updates, d)
        u = jax.tree.map(step, m, v, n, updates)
        g_prev = jax.tree.map(lambda g, old: g.astype(old.dtype), updates, state.g_prev)
        return u, ScaleByAdanState(count=count, m=m, v=v, n=n, g_prev=g_prev, restart=restart)

    return optax.GradientTransformationExtraArgs(init, update)


def proximal_decay(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """Decoupled weight decay as a proximal step: params <- (params + update) / (1 + lr wd).

    The exact minimiser of the step's model plus wd/2 |params|^2 (Zhuang et al. 2022,
    arXiv:2202.00089; Adan's algorithm 1). It differs from AdamW's decay by O((lr wd)^2) a step, and
    never flips a sign. Chain it last: it reads the update as the step that will be taken.

    **Arguments:**

    - `learning_rate`: a number or a schedule, the same as that of the step before. A schedule is
        called with the number of updates so far.
    - `weight_decay`: a number or a schedule.
    - `mask`: which leaves decay, a pytree of booleans like the parameters or a function of them
        giving one. The other updates pass unchanged. `None`: all leaves.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`.

    **Raises:**

    `ValueError` if `learning_rate` is missing or `weight_decay` negative; from `update` if `params`
    is missing.
    """
    if learning_rate is None:
        raise ValueError(
            "`learning_rate` of `proximal_decay` must be a number or schedule, got None."
        )
    if not callable(weight_decay):
        check_nonnegative("weight_decay", weight_decay)
    scheduled = callable(learning_rate) or callable(weight_decay)

    def init(params: PyTree) -> Any:
        del params
        return ProximalDecayState(jnp.zeros((), jnp.int32)) if scheduled else optax.EmptyState()

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, Any]:
        del extra_args
        if params is None:
            raise ValueError("`update` with weight decay needs `params`, got None.")
        lr = learning_rate(state.count) if callable(learning_rate) else learning_rate
        decay = weight_decay(state.count) if callable(weight_decay) else weight_decay
        rate = lr * decay

        def shrink(u, p):
            dtype = at_least_float32(u)
            r = jnp.asarray(rate, dtype)
            return ((u.astype(dtype) - r * p.astype(dtype)) / (1 + r)).astype(u.dtype)

        if scheduled:
            state = ProximalDecayState(jnp.asarray(optax.safe_increment(state.count)))
        return jax.tree.map(shrink, updates, params), state

    tx = optax.GradientTransformationExtraArgs(init, update)
    if mask is None:
        return tx
    return optax.with_extra_args_support(optax.masked(tx, mask))


def adan(
    learning_rate: optax.ScalarOrSchedule,
    b1: ArrayLike = 0.98,
    b2: ArrayLike = 0.92,
    b3: ArrayLike = 0.99,
    eps: ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = None,
    proximal: bool = True,
    restart_radius: ArrayLike | None = None,
    restart_every: ArrayLike | None = None,
    state_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adan with proximal weight decay (Xie et al. 2022, arXiv:2208.06677, algorithm 1).

    Equal to the authors' code, and not to `optax.adan` (up to optax 0.2.8), which puts 1 - b2 where
    the algorithm has b2.

    ```python
    tx = optax.chain(optax.clip_by_global_norm(1.0), jaxsci.optim.adan(1e-2, weight_decay=0.02))
    ```

    Start from twice AdamW's learning rate; five to ten times is often possible. If early progress
    is slow, raise `b2` to 0.95 or 0.98. Under `optax.inject_hyperparams`, name `proximal`,
    `state_dtype` and a callable `weight_decay_mask` in `static_args`.

    **Arguments:**

    - `learning_rate`: a number or a schedule.
    - `weight_decay`: decoupled and multiplied by the learning rate.
    - `weight_decay_mask`: which leaves decay: a pytree of booleans like the parameters or a
        function of them giving one. `None`: all.
    - `proximal`: decay by `proximal_decay`. Otherwise as AdamW does.

    The other arguments are those of `scale_by_adan`.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`.

    **Raises:**

    As `scale_by_adan` and `proximal_decay`. `update` needs `params` if `weight_decay` is not zero.
    """
    if not callable(weight_decay):
        check_nonnegative("weight_decay", weight_decay)
    scale = scale_by_adan(b1, b2, b3, eps, restart_radius, restart_every, state_dtype=state_dtype)
    step = optax.scale_by_learning_rate(learning_rate)
    if isinstance(weight_decay, (int, float)) and weight_decay == 0:
        return optax.chain(scale, step)
    if proximal:
        return optax.chain(
            scale, step, proximal_decay(learning_rate, weight_decay, weight_decay_mask)
        )
    return optax.chain(scale, optax.add_decayed_weights(weight_decay, weight_decay_mask), step)
