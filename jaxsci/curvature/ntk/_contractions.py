"""Three ways to contract the Jacobians of two sets of points into a tangent kernel.

T[n, m, i, j] = sum over parameters of df_i(x_n)/dp df_j(x_m)/dp, for N points, O outputs and P
parameters (Novak, Sohl-Dickstein and Schoenholz 2022, arXiv:2206.08720):

- `Jacobian`: both Jacobians, leaf by leaf: N O P numbers, N^2 O^2 P operations.
- `VectorProducts`: one row of a Jacobian at a time, pushed forward through the others: N^2 O
  forward passes.
- `Structured`: the gradient of a weight is a sum over positions of (output gradient) x (input), so
  its share of T is, with one position, (a_n . a_m) (d_ni . d_mj) with inputs a and output gradients
  d: N (in + O out) numbers, N^2 (in + O^2 out) operations. With many positions the products of
  sums are taken over pairs of positions or after forming the small gradient matrices, whichever is
  less work. Parameters that are not the weights of a linear layer go through their Jacobian.

Each class has `prepare_left`, `prepare_right` (what is computed for every set of points) and
`contract`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

# How the output axes i, j of the two sides are kept: both, or their diagonal.
_LETTERS = {"full": ("i", "j", "ij"), "diag": ("i", "i", "i"), "trace": ("i", "i", "")}


def _pullback_basis(pullback: Callable, out: jax.ShapeDtypeStruct) -> PyTree:
    """`pullback` of every unit vector of the outputs, stacked."""
    size = math.prod(out.shape)
    return jax.vmap(pullback)(jnp.eye(size, dtype=out.dtype).reshape(size, *out.shape))


def _contract_leaves(left: PyTree, right: PyTree, outputs: str) -> Array | int:
    """Sum over leaves and parameters of left (n, O, ...) times right (m, O, ...)."""
    i, j, kept = _LETTERS[outputs]
    total: Array | int = 0
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = a.reshape(*a.shape[:2], -1), b.reshape(*b.shape[:2], -1)
        total = total + jnp.einsum(f"n{i}p,m{j}p->nm{kept}", a, b)
    return total


class Jacobian:
    """Contraction of full Jacobians."""

    def __init__(self, fn: Callable, params: PyTree, out: jax.ShapeDtypeStruct):
        self.fn, self.params, self.out = fn, params, out

    def prepare_left(self, x: PyTree) -> PyTree:
        def one(point):
            _, pullback = jax.vjp(lambda p: self.fn(p, point), self.params)
            return _pullback_basis(lambda ct: pullback(ct)[0], self.out)

        return jax.vmap(one)(x)

    prepare_right = prepare_left

    def contract(self, left: PyTree, right: PyTree, outputs: str) -> Any:
        return _contract_leaves(left, right, outputs)


class VectorProducts:
    """Rows of one Jacobian pushed forward through the other."""

    def __init__(self, fn: Callable, params: PyTree, out: jax.ShapeDtypeStruct):
        self.fn, self.params, self.out = fn, params, out

    def prepare_left(self, x: PyTree) -> PyTree:
        return x

    prepare_right = prepare_left

    def contract(self, left: PyTree, right: PyTree, outputs: str) -> Array:
        size = math.prod(self.out.shape)
        _, forward = jax.linearize(
            lambda p: jax.vmap(self.fn, in_axes=(None, 0))(p, left), self.params
        )

        def column(point):
            _, pullback = jax.vjp(lambda p: self.fn(p, point), self.params)
            rows = _pullback_basis(lambda ct: pullback(ct)[0], self.out)
            pushed = jax.vmap(forward)(rows)
            pushed = pushed.reshape(size, -1, size)
            if outputs == "full":
                return pushed
            diagonal = jnp.einsum("ini->ni", pushed)
            return diagonal if outputs == "diag" else diagonal.sum(-1)

        columns = jax.lax.map(column, right)
        if outputs == "full":
            return jnp.einsum("mjni->nmij", columns)
        return jnp.swapaxes(columns, 0, 1)


class Structured:
    """Contraction by layer, from the inputs and output gradients of every linear layer."""

    def __init__(self, sites: Any, params: PyTree, out: jax.ShapeDtypeStruct):
        self.sites, self.params, self.out = sites, params, out

    def prepare_left(self, x: PyTree) -> PyTree:
        def one(point):
            _, inputs, pullback = self.sites.vjp(self.params, point)
            return inputs, _pullback_basis(pullback, self.out)

        inputs, (deltas, rest) = jax.vmap(one)(x)
        factors = []
        for site_inputs, site_deltas in zip(inputs, deltas, strict=True):
            # (n, stack, positions, in) and (n, O, stack, positions, out), all sites in a row.
            factors.append((jnp.concatenate(site_inputs, 2), jnp.concatenate(site_deltas, 3)))
        return factors, rest

    prepare_right = prepare_left

    def contract(self, left: PyTree, right: PyTree, outputs: str) -> Any:
        (factors, rest), (factors2, rest2) = left, right
        total = _contract_leaves(rest, rest2, outputs)
        for block, (a, d), (a2, d2) in zip(self.sites.blocks, factors, factors2, strict=True):
            contract = _contract_table if block.kind == "embedding" else _contract_layer

            def entry(a, d, a2, d2, contract=contract, fan_in=block.shape[2]):
                return contract(a, d, a2, d2, fan_in, outputs)

            if block.stack == 1:
                total = total + entry(a[:, 0], d[:, :, 0], a2[:, 0], d2[:, :, 0])
                continue

            def add(carry, stacked, entry=entry):
                return carry + entry(*stacked), None

            by_stack = tuple(jnp.moveaxis(v, axis, 0) for v, axis in ((a, 1), (d, 2)))
            by_stack2 = tuple(jnp.moveaxis(v, axis, 0) for v, axis in ((a2, 1), (d2, 2)))
            stacked = (*by_stack, *by_stack2)
            shape = jax.eval_shape(entry, *(v[0] for v in stacked))
            start = jnp.zeros(shape.shape, shape.dtype)
            total = total + jax.lax.scan(add, start, stacked)[0]
        return total


def _contract_table(a, d, a2, d2, fan_in: int, outputs: str) -> Array:
    """One table: row numbers a (n, t), d (n, O, t, out), and the same for m points."""
    n, size, positions, fan_out = d.shape
    if pairs_cheaper(n, a2.shape[0], size, positions, fan_in, fan_out):
        # A look-up out of range has no gradient; it is marked by the number of rows.
        same = (a[:, None, :, None] == a2[None, :, None, :]) & (a < fan_in)[:, None, :, None]
        return _over_pairs(same.astype(d.dtype), d, d2, outputs)

    def gradient(index, delta):
        rows = jnp.zeros((size, fan_in, fan_out), delta.dtype)
        return rows.at[:, index].add(delta, mode="drop")

    rows, rows2 = jax.vmap(gradient)(a, d), jax.vmap(gradient)(a2, d2)
    return jnp.asarray(_contract_leaves(rows, rows2, outputs))


def _contract_layer(a, d, a2, d2, fan_in: int, outputs: str) -> Array:
    """One weight: a (n, t, in), d (n, O, t, out), and the same for m points."""
    i, j, kept = _LETTERS[outputs]
    if a.shape[1] == 1:
        products = jnp.einsum("na,ma->nm", a[:, 0], a2[:, 0])
        if outputs == "trace":
            return products * jnp.einsum("nio,mio->nm", d[:, :, 0], d2[:, :, 0])
        expand = products.reshape(*products.shape, *(1,) * len(kept))
        return expand * jnp.einsum(f"n{i}o,m{j}o->nm{kept}", d[:, :, 0], d2[:, :, 0])
    if pairs_cheaper(a.shape[0], a2.shape[0], d.shape[1], a.shape[1], fan_in, d.shape[-1]):
        return _over_pairs(jnp.einsum("nta,msa->nmts", a, a2), d, d2, outputs)
    gradient = jnp.einsum("nito,nta->nioa", d, a)
    gradient2 = jnp.einsum("mjto,mta->mjoa", d2, a2)
    return jnp.asarray(_contract_leaves(gradient, gradient2, outputs))


def _over_pairs(products, d, d2, outputs: str) -> Array:
    """Sum over pairs of positions of products (n, m, t, s) times d_nit . d_mjs."""
    i, j, kept = _LETTERS[outputs]
    if outputs == "trace":
        return jnp.einsum("nmts,nmts->nm", products, jnp.einsum("nito,miso->nmts", d, d2))
    slopes = jnp.einsum(f"n{i}to,m{j}so->nm{kept}ts", d, d2)
    return jnp.einsum(f"nmts,nm{kept}ts->nm{kept}", products, slopes)


def layer_operations(
    n: int, m: int, outputs: int, positions: int, fan_in: int, fan_out: int, full: bool
) -> tuple[float, float]:
    """Operations of one weight: over pairs of positions, and through gradient matrices."""
    square = outputs**2 if full else outputs
    pairs = n * m * positions**2 * (fan_in + square * (fan_out + 1))
    matrices = (n + m) * outputs * positions * fan_in * fan_out + n * m * square * fan_in * fan_out
    return float(pairs), float(matrices)


def pairs_cheaper(n, m, outputs, positions, fan_in, fan_out) -> bool:
    """Whether pairs of positions are less work than gradient matrices, by `layer_operations`."""
    pairs, matrices = layer_operations(n, m, outputs, positions, fan_in, fan_out, True)
    return pairs < matrices
