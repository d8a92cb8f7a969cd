"""Optimal brain surgeon: drop the cheapest weights and move the others to make up for them.

With F = lambda I + G^T G / m, S the dropped and k the kept weights, the cheapest change that zeroes
S minimises delta^T F delta / 2 under delta_S = -w_S:

    delta_k = F_kk^-1 F_kS w_S = G_k^T (G_k G_k^T + m lambda I)^-1 G_S w_S    ("joint");

the sum of the changes that each dropped weight alone would ask for is

    delta = -F^-1 t, t_i = w_i / (F^-1)_ii on S    ("independent"), then w_S = 0.

Hassibi and Stork 1992, "Second order derivatives for network pruning"; Frantar, Kurtic and Alistarh
2021 (arXiv:2107.03356), whose code has the second. The first is ours; costs are the same.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from jaxsci._base import check_at_least, check_choice, check_positive, is_concrete
from jaxsci.curvature import BlockFisherInverse, EmpiricalFisherInverse

from ._masks import check_mask, check_sparsity, full_mask, mask_of_lowest, prunable, Where
from ._scores import fisher_inverse, scores_of

Update = Literal["joint", "independent", "none"]


def _masked(tree: PyTree, mask: PyTree) -> PyTree:
    return jax.tree.map(lambda x, m: jnp.where(m, x, 0), tree, mask)


@functools.partial(jax.jit, static_argnames="block_size")
def _scores(params, grads, mask, damping, block_size):
    # Columns of dropped weights are zeroed: F then couples the kept ones only among themselves.
    inverse = fisher_inverse(_masked(grads, mask), damping, block_size)
    return _masked(scores_of(params, inverse.diagonal()), mask)


@functools.partial(jax.jit, static_argnames=("block_size", "update"))
def _compensated(params, grads, mask, new_mask, damping, block_size, update):
    """`params` without the weights that `new_mask` drops, the others making up for them."""
    if update == "none":
        return _masked(params, new_mask)
    dropped = jax.tree.map(lambda p, n: jnp.where(n, 0, p), params, new_mask)
    live = _masked(grads, mask)
    if update == "independent":
        inverse = fisher_inverse(live, damping, block_size)
        t = jax.tree.map(lambda w, d: -w / d.astype(w.dtype), dropped, inverse.diagonal())
        change = inverse.mv(t)
    elif block_size is None:
        kept = EmpiricalFisherInverse.from_gradients(_masked(grads, new_mask), damping)
        removed = _inner(live, dropped)
        m = removed.shape[0]
        change = jax.tree.map(lambda x: x / m, kept.combination(removed))
    else:
        inverse = BlockFisherInverse.from_gradients(live, damping, block_size)
        change = inverse.restricted_solution(new_mask, jax.tree.map(jnp.negative, dropped))
    moved = jax.tree.map(lambda p, c: p + c.astype(p.dtype), params, change)
    return _masked(moved, new_mask)


def _inner(grads: PyTree, x: PyTree) -> Any:
    """G x."""
    parts = jax.tree.map(
        lambda g, v: jnp.tensordot(g, v, axes=v.ndim, precision="highest"), grads, x
    )
    return functools.reduce(jnp.add, jax.tree.leaves(parts))


def _check_stack(grads: PyTree, params: PyTree) -> None:
    if jax.tree.structure(grads) != jax.tree.structure(params):
        raise ValueError(
            f"`grads_stack` must have the structure of `params`, {jax.tree.structure(params)}, got "
            f"{jax.tree.structure(grads)}."
        )
    for g, p in zip(jax.tree.leaves(grads), jax.tree.leaves(params), strict=True):
        if jnp.ndim(g) != jnp.ndim(p) + 1 or jnp.shape(g)[1:] != jnp.shape(p):
            raise ValueError(
                "`grads_stack` must have leaves (m, *shape) for the leaves of `params`, got "
                f"{jnp.shape(g)} for {jnp.shape(p)}."
            )


def obs_prune(
    params: PyTree,
    grads_stack: PyTree | Callable[[PyTree], PyTree],
    sparsity: ArrayLike,
    damping: ArrayLike,
    mask: PyTree | None = None,
    block_size: int | None = None,
    update: Update = "joint",
    recompute: int = 1,
    *,
    where: Where = None,
) -> tuple[PyTree, PyTree, PyTree]:
    """Prune a trained network by the optimal brain surgeon with the empirical Fisher matrix.

    Drops the weights of smallest w_i^2 / (2 (F^-1)_ii), ranked over all prunable leaves together,
    and changes the remaining prunable weights to make up for them (Hassibi and Stork 1992; Frantar
    et al. 2021, arXiv:2107.03356). Leaves that are not prunable do not change.

    A model of the loss around the present weights does not reach far: at high sparsity, give the
    gradients as a function and let `recompute` cut the way into steps.

    **Arguments:**

    - `params`: pytree of real floating arrays, trained.
    - `grads_stack`: m gradients of the loss on small batches, a pytree with leaves `(m, *shape)`,
        or a function `params -> grads_stack` that computes them afresh.
    - `sparsity`: fraction, in [0, 1), of the prunable weights that are zero afterwards.
    - `damping`: lambda > 0. Small is better as long as the gradients resolve F.
    - `mask`: pytree of booleans, false where a weight is dropped already. `None`: none is.
    - `block_size`: cut F to diagonal blocks of so many consecutive weights of a leaf, which needs
        fewer gradients and memory: 128 with 64 gradients in the paper. `None`: the whole matrix.
    - `update`: how the other weights change: "joint", the best change for all dropped weights
        together; "independent", the sum of the best for each; "none".
    - `recompute`: number of steps, each dropping the same share of the weights still kept. A
        function `grads_stack` is called in each; fixed gradients are used again, restricted to the
        kept weights.
    - `where`: which leaves may lose weights: a function of a leaf or a pytree of booleans. `None`:
        those with two or more axes (every leaf if there are none).

    **Returns:**

    `(params, mask, scores)`: the pruned parameters, the mask, and the scores in the last step, zero
    where a weight was dropped before and infinite in leaves that are not prunable.

    **Raises:**

    `ValueError` if `sparsity` is not in [0, 1) or below that of `mask`, `damping` is not positive,
    another argument is out of its range, or trees do not match.
    """
    check_positive("damping", damping)
    check_choice("update", update, ("joint", "independent", "none"))
    check_at_least("recompute", recompute, 1)
    if block_size is not None:
        check_at_least("block_size", block_size, 1)
    chosen = prunable(params, where)
    mask = full_mask(params) if mask is None else mask
    check_mask(mask, params)
    before, wanted, total = check_sparsity(sparsity, mask, chosen)

    picks = jax.tree.leaves(chosen)
    pick = lambda tree: [x for x, c in zip(jax.tree.leaves(tree), picks, strict=True) if c]

    def put(tree, values, other):
        values, others = iter(values), jax.tree.leaves(other)
        new = [next(values) if c else o for c, o in zip(picks, others, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(tree), new)

    infinite = jax.tree.map(lambda p: jnp.full(jnp.shape(p), jnp.inf, jnp.result_type(p)), params)
    scores = infinite
    for stage in range(recompute):
        grads = grads_stack(params) if callable(grads_stack) else grads_stack
        _check_stack(grads, params)
        number = _stage_target(before, wanted, total, stage + 1, recompute)
        w, g, old = pick(params), pick(grads), pick(mask)
        s = _scores(w, g, old, damping, block_size)
        scores = put(params, s, infinite)
        if is_concrete(number, mask) and number <= sum(int(np.sum(~np.asarray(x))) for x in old):
            continue
        mask = mask_of_lowest(scores, mask, chosen, number)
        new = _compensated(w, g, old, pick(mask), damping, block_size, update)
        params = put(params, new, params)
    return params, mask, scores


def _stage_target(before: Any, wanted: int, total: int, stage: int, stages: int) -> Any:
    """Weights dropped after a stage: the kept fraction falls by the same factor in each."""
    if stage == stages or total == 0:
        return wanted
    library = np if is_concrete(before) else jnp
    kept, final = total - before, total - wanted
    now = kept * (final / library.maximum(kept, 1)) ** (stage / stages)
    number = total - library.rint(now)
    return int(number) if library is np else number.astype(jnp.int32)


def gradual_prune(
    params: PyTree,
    grads_fn: Callable[[PyTree], PyTree],
    sparsities: Iterable[ArrayLike],
    damping: ArrayLike,
    fine_tune: Callable[[PyTree, PyTree], PyTree],
    *,
    mask: PyTree | None = None,
    **options: Any,
) -> tuple[PyTree, PyTree]:
    """Prune to each of a sequence of sparsities, training in between.

    ```python
    schedule = gradual_sparsity(0.95, 8)
    params, mask = gradual_prune(
        params, grads_fn, [schedule(k) for k in range(1, 9)], 1e-5, fine_tune
    )
    ```

    **Arguments:**

    - `params`: pytree of real floating arrays, trained.
    - `grads_fn`: `params -> grads_stack`, m gradients with leaves `(m, *shape)`.
    - `sparsities`: rising, each in [0, 1).
    - `damping`: lambda > 0.
    - `fine_tune`: `(params, mask) -> params`, e.g. some steps of an optimizer that ends in
        `apply_mask(mask)`. What it leaves in dropped weights is set to zero.
    - `mask`: weights dropped already. `None`: none.
    - `options`: of `obs_prune`.

    **Returns:**

    `(params, mask)`.
    """
    mask = full_mask(params) if mask is None else mask
    for target in sparsities:
        params, mask, _ = obs_prune(params, grads_fn, target, damping, mask, **options)
        params = _masked(fine_tune(params, mask), mask)
    return params, mask
