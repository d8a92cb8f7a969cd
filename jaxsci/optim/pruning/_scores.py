"""What dropping a weight costs: the increase of the loss that a quadratic model predicts.

With F the damped empirical Fisher matrix as the Hessian, dropping weight i costs

- w_i^2 / (2 (F^-1)_ii) when the other weights make up for it: optimal brain surgeon (Hassibi and
  Stork 1992, "Second order derivatives for network pruning"), of matrix-free M-FAC (Frantar et al.
  2021, arXiv:2107.03356);
- w_i^2 F_ii / 2 when they do not: optimal brain damage (LeCun, Denker and Solla 1989).
"""

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PyTree

from jaxsci._base import check_positive
from jaxsci.curvature import BlockFisherInverse, EmpiricalFisherInverse


def magnitude_scores(params: PyTree) -> PyTree:
    """The magnitude of every weight.

    **Arguments:**

    - `params`: pytree of real arrays.
    """
    return jax.tree.map(jnp.abs, params)


def diagonal_fisher_scores(params: PyTree, grads_stack: PyTree, damping: ArrayLike = 0.0) -> PyTree:
    """w_i^2 F_ii / 2 with the diagonal of the empirical Fisher matrix (LeCun et al. 1989).

    **Arguments:**

    - `params`: pytree of real arrays.
    - `grads_stack`: m gradients, a pytree with leaves `(m, *shape)`.
    - `damping`: added to the diagonal.
    """
    return jax.tree.map(
        lambda p, g: p**2 * (jnp.mean(g**2, axis=0) + jnp.asarray(damping, p.dtype)) / 2,
        params,
        grads_stack,
    )


def fisher_inverse(
    grads_stack: PyTree, damping: ArrayLike, block_size: int | None
) -> EmpiricalFisherInverse | BlockFisherInverse:
    """The inverse of the whole Fisher matrix, or of its diagonal blocks."""
    if block_size is None:
        return EmpiricalFisherInverse.from_gradients(grads_stack, damping)
    return BlockFisherInverse.from_gradients(grads_stack, damping, block_size)


def obs_scores(
    params: PyTree, grads_stack: PyTree, damping: ArrayLike, block_size: int | None = None
) -> PyTree:
    """w_i^2 / (2 (F^-1)_ii), the optimal brain surgeon's cost of every weight.

    **Arguments:**

    - `params`: pytree of real arrays, all of whose weights count.
    - `grads_stack`: m gradients, a pytree with leaves `(m, *shape)`.
    - `damping`: lambda > 0.
    - `block_size`: size of the diagonal blocks that F is cut to. `None`: the whole matrix.
    """
    check_positive("damping", damping)
    return scores_of(params, fisher_inverse(grads_stack, damping, block_size).diagonal())


def scores_of(params: PyTree, diagonal: PyTree) -> PyTree:
    """w_i^2 / (2 d_i)."""

    def score(p, d):
        # Rounding can leave a diagonal entry at or below zero; its weight is then worth keeping.
        positive = d > 0
        return jnp.where(positive, p**2 / (2 * jnp.where(positive, d, 1)), jnp.inf).astype(p.dtype)

    return jax.tree.map(score, params, diagonal)
