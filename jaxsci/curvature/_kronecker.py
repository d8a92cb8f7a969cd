"""Kronecker-factored curvature of a model: per layer A x S in an eigenbasis.

For a layer s = W a, with per-example gradient matrix D, the Fisher block is E[vec D vec D^T]. With
A = E[a a^T] = Q_A diag(.) Q_A^T and S = E[delta delta^T] = Q_S diag(.) Q_S^T it is approximated by

    (Q_A x Q_S) diag(Lambda) (Q_A x Q_S)^T,

where K-FAC takes Lambda = T lambda_S lambda_A^T (T positions an example) and EK-FAC the diagonal of
the block in this basis, Lambda = E[(Q_S^T D Q_A)^2], the closest in Frobenius norm. In both,

    (G + damping)^-1 V = Q_S [(Q_S^T V Q_A) / (Lambda + damping)] Q_A^T.

Martens and Grosse 2015 (arXiv:1503.05671); George et al. 2018 (arXiv:1806.03884); Grosse et al.
2023, "Studying large language model generalization with influence functions" (arXiv:2308.03296),
for the damping of each layer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from jaxsci._base import check_nonnegative, is_concrete

from ._capture import LayerSites
from ._layer_block import LayerBlock
from ._symmetric_operator import SymmetricOperator

# The share of the mean eigenvalue of a layer that damps it where no damping is given.
_SHARE = 0.1
_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class KroneckerBlock(eqx.Module):
    """The curvature of one captured layer; L is its stack.

    - `block`: the layer.
    - `input_factor`: A, the mean over examples and positions of a a^T, `(L, in, in)`; of an
        embedding its diagonal `(L, vocabulary)`. None where no factor was asked for.
    - `output_factor`: S, the mean over examples and positions of delta delta^T, `(L, out, out)`.
    - `input_basis`, `output_basis`: their eigenvectors, in columns; None is the identity.
    - `eigenvalues`: Lambda, `(L, out, in)`.
    """

    block: LayerBlock = eqx.field(static=True)
    input_factor: Float[Array, "..."] | None
    output_factor: Float[Array, "stack out out"] | None
    input_basis: Float[Array, "stack in in"] | None
    output_basis: Float[Array, "stack out out"] | None
    eigenvalues: Float[Array, "stack out in"]

    def to_basis(self, matrix: Float[Array, "*batch stack out in"]) -> Array:
        """Q_S^T V Q_A."""
        if self.output_basis is not None:
            matrix = _einsum("sop,...soi->...spi", self.output_basis, matrix)
        if self.input_basis is not None:
            matrix = _einsum("...soi,sij->...soj", matrix, self.input_basis)
        return matrix

    def from_basis(self, matrix: Float[Array, "*batch stack out in"]) -> Array:
        """Q_S V Q_A^T."""
        if self.output_basis is not None:
            matrix = _einsum("sop,...spi->...soi", self.output_basis, matrix)
        if self.input_basis is not None:
            matrix = _einsum("...soj,sij->...soi", matrix, self.input_basis)
        return matrix

    def diagonal(self) -> Float[Array, "stack out in"]:
        """The diagonal in the coordinates of the matrix."""
        diagonal = self.eigenvalues
        if self.output_basis is not None:
            diagonal = _einsum("sop,spi->soi", jnp.square(self.output_basis), diagonal)
        if self.input_basis is not None:
            diagonal = _einsum("soj,sij->soi", diagonal, jnp.square(self.input_basis))
        return diagonal


class KroneckerCurvature(eqx.Module):
    """Kronecker-factored curvature over a parameter pytree, as fitted by `fit_kronecker`.

    A matrix G over the pytree, block diagonal over layers and diagonal over the leaves that are not
    captured (`layers.uncaptured`). It is a pytree of arrays: it can be saved, sharded and passed
    through `jax.jit`.

    - `layers`: the captured layers.
    - `factors`: which approximation it is.
    - `blocks`: a `KroneckerBlock` a layer.
    - `leaves`: diagonals of the leaves that are not captured, by path.
    - `num_examples`: how many examples it was fitted on.
    """

    layers: LayerSites = eqx.field(static=True)
    factors: str = eqx.field(static=True)
    blocks: tuple[KroneckerBlock, ...]
    leaves: dict[str, Array]
    num_examples: Array
    structure: tuple[Any, tuple[Any, ...]] = eqx.field(static=True, repr=False)

    def dampings(self, damping: ArrayLike | None = None) -> tuple[list[Array], dict[str, Array]]:
        """The damping of each block, `(L, 1, 1)`, and of each leaf that is not captured.

        None takes a tenth of the mean eigenvalue of each matrix (Grosse et al. 2023), and zero for
        the identity.
        """
        if damping is not None:
            check_nonnegative("damping", damping)
        share = 0.0 if self.factors == "identity" else _SHARE

        def of_block(values: Array) -> Array:
            if damping is None:
                return share * jnp.mean(values, axis=(1, 2), keepdims=True)
            return jnp.broadcast_to(jnp.asarray(damping, values.dtype), (values.shape[0], 1, 1))

        def of_leaf(values: Array) -> Array:
            given = share * jnp.mean(values) if damping is None else damping
            return jnp.asarray(given, values.dtype)

        blocks = [of_block(b.eigenvalues) for b in self.blocks]
        return blocks, {path: of_leaf(x) for path, x in self.leaves.items()}

    def _check_invertible(self, damping: Any) -> None:
        if damping is None or not is_concrete(damping, self):
            return
        check_nonnegative("damping", damping)
        if np.any(np.asarray(damping) > 0):
            return
        named = [(b.block.path, b.eigenvalues) for b in self.blocks] + list(self.leaves.items())
        for path, values in named:
            values = np.asarray(values)
            smallest = max(values.shape) * np.finfo(values.dtype).eps * np.max(values, initial=0)
            if values.size and np.min(values) <= smallest:
                raise ValueError(
                    f"`damping` must be positive, got {damping!r}: the curvature of {path!r} is "
                    "singular."
                )

    def _map(self, tree: PyTree, damping: ArrayLike | None, fn: Callable[..., Array]) -> PyTree:
        """`fn(eigenvalues, damping, vector)` in the eigenbasis, on vectors like the parameters."""
        matrices, rest = self.layers.to_matrices(tree)
        of_blocks, of_leaves = self.dampings(damping)
        matrices = [
            b.from_basis(fn(b.eigenvalues, d, b.to_basis(v)))
            for b, d, v in zip(self.blocks, of_blocks, matrices, strict=True)
        ]
        rest = {path: fn(self.leaves[path], of_leaves[path], v) for path, v in rest.items()}
        return self.layers.from_matrices(matrices, rest)

    def precondition(self, grads: PyTree, damping: ArrayLike | None = None) -> PyTree:
        """(G + damping)^-1 grads.

        **Arguments:**

        - `grads`: pytree like the parameters.
        - `damping`: added to the eigenvalues of every layer; None takes a tenth of the mean
            eigenvalue of each.

        **Returns:**

        A pytree like `grads`. Directions without curvature and damping are set to zero.

        **Raises:**

        `ValueError` if `grads` does not match the parameters, if the damping is negative, or zero
        where G is singular.
        """
        self._check_invertible(damping)

        def solve(values: Array, damping: Array, v: Array) -> Array:
            total = values + damping
            return jnp.where(total > 0, v / jnp.where(total > 0, total, 1), 0)

        return self._map(grads, damping, solve)

    def multiply(self, vector: PyTree, damping: ArrayLike | None = 0.0) -> PyTree:
        """(G + damping) vector, arguments as in `precondition`."""
        return self._map(vector, damping, lambda values, d, v: (values + d) * v)

    def inverse_sqrt(self, vector: PyTree, damping: ArrayLike | None = None) -> PyTree:
        """(G + damping)^-1/2 vector: of a standard normal draw, a sample of covariance
        (G + damping)^-1. Arguments as in `precondition`."""
        self._check_invertible(damping)

        def solve(values: Array, damping: Array, v: Array) -> Array:
            total = values + damping
            return jnp.where(total > 0, v / jnp.sqrt(jnp.where(total > 0, total, 1)), 0)

        return self._map(vector, damping, solve)

    def _operator(self, fn: Callable[[PyTree], PyTree]) -> lx.AbstractLinearOperator:
        treedef, leaves = self.structure
        like = jax.tree.unflatten(treedef, leaves)
        return SymmetricOperator(fn, like, positive=True)

    def inverse(self, damping: ArrayLike | None = None) -> lx.AbstractLinearOperator:
        """(G + damping)^-1 as a lineax operator on the parameter pytree; see `precondition`."""
        self._check_invertible(damping)
        self.dampings(damping)
        return self._operator(lambda v: self.precondition(v, damping))

    def operator(self, damping: ArrayLike | None = 0.0) -> lx.AbstractLinearOperator:
        """G + damping as a lineax operator on the parameter pytree; see `multiply`."""
        self.dampings(damping)
        return self._operator(lambda v: self.multiply(v, damping))

    def diagonal(self) -> PyTree:
        """The diagonal of G, a pytree like the parameters."""
        return self.layers.from_matrices([b.diagonal() for b in self.blocks], dict(self.leaves))

    def trace(self) -> Float[Array, ""]:
        """The trace of G; with EK-FAC, of the Fisher matrix itself."""
        values = [*(b.eigenvalues for b in self.blocks), *self.leaves.values()]
        return sum((jnp.sum(x) for x in values[1:]), start=jnp.sum(values[0]))

    def logdet(self, damping: ArrayLike | None = None) -> Float[Array, ""]:
        """The logarithm of the determinant of G + damping; arguments as in `precondition`."""
        self._check_invertible(damping)
        of_blocks, of_leaves = self.dampings(damping)
        totals = [b.eigenvalues + d for b, d in zip(self.blocks, of_blocks, strict=True)]
        totals += [x + of_leaves[path] for path, x in self.leaves.items()]
        return sum((jnp.sum(jnp.log(x)) for x in totals[1:]), start=jnp.sum(jnp.log(totals[0])))
