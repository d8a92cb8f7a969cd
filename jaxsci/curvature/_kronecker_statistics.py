"""What Kronecker-factored curvature is estimated from, summed over a batch of examples.

A captured layer s = W a has the gradient matrix D = sum_t delta_t a_t^T over its positions t. With
the bar over a homogeneous coordinate left out, a batch gives

    A = sum a_t a_t^T,   S = sum delta_t delta_t^T,   Lambda = sum (Q_S^T D Q_A)^2,

sums over examples, backward passes (one a column of the root of the output Hessian, or one) and, in
the first two, positions. Lambda squares the sum over positions: it is the diagonal of Q^T F Q.

Martens and Grosse 2015 (arXiv:1503.05671); Grosse and Martens 2016 (arXiv:1602.01407), for several
positions; George, Laurent, Bouthillier, Ballas and Vincent 2018 (arXiv:1806.03884), for Lambda.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float, Key, PyTree

from jaxsci._base import at_least_float32, check_choice, example_structure

from ._capture import capture_layers, LayerSites
from ._layer_block import LayerBlock
from ._likelihoods import as_likelihood, label_mask, num_cotangents, output_cotangent

LABELS = ("exact", "sampled", "empirical")
# Backward passes run side by side; more than these run in turns, which bounds memory.
_WIDTH = 16
_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

Basis = tuple[Array | None, Array | None]


class KroneckerStatistics(eqx.Module):
    """Sums over examples; two batches' add up leaf by leaf.

    One entry a layer in the tuples; L is the layer's stack, 1 unless weights are scanned or
    batched.

    - `count`: the number of examples.
    - `positions`: the number of positions.
    - `input_grams`: `(L, in, in)`; of an embedding `(L, vocabulary)`, its diagonal.
    - `output_grams`: `(L, out, out)`.
    - `squares`: `(L, out, in)`, the squared gradients in the bases; empty without bases.
    - `diagonal`: squared gradients of the leaves that are not captured, by path.
    """

    count: Float[Array, ""]
    positions: tuple[Float[Array, ""], ...]
    input_grams: tuple[Array, ...]
    output_grams: tuple[Array, ...]
    squares: tuple[Array, ...]
    diagonal: dict[str, Array]


def block_columns(block: LayerBlock, leaves: Collection[str] | None = None) -> tuple[int, int]:
    """The columns of a layer's matrix that belong to `leaves`, a weight's and a bias's.

    **Arguments:**

    - `block`: a captured layer, whose matrix has a last column for a bias folded in.
    - `leaves`: paths of leaves; None means all.

    **Returns:**

    First and last (exclusive) column; equal if the layer has none of the leaves.
    """
    weight = leaves is None or block.path in leaves
    bias = block.has_bias and (leaves is None or block.bias_path in leaves)
    return 0 if weight else block.in_features, block.in_features + bias


def _wide(x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(at_least_float32(x))
    return x


def _is_index(site: Array) -> bool:
    return not jnp.issubdtype(site.dtype, jnp.floating)


def _input_gram(block: LayerBlock, sites: Sequence[Array], weights: Sequence[Array]) -> Array:
    """Sites `(batch, stack, positions, in)`, or indices without the last axis."""
    if block.kind == "embedding":
        counts = jnp.zeros((block.stack, block.in_features), weights[0].dtype)
        rows = jnp.arange(block.stack)[:, None]
        for index, weight in zip(sites, weights, strict=True):
            index = jnp.moveaxis(index, 1, 0).reshape(block.stack, -1)
            counts = counts.at[rows, index].add(weight.reshape(1, -1))
        return counts
    terms = (_einsum("bsti,bt,bstj->sij", a, w, a) for a, w in zip(sites, weights, strict=True))
    return sum(terms, start=jnp.zeros((), weights[0].dtype))


def _output_gram(deltas: Sequence[Array]) -> Array:
    """Deltas `(batch, passes, stack, positions, out)`."""
    terms = (_einsum("bksto,bkstp->sop", d, d) for d in deltas)
    return sum(terms, start=jnp.zeros((), deltas[0].dtype))


def _embedding_squares(block: LayerBlock, index: Array, deltas: Array) -> Array:
    """Squares of the sums over equal tokens; without a matrix an example where positions are few.

    sum_t delta_t (sum of delta_u over u with the token of t), put at the token of t, is the square
    of the sum over its occurrences.
    """
    rows = jnp.arange(block.stack)[:, None]
    zeros = jnp.zeros((block.stack, block.in_features, block.out_features), deltas.dtype)
    if index.shape[-1] >= block.in_features:
        put = lambda index, delta: zeros.at[rows, index].add(delta)
        sums = jax.vmap(jax.vmap(put, in_axes=(None, 0)))(index, deltas)
        return jnp.swapaxes(jnp.sum(jnp.square(sums), axis=(0, 1)), 1, 2)
    same = (index[..., :, None] == index[..., None, :]).astype(deltas.dtype)
    terms = jnp.sum(deltas * _einsum("bstu,bksuo->bksto", same, deltas), axis=1)
    terms, index = jnp.moveaxis(terms, 0, 1), jnp.moveaxis(index, 0, 1)
    return jnp.swapaxes(zeros.at[rows[..., None], index].add(terms), 1, 2)


def _squares(
    block: LayerBlock, sites: Sequence[Array], deltas: Sequence[Array], basis: Basis
) -> Array:
    input_basis, output_basis = basis
    if output_basis is not None:
        deltas = [_einsum("bksto,sop->bkstp", d, output_basis) for d in deltas]
    if block.kind == "embedding":
        index, delta = jnp.concatenate(sites, axis=2), jnp.concatenate(deltas, axis=3)
        return _embedding_squares(block, index, delta)
    if input_basis is not None:
        sites = [_einsum("bsti,sij->bstj", a, input_basis) for a in sites]
    if len(sites) == 1 and sites[0].shape[2] == 1:
        a, d = sites[0][:, :, 0], deltas[0][:, :, :, 0]
        return _einsum("bkso,bsi->soi", jnp.square(d), jnp.square(a))
    gradients = [_einsum("bksto,bsti->bksoi", d, a) for d, a in zip(deltas, sites, strict=True)]
    return jnp.sum(jnp.square(sum(gradients[1:], start=gradients[0])), axis=(0, 1))


def layers_of(model_fn: Callable[..., Any], params: PyTree, inputs: PyTree) -> LayerSites:
    """The captured layers of a model of one example, from a batch of inputs."""
    return capture_layers(model_fn, params, example_structure(inputs))


def kronecker_statistics(
    model_fn: Callable[[PyTree, Any], Any],
    loss: Any,
    params: PyTree,
    inputs: PyTree,
    targets: PyTree = None,
    key: Key[Array, ""] | None = None,
    labels: str = "sampled",
    *,
    bases: Sequence[Basis] | None = None,
    leaves: Collection[str] | None = None,
    layers: LayerSites | None = None,
    weights: Float[Array, " batch"] | None = None,
    mask: Callable[[Any, Any], Array] | None = None,
) -> KroneckerStatistics:
    """The statistics of one batch, differentiated example by example.

    **Arguments:**

    - `model_fn`: `(params, x) -> outputs` of one example.
    - `loss`: a likelihood, see [`as_likelihood`][jaxsci.curvature.as_likelihood].
    - `params`: pytree of real floating arrays.
    - `inputs`, `targets`: batches, pytrees whose leaves have a leading axis over examples. Targets
        are needed for empirical labels; otherwise they only tell which positions are left out.
    - `key`: a typed key, for sampled labels.
    - `labels`: the distribution of the labels: `"exact"` takes the expectation over the model's
        labels, `"sampled"` draws one a position, `"empirical"` takes the targets.
    - `bases`: a pair of orthogonal matrices `(L, in, in)` and `(L, out, out)` a layer, or None in
        place of an identity; with them `squares` is computed.
    - `leaves`: paths of the leaves to look at, by default all.
    - `layers`: the captured layers of `model_fn`, if they are known already.
    - `weights`: 0 leaves an example out, 1 counts it.
    - `mask`: `(x, y) -> (positions,)` of one example: which positions count in the input factors of
        layers with as many positions. By default those of the labels that are not negative.

    **Returns:**

    `KroneckerStatistics`, in at least float32.

    **Raises:**

    `ValueError` for another `labels`, or if `key` or `targets` is missing where needed.
    """
    check_choice("labels", labels, LABELS)
    loss = as_likelihood(loss)
    if labels == "sampled" and key is None:
        raise ValueError("`key` is needed for labels='sampled', got None.")
    if labels == "empirical" and targets is None:
        raise ValueError("`targets` are needed for labels='empirical', got None.")
    if labels == "exact" and not hasattr(loss, "root_column"):
        raise ValueError(
            "labels='exact' needs a loss with the methods `num_columns` and `root_column`, as "
            f"`AbstractLikelihood` has; {loss!r} can be used with labels='sampled'."
        )
    layers = layers_of(model_fn, params, inputs) if layers is None else layers
    names = None if leaves is None else frozenset(leaves)
    fn = partial(_statistics, model_fn, loss, labels, names, layers, mask)
    return _automatically_sharded(fn)(params, inputs, targets, key, bases, weights)


def _explicit_axes() -> tuple[str, ...]:
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def _automatically_sharded(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` with the mesh's explicit axes made automatic inside; what it returns is replicated.

    Sums over examples contract a sharded axis, which explicit axes leave to the caller.
    """
    axes = _explicit_axes()
    if not axes:
        return fn
    return jax.sharding.auto_axes(fn, axes=axes, out_sharding=PartitionSpec())


def _statistics(
    model_fn: Callable[[PyTree, Any], Any],
    loss: Any,
    labels: str,
    leaves: frozenset[str] | None,
    layers: LayerSites,
    mask: Callable[[Any, Any], Array] | None,
    params: PyTree,
    inputs: PyTree,
    targets: PyTree,
    key: Any,
    bases: Sequence[Basis] | None,
    weights: Array | None,
) -> KroneckerStatistics:
    batch = jax.tree.leaves(inputs)[0].shape[0]
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
    weights = jnp.ones(batch, dtype) if weights is None else jnp.asarray(weights, dtype)
    keys = None if key is None else jax.random.split(key, batch)
    outputs = jax.eval_shape(model_fn, params, example_structure(inputs))
    passes = num_cotangents(loss, labels, outputs)
    width = min(passes, _WIDTH)
    columns = [block_columns(block, leaves) for block in layers.blocks]
    kept = [i for i, (start, stop) in enumerate(columns) if stop > start]
    blocks = [layers.blocks[i] for i in kept]

    def select(sites: Sequence[Sequence[Array]]) -> list[list[Array]]:
        wide = ([_wide(a) for a in sites[i]] for i in kept)
        cuts = (columns[i] for i in kept)
        return [
            [a if _is_index(a) else a[..., start:stop] for a in block]
            for block, (start, stop) in zip(wide, cuts, strict=True)
        ]

    def backward(x, y, key, weight, first):
        values, sites, pullback = layers.vjp(params, x)

        def one(index):
            cotangent = output_cotangent(loss, labels, values, y, key, index)
            scale = weight * (index < passes)
            deltas, rest = pullback(jax.tree.map(lambda c: c * scale.astype(c.dtype), cotangent))
            rest = {p: g for p, g in rest.items() if leaves is None or p in leaves}
            return [[_wide(d) for d in deltas[i]] for i in kept], rest

        deltas, rest = jax.vmap(one)(first + jnp.arange(width))
        squares = {p: jnp.sum(jnp.square(_wide(g)), axis=0) for p, g in rest.items()}
        return sites, deltas, squares

    def of_passes(first) -> tuple[Any, Any]:
        axes = (0, None if targets is None else 0, None if keys is None else 0, 0, None)
        run = jax.vmap(backward, in_axes=axes)
        sites, deltas, rest = run(inputs, targets, keys, weights, first)
        sites = select(sites)
        squares = () if bases is None else tuple(map(_squares, blocks, sites, deltas, bases))
        diagonal = {p: jnp.sum(g, axis=0) for p, g in rest.items()}
        return sites, (tuple(map(_output_gram, deltas)), squares, diagonal)

    if passes == width:
        sites, sums = of_passes(0)
    else:
        sites = select(jax.vmap(lambda x: layers.record(params, x)[1])(inputs))
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: of_passes(0)[1])
        )

        def add(total, first):
            return jax.tree.map(jnp.add, total, of_passes(first)[1]), None

        sums, _ = jax.lax.scan(add, zeros, width * jnp.arange(-(-passes // width)))

    position_mask = _position_mask(loss, inputs, targets, mask)

    def site_weights(site: Array) -> Array:
        positions = site.shape[2]
        if position_mask is not None and position_mask.shape[1] == positions:
            return weights[:, None] * position_mask.astype(dtype)
        return jnp.broadcast_to(weights[:, None], (batch, positions))

    of_sites = [[site_weights(a) for a in block] for block in sites]
    grams = tuple(map(_input_gram, blocks, sites, of_sites))
    positions = tuple(sum((jnp.sum(w) for w in ws), jnp.zeros((), dtype)) for ws in of_sites)
    output_grams, squares, diagonal = sums
    return KroneckerStatistics(jnp.sum(weights), positions, grams, output_grams, squares, diagonal)


def _position_mask(loss: Any, inputs: Any, targets: Any, mask: Any) -> Array | None:
    if mask is not None:
        return jax.vmap(mask)(inputs, targets)
    marks = None if targets is None else label_mask(loss, targets)
    return marks if marks is not None and np.ndim(marks) == 2 else None
