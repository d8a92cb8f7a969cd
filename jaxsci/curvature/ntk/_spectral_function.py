"""Functions of a symmetric matrix times vectors, differentiable where eigenvalues coincide.

g(A) = V g(w) V^T. The derivative of an eigendecomposition has 1 / (w_i - w_j) in it; the derivative
of g(A) has the divided differences (g(w_i) - g(w_j)) / (w_i - w_j), which are finite (Daleckii and
Krein 1965; Higham 2008, "Functions of Matrices", theorem 3.11).
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


class Eigendecomposition(eqx.Module):
    """A symmetric matrix beside its eigenvalues (ascending) and eigenvectors."""

    matrix: Array
    eigenvalues: Array
    eigenvectors: Array

    def __init__(self, matrix: Array):
        self.matrix = (matrix + matrix.T) / 2
        self.eigenvalues, self.eigenvectors = jnp.linalg.eigh(jax.lax.stop_gradient(self.matrix))

    def apply(self, g: Callable, arguments: PyTree, vectors: Array) -> Array:
        """g(A, arguments) @ vectors, where `g(w, arguments)` acts on eigenvalues, elementwise."""
        return _apply(g, self.matrix, self.eigenvalues, self.eigenvectors, arguments, vectors)

    def trace(self, g: Callable, arguments: PyTree) -> Array:
        """The trace of g(A, arguments)."""
        return _trace(g, self.matrix, self.eigenvalues, self.eigenvectors, arguments)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _apply(g, matrix, w, v, arguments, vectors):
    del matrix
    return v @ (g(w, arguments)[:, None] * (v.T @ vectors))


@_apply.defjvp
def _(g, primals, tangents):
    _, w, v, arguments, vectors = primals
    d_matrix, _, _, d_arguments, d_vectors = tangents
    value, d_value = jax.jvp(lambda a: g(w, a), (arguments,), (d_arguments,))
    coefficients = v.T @ vectors
    by_matrix = (_divided_differences(g, w, value, arguments) * (v.T @ d_matrix @ v)) @ coefficients
    by_vectors = value[:, None] * (v.T @ d_vectors)
    tangent = v @ (by_matrix + d_value[:, None] * coefficients + by_vectors)
    return v @ (value[:, None] * coefficients), tangent


def _divided_differences(g, w, value, arguments):
    gap = w[:, None] - w[None, :]
    scale = jnp.finfo(w.dtype).eps ** (1 / 3) * jnp.max(jnp.abs(w))
    close = jnp.abs(gap) <= scale
    middle = (w[:, None] + w[None, :]) / 2
    slope = jax.vmap(jax.vmap(jax.grad(lambda s: g(s, arguments))))(middle)
    quotient = (value[:, None] - value[None, :]) / jnp.where(close, 1, gap)
    return jnp.where(close, slope, quotient)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _trace(g, matrix, w, v, arguments):
    del matrix, v
    return jnp.sum(g(w, arguments))


@_trace.defjvp
def _(g, primals, tangents):
    _, w, v, arguments = primals
    d_matrix, _, _, d_arguments = tangents
    value, d_value = jax.jvp(lambda a: g(w, a), (arguments,), (d_arguments,))
    slope = jax.vmap(jax.grad(lambda s: g(s, arguments)))(w)
    d_eigenvalues = jnp.einsum("ik,ij,jk->k", v, d_matrix, v)
    return jnp.sum(value), jnp.sum(d_value) + slope @ d_eigenvalues
