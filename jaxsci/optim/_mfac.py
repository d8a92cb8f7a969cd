"""M-FAC: preconditioning by the inverse empirical Fisher matrix of the last gradients.

With G the last m gradients as rows, the newest of them g in row j, and K = G G^T + m lambda I,

    d = (lambda I + G^T G / m)^-1 g = m G^T K^-1 e_j,    v <- mu v + (1 - mu) d.

Frantar, Kurtic and Alistarh 2021, "M-FAC: efficient matrix-free approximations of second-order
information" (arXiv:2107.03356). The right-hand form of d is ours: the newest gradient lies in the
window, so nothing is subtracted and float32 suffices for any damping.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import ArrayLike, PyTree

from jaxsci._base import check_interval, check_nonnegative, check_real_leaves
from jaxsci.curvature import EmpiricalFisherInverse, GradientWindow, GradientWindowState

from ._moments import moving_average


class ScaleByMFACState(NamedTuple):
    """State of `scale_by_mfac`: arrays only, so every checkpointer can write it."""

    window: GradientWindowState
    v: PyTree  # moving average of the directions; empty where `momentum` is the Python number 0


def scale_by_mfac(
    capacity: int = 1024,
    damping: ArrayLike = 1e-5,
    momentum: ArrayLike = 0.0,
    normalize: Literal["capacity", "filled"] = "capacity",
    *,
    sparse: bool = False,
    window_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition gradients by M-FAC (Frantar et al. 2021, arXiv:2107.03356).

    For the choice of `damping` see `mfac`.

    **Arguments:**

    - `capacity`: number m of gradients in the window; memory is `capacity` times the parameters. A
        Python integer, to be named in `static_args` of `optax.inject_hyperparams`.
    - `damping`: lambda > 0.
    - `momentum`: mu in [0, 1): decay of the average of the directions, taken after preconditioning
        and not corrected for its start.
    - `normalize`: divide the sum of outer products by "capacity", as the authors' code does, or by
        the number of rows "filled" so far.
    - `sparse`: leave weights that are exactly zero out of the window and at zero, for pruned
        networks. `update` then needs `params`.
    - `window_dtype`: dtype of the stored gradients, e.g. `jnp.bfloat16`. `None`: that of each
        parameter.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`. Updates have the dtypes of the gradients. A
    non-finite gradient is left out of window and average, and its update is zero.

    **Raises:**

    `ValueError` for a concrete argument out of its range, `TypeError` for a traced `capacity`.
    `init` raises `TypeError` for a leaf that is not real floating.
    """
    window = GradientWindow(capacity, damping, normalize, window_dtype)
    check_interval("momentum", momentum, 0.0, 1.0, closed="left")
    averaged = not (isinstance(momentum, (int, float)) and momentum == 0)

    def init(params: PyTree) -> ScaleByMFACState:
        check_real_leaves("params", params)
        v = jax.tree.map(jnp.zeros_like, params) if averaged else ()
        return ScaleByMFACState(window=window.init(params), v=v)

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, ScaleByMFACState]:
        del extra_args
        grads = updates
        if sparse:
            if params is None:
                raise ValueError("`update` of M-FAC needs `params` when `sparse` is true.")
            grads = jax.tree.map(lambda g, p: jnp.where(p == 0, 0, g), grads, params)
        pushed = window.push(state.window, grads)
        inverse = EmpiricalFisherInverse(pushed)
        direction = jax.tree.map(
            lambda d, g: jnp.where(pushed.rejected, 0, d).astype(g.dtype),
            inverse.apply_to_row(pushed.latest),
            updates,
        )
        if not averaged:
            return direction, ScaleByMFACState(window=pushed, v=())
        v = jax.tree.map(
            lambda v, d: jnp.where(pushed.rejected, v, moving_average(momentum, v, d)),
            state.v,
            direction,
        )
        new = jax.tree.map(
            lambda v, g: jnp.where(pushed.rejected, 0, v).astype(g.dtype), v, updates
        )
        if sparse:
            new = jax.tree.map(lambda u, p: jnp.where(p == 0, 0, u), new, params)
        return new, ScaleByMFACState(window=pushed, v=v)

    return optax.GradientTransformationExtraArgs(init, update)


def mfac(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    capacity: int = 1024,
    damping: ArrayLike = 1e-5,
    momentum: ArrayLike = 0.0,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    normalize: Literal["capacity", "filled"] = "capacity",
    *,
    weight_decay_mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    sparse: bool = False,
    window_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """M-FAC with coupled weight decay (Frantar et al. 2021, arXiv:2107.03356).

    A direction outside the window is scaled by 1 / `damping`, so `damping` and `learning_rate` are
    tuned together: keep their ratio and move both. The defaults are the authors', for windows of
    hundreds of gradients; small windows want more damping (32 gradients: 1e-3 with a learning rate
    of 1e-2).

    To precondition layers independently, give each its own window by `optax.partition`. Under
    `optax.inject_hyperparams`, name `capacity`, `normalize`, `window_dtype` and a callable
    `weight_decay_mask` in `static_args`.

    **Arguments:**

    - `learning_rate`: a number or a schedule.
    - `weight_decay`: added to the gradient before it enters the window.
    - `weight_decay_mask`: which leaves decay; see `optax.add_decayed_weights`.

    The other arguments are those of `scale_by_mfac`.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`.

    **Raises:**

    As `scale_by_mfac`. `update` needs `params` if `weight_decay` is not zero.
    """
    if not callable(weight_decay):
        check_nonnegative("weight_decay", weight_decay)
    scale = scale_by_mfac(
        capacity, damping, momentum, normalize, sparse=sparse, window_dtype=window_dtype
    )
    step = optax.scale_by_learning_rate(learning_rate)
    if isinstance(weight_decay, (int, float)) and weight_decay == 0:
        return optax.chain(scale, step)
    return optax.chain(optax.add_decayed_weights(weight_decay, weight_decay_mask), scale, step)
