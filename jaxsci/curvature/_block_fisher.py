"""The inverse of an empirical Fisher matrix restricted to small diagonal blocks.

Every leaf is flattened and cut into blocks of B consecutive entries, the last one shorter; F is
lambda I + G^T G / m inside a block and zero across blocks. Memory d B, whatever the number m of
gradients, so these can be streamed.

Frantar, Kurtic and Alistarh 2021 (arXiv:2107.03356), section 3, which runs the rank-one recursion
in each block; here each block is summed and factored, the same matrix.
"""

from collections.abc import Iterable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from jaxsci._base import check_at_least, check_positive

from ._gradient_window import robust_cholesky
from ._symmetric_operator import AbstractSymmetricOperator


class _Layout(eqx.Module):
    """Where the entries of a pytree lie among blocks of one size, leaf after leaf."""

    structure: PyTree = eqx.field(static=True)  # of shapes and dtypes
    block_size: int = eqx.field(static=True)

    def to_blocks(self, tree: PyTree, batch_axes: int = 0) -> Array:
        """(*batch, blocks, B), each leaf filled up with zeros to whole blocks."""
        parts = []
        for x in jax.tree.leaves(tree):
            flat = jnp.asarray(x)
            flat = flat.reshape(*flat.shape[:batch_axes], -1)
            missing = -flat.shape[-1] % self.block_size
            flat = jnp.pad(flat, [(0, 0)] * batch_axes + [(0, missing)])
            parts.append(flat.reshape(*flat.shape[:-1], -1, self.block_size))
        return jnp.concatenate(parts, axis=batch_axes)

    def from_blocks(self, blocks: Array) -> PyTree:
        """The pytree of entries of (blocks, B)."""
        leaves, start = [], 0
        for like in jax.tree.leaves(self.structure):
            size = int(np.prod(like.shape))
            count = -(-size // self.block_size)
            flat = blocks[start : start + count].reshape(-1)[:size]
            leaves.append(flat.reshape(like.shape))
            start += count
        return jax.tree.unflatten(jax.tree.structure(self.structure), leaves)


def _solve(factor: Array, x: Array) -> Array:
    return jax.vmap(lambda f, y: jax.scipy.linalg.cho_solve((f, True), y))(factor, x)


class BlockFisherInverse(AbstractSymmetricOperator):
    """The inverse of the block-diagonal empirical Fisher matrix, symmetric and positive.

    Made by `from_gradients` or `from_chunks`. The blocks of all leaves are in one array.
    """

    # One array, so that a program has one batched solve at a time: on a CPU, JAX 0.10 hangs when as
    # many of them run at once as there are cores.
    blocks: Float[Array, "n b b"]  # the damped Fisher matrix itself
    factors: Float[Array, "n b b"]  # its lower Cholesky factors
    layout: _Layout
    positive: ClassVar[bool] = True

    def __init__(self, blocks: Float[Array, "n b b"], layout: _Layout):
        self.blocks = blocks
        self.factors = robust_cholesky(blocks)
        self.layout = layout

    @staticmethod
    def from_gradients(
        grads_stack: PyTree, damping: ArrayLike, block_size: int
    ) -> "BlockFisherInverse":
        """The operator of m gradients given together.

        **Arguments:**

        - `grads_stack`: pytree with leaves `(m, *shape)`.
        - `damping`: lambda > 0.
        - `block_size`: B >= 1, entries per block.

        **Raises:**

        `ValueError` if `damping` or `block_size` is not positive.
        """
        return BlockFisherInverse.from_chunks([grads_stack], damping, block_size)

    @staticmethod
    def from_chunks(
        chunks: Iterable[PyTree], damping: ArrayLike, block_size: int
    ) -> "BlockFisherInverse":
        """The operator of gradients that come in several stacks; holds one of them at a time.

        **Arguments:**

        - `chunks`: iterable of pytrees with leaves `(m_k, *shape)`.
        - `damping`, `block_size`: as in `from_gradients`.
        """
        check_positive("damping", damping)
        check_at_least("block_size", block_size, 1)
        sums, total, layout = None, 0, None
        for chunk in chunks:
            leaves = jax.tree.leaves(chunk)
            dtype = jnp.result_type(jnp.float32, *leaves)
            likes = [jax.ShapeDtypeStruct(jnp.shape(x)[1:], dtype) for x in leaves]
            layout = _Layout(jax.tree.unflatten(jax.tree.structure(chunk), likes), block_size)
            total += jnp.shape(leaves[0])[0]
            rows = layout.to_blocks(chunk, batch_axes=1).astype(dtype)
            new = jnp.einsum("mni,mnj->nij", rows, rows, precision="highest")
            sums = new if sums is None else sums + new
        if sums is None or layout is None:
            raise ValueError("`chunks` must hold at least one stack of gradients, got none.")
        shift = jnp.asarray(damping, sums.dtype) * jnp.eye(block_size, dtype=sums.dtype)
        return BlockFisherInverse(sums / total + shift, layout)

    def mv(self, vector: PyTree) -> PyTree:
        """F^-1 `vector`, with the dtypes of `vector`."""
        x = self.layout.to_blocks(vector).astype(self.factors.dtype)
        solved = self.layout.from_blocks(_solve(self.factors, x))
        return jax.tree.map(lambda y, v: y.astype(jnp.result_type(v)), solved, vector)

    def diagonal(self) -> PyTree:
        """The diagonal, a pytree like the parameters."""
        eye = jnp.broadcast_to(
            jnp.eye(self.factors.shape[-1], dtype=self.factors.dtype), self.factors.shape
        )
        root = jax.lax.linalg.triangular_solve(self.factors, eye, left_side=True, lower=True)
        return self.layout.from_blocks(jnp.sum(root**2, axis=-2))

    def restricted_solution(self, keep: PyTree, change: PyTree) -> PyTree:
        """The change of the kept entries that costs least, given that of the others.

        Minimises delta^T F delta / 2 over the entries where `keep` is true, the others held at
        `change`: delta_k = -F_kk^-1 F_ks change_s.

        **Arguments:**

        - `keep`: pytree of booleans like the parameters.
        - `change`: pytree like the parameters; read where `keep` is false.

        **Returns:**

        A pytree like the parameters, zero where `keep` is false.
        """
        dtype = self.blocks.dtype
        kept = self.layout.to_blocks(keep).astype(dtype)
        fixed = (1 - kept) * self.layout.to_blocks(change).astype(dtype)
        right = -kept * jnp.einsum("nij,nj->ni", self.blocks, fixed, precision="highest")
        eye = jnp.eye(self.blocks.shape[-1], dtype=dtype)
        free = kept[:, :, None] * self.blocks * kept[:, None, :]
        factor = robust_cholesky(free + (1 - kept)[:, :, None] * eye)
        return self.layout.from_blocks(kept * _solve(factor, right))

    def as_matrix(self) -> Float[Array, "d d"]:
        """The dense matrix, in the order of the flattened parameters."""
        eye = jnp.broadcast_to(
            jnp.eye(self.factors.shape[-1], dtype=self.factors.dtype), self.factors.shape
        )
        whole = jax.scipy.linalg.block_diag(*_solve(self.factors, eye))
        positions = jnp.arange(whole.shape[0]).reshape(-1, self.factors.shape[-1])
        order = jax.tree.leaves(self.layout.from_blocks(positions))
        entries = jnp.concatenate([x.ravel() for x in order])
        return whole[entries][:, entries]

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes of the parameters, in at least float32."""
        return self.layout.structure


@lx.diagonal.register(BlockFisherInverse)
def _(operator):
    return ravel_pytree(operator.diagonal())[0]
