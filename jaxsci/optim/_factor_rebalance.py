"""`factor_rebalance`: the one-step rescaling of two factors as an optax transform.

Xiong, Ding and Du 2023 (arXiv:2310.01769); see `jaxsci.optim.lowrank.rebalance`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Int, PyTree

from jaxsci._base import check_at_least, check_positive

from .lowrank import rebalance


class FactorRebalanceState(NamedTuple):
    """State of `factor_rebalance`."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


def _two_leaves(params: PyTree) -> tuple[Any, Any]:
    leaves = jax.tree.leaves(params)
    if len(leaves) != 2:
        raise ValueError(
            "`params` must hold exactly two arrays, F and G, or `select` must say where they are; "
            f"got {len(leaves)} leaves."
        )
    return leaves[0], leaves[1]


def factor_rebalance(
    at_step: ArrayLike,
    beta: ArrayLike,
    select: Callable[[PyTree], tuple[Any, Any]] = _two_leaves,
) -> optax.GradientTransformationExtraArgs:
    """Once, replace two factors by `rebalance(F, G, beta)`, which leaves F G^T alone.

    It stands last in a chain. The update of step `at_step` (the first step is 0) is the difference
    of the new factors and the old ones, in place of the descent step, whose update of the two
    factors is dropped; all other updates pass through.

    ```python
    tx = optax.chain(optax.sgd(0.1), jaxsci.optim.factor_rebalance(300, beta=0.8))
    ```

    **Arguments:**

    - `at_step`: when, counted in calls of `update`.
    - `beta`: the new singular value of F, positive.
    - `select`: the two factors `(F, G)` of `params`; by default its only two leaves, in order.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`. Under `jax.jit` only that one step computes a
    singular value decomposition.

    **Raises:**

    `ValueError` for arguments out of their range, and in `update` if `params` is missing.
    """
    check_at_least("at_step", at_step, 0)
    check_positive("beta", beta)

    def init(params: PyTree) -> FactorRebalanceState:
        del params
        return FactorRebalanceState(jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, FactorRebalanceState]:
        del extra_args
        if params is None:
            raise ValueError("`update` of `factor_rebalance` needs `params`.")
        factors, steps = select(params), select(updates)

        def change(steps):
            new = rebalance(*factors, beta)
            return tuple(
                (n - f).astype(u.dtype) for n, f, u in zip(new, factors, steps, strict=True)
            )

        steps = jax.lax.cond(state.count == at_step, change, tuple, steps)
        updates = eqx.tree_at(select, updates, steps)
        count = jnp.asarray(optax.safe_increment(state.count))
        return updates, FactorRebalanceState(count)

    return optax.GradientTransformationExtraArgs(init, update)
