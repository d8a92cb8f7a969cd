"""Queries preconditioned once, then scored against every training example in one streamed pass.

A layer W applied at positions t to a_t (the last entry 1 where a bias is folded in) has, at one
example, the gradient sum_t delta_t a_t^T, so its part of the score of a query with preconditioned
gradient V is

    < V, sum_t delta_t a_t^T > = sum_t delta_t . V a_t.

The left side costs least for many queries; the right side needs no gradient matrix, splits by
position, and with V ~ U C of rank k costs k (in + out) a position (Grosse et al. 2023,
arXiv:2308.03296, sections 3.2 and 3.3).
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..._base import (
    all_finite,
    check_at_least,
    check_nonnegative,
    example_structure,
    is_concrete,
    progress_bar,
)
from .._capture import capture_layers, LayerBlock, LayerSites
from .._operators import damped_operator
from ._batches import is_stream, iterate, leading_size

_DENSE_SOLVE_LIMIT = 2048


class Factored(NamedTuple):
    """Query matrices of one layer in factors: V = `left` @ `right`."""

    left: Float[Array, "queries stack out rank"]
    right: Float[Array, "queries stack rank in"]


class Prepared(NamedTuple):
    """Preconditioned query gradients: by layer, and of the leaves that belong to no layer."""

    layers: tuple[Float[Array, "queries stack out in"] | Factored, ...]
    rest: dict[str, Array]


def check_scalar_loss(name: str, fn: Callable[..., Any], params: PyTree, example: PyTree) -> None:
    """Raise unless `fn(params, example)` is one real floating scalar."""
    value = jax.eval_shape(fn, params, example)
    leaves = jax.tree.leaves(value)
    scalar = len(leaves) == 1 and leaves[0].shape == ()
    if not scalar or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise ValueError(
            f"`{name}(params, example)` must return one real floating scalar for one example "
            f"without a batch axis, got {value}."
        )


def preconditioner(curv: Any, damping: ArrayLike | None) -> Callable[[PyTree], PyTree]:
    """The function that applies the damped inverse of `curv` to one gradient."""
    if curv is None:
        return lambda gradient: gradient
    if isinstance(curv, lx.AbstractLinearOperator):
        tagged = lx.TaggedLinearOperator(curv, lx.positive_semidefinite_tag)
        operator = curv if damping is None else damped_operator(tagged, damping)
        if operator.in_size() <= _DENSE_SOLVE_LIMIT:
            solver = lx.Cholesky()
        else:
            solver = lx.CG(rtol=1e-6, atol=0.0, max_steps=operator.in_size())
        state = solver.init(operator, {})
        return lambda gradient: (
            lx.linear_solve(operator, gradient, solver, state=state, throw=False).value
        )
    if hasattr(curv, "precondition"):
        return lambda gradient: curv.precondition(gradient, damping)
    raise TypeError(
        "`curv` must be a `KroneckerCurvature`, a positive semidefinite lineax operator or None, "
        f"got {type(curv).__name__}."
    )


def check_curvature(curv: Any, damping: ArrayLike | None) -> None:
    """Raise if `damping` is negative, or zero and the factors singular; skips tracers."""
    if damping is None:
        return
    check_nonnegative("damping", damping)
    if hasattr(curv, "inverse") and is_concrete(damping) and not np.any(np.asarray(damping)):
        curv.inverse(damping)  # which looks at the eigenvalues


def _compress(block: LayerBlock, v: Array, rank: int | None) -> Array | Factored:
    # The matrix of an embedding is only ever looked up in, which is cheap without factors.
    if rank is None or block.kind == "embedding":
        return v
    rank = min(rank, *v.shape[-2:])
    u, s, vt = jnp.linalg.svd(v, full_matrices=False)
    return Factored(u[..., :rank] * s[..., None, :rank], vt[..., :rank, :])


@eqx.filter_jit
def _prepare(curv, damping, loss_fn, measurement, params, queries, example, rank) -> Prepared:
    sites = capture_layers(loss_fn, params, example)
    negative = loss_fn if measurement is None else lambda p, q: -measurement(p, q)
    gradients = jax.vmap(jax.grad(negative), in_axes=(None, 0))(params, queries)
    preconditioned = jax.vmap(preconditioner(curv, damping))(gradients)
    matrices, rest = jax.vmap(sites.to_matrices)(preconditioned)
    pairs = zip(sites.blocks, matrices, strict=True)
    return Prepared(tuple(_compress(block, v, rank) for block, v in pairs), rest)


def _token_count(sites: LayerSites) -> int:
    """The number of positions at which most layers are applied, the larger one in a tie."""
    counts = Counter(n for block in sites.blocks for n in block.positions)
    return max(counts, key=lambda n: (counts[n], n), default=1)


def _by_position(block: LayerBlock, v, inputs, deltas) -> list[Float[Array, "queries positions"]]:
    """delta_t . V a_t for every query, one array a site."""
    if isinstance(v, Factored):
        return [
            jnp.einsum(
                "qstk,qstk->qt",
                jnp.einsum("sto,qsok->qstk", delta, v.left),
                jnp.einsum("sti,qski->qstk", a, v.right),
            )
            for a, delta in zip(inputs, deltas, strict=True)
        ]
    applied = jax.vmap(lambda matrix: block.apply(matrix, inputs))(v)
    pairs = zip(applied, deltas, strict=True)
    return [jnp.einsum("qsto,sto->qt", va, delta) for va, delta in pairs]


def _matrix_is_cheaper(block: LayerBlock, v) -> bool:
    """Whether forming the example's gradient matrix takes fewer multiplications."""
    if block.kind == "embedding":
        return False
    _, num_out, num_in = block.shape
    positions = sum(block.positions)
    if isinstance(v, Factored):
        queries, rank = v.left.shape[0], v.left.shape[-1]
        return (positions + queries) * num_out * num_in < (
            positions * queries * rank * (num_out + num_in)
        )
    return (positions + v.shape[0]) < positions * v.shape[0]


def _total(block: LayerBlock, v, inputs, deltas, gradient) -> Float[Array, " queries"]:
    if not _matrix_is_cheaper(block, v):
        parts = _by_position(block, v, inputs, deltas)
        return sum((x.sum(-1) for x in parts[1:]), start=parts[0].sum(-1))
    matrix = jnp.einsum("qsok,qski->qsoi", *v) if isinstance(v, Factored) else v
    return matrix.reshape(matrix.shape[0], -1) @ gradient.reshape(-1)


def _spread(score: Float[Array, " queries"], num: int) -> Float[Array, "queries num"]:
    return jnp.broadcast_to(score[:, None] / num, (*score.shape, num))


@eqx.filter_jit
def _score(loss_fn, params, prepared: Prepared, batch, per_layer: bool, per_token: bool):
    """Scores with axes (queries, batch[, tokens]), by layer where `per_layer`."""
    sites = capture_layers(loss_fn, params, example_structure(batch))
    tokens = _token_count(sites)

    def one(example):
        value, inputs, pullback = sites.vjp(params, example)
        deltas, rest = pullback(jnp.ones_like(value))
        gradients = sites.gradients(inputs, deltas)
        scores = {}
        for block, v, a, delta, gradient in zip(
            sites.blocks, prepared.layers, inputs, deltas, gradients, strict=True
        ):
            if per_token:
                parts = _by_position(block, v, a, delta)
                scores[block.path] = sum(
                    x if x.shape[-1] == tokens else _spread(x.sum(-1), tokens) for x in parts
                )
            else:
                scores[block.path] = _total(block, v, a, delta, gradient)
        for path, gradient in rest.items():
            v = prepared.rest[path]
            score = jnp.sum(v * gradient, axis=tuple(range(1, v.ndim)))
            scores[path] = _spread(score, tokens) if per_token else score
        return scores if per_layer else total_score(scores)

    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), jax.vmap(one)(batch))


@eqx.filter_jit
def self_score(curv, damping, loss_fn, params, batch):
    """g^T (G + lambda I)^-1 g of every example of the batch, by layer."""
    sites = capture_layers(loss_fn, params, example_structure(batch))
    inverse = preconditioner(curv, damping)

    def one(example):
        gradient = jax.grad(loss_fn)(params, example)
        trees = [sites.to_matrices(tree) for tree in (gradient, inverse(gradient))]
        (matrices, rest), (matrices_v, rest_v) = trees
        layers = zip(sites.blocks, matrices, matrices_v, strict=True)
        scores = {block.path: jnp.vdot(g, v) for block, g, v in layers}
        return scores | {path: jnp.vdot(rest[path], rest_v[path]) for path in rest}

    return jax.vmap(one)(batch)


def total_score(scores: dict[str, Array]) -> Array:
    """The sum over layers."""
    parts = list(scores.values())
    return sum(parts[1:], start=parts[0])


def default_batch_size(params: PyTree) -> int:
    """As many examples as have gradients of 64 Mi numbers together, between 8 and 256."""
    numbers = sum(x.size for x in jax.tree.leaves(params))
    return int(np.clip(2**26 // max(numbers, 1), 8, 256))


def peek(train: Any, batch_size: int) -> tuple[PyTree, Iterator[tuple[PyTree, int]], int | None]:
    """The first batch, all batches with the number of new examples in each, and their total."""
    if not is_stream(train):
        batches, total = iterate("train", train, batch_size), leading_size("train", train)
    else:
        batches, total = ((b, leading_size("train", b)) for b in train), None
    first = next(batches, None)
    if first is None:
        raise ValueError("`train` must hold at least one batch, got none.")
    return first[0], itertools.chain([first], batches), total


def check_finite_scores(what: str, tree: PyTree) -> None:
    """Raise on values that no further computation can mend."""
    if is_concrete(tree) and not all_finite(tree):
        raise ValueError(
            f"{what} are not finite: the curvature is singular and `damping` zero, or a gradient "
            "is not finite. Use a positive `damping`, or None for the heuristic."
        )


def _check_rank(rank: int | None, sites: LayerSites) -> None:
    if rank is None:
        return
    check_at_least("rank", rank, 1)
    largest = max((min(block.shape[1:]) for block in sites.blocks), default=0)
    if rank > largest:
        raise ValueError(
            f"`rank` must be at most {largest}, the largest rank that a layer can have (None for "
            f"no compression), got {rank}."
        )


def _check_same_structure(queries: PyTree, train: PyTree) -> None:
    ours, theirs = jax.tree.structure(queries), jax.tree.structure(train)
    if ours != theirs:
        raise ValueError(
            "`queries` and `train` must have the same structure (or give a `measurement` of a "
            f"query), got {ours} and {theirs}. Batches are streamed from an iterator, not a list."
        )


class ScoreBatch(NamedTuple):
    """The scores of consecutive training examples, axes (queries, examples[, tokens])."""

    scores: PyTree
    first: int
    size: int


def score_batches(
    curv: Any,
    loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    queries: PyTree,
    train: Any,
    measurement: Callable[[PyTree, PyTree], Any] | None,
    rank: int | None,
    per_layer: bool,
    per_token: bool,
    damping: ArrayLike | None,
    batch_size: int | None,
    query_batch_size: int | None,
    progress: bool,
) -> Iterator[ScoreBatch]:
    """The scores of all queries, training batch by training batch."""
    check_curvature(curv, damping)
    damping = None if damping is None else jnp.asarray(damping)
    default = default_batch_size(params)
    first, batches, total = peek(train, default if batch_size is None else batch_size)
    example = example_structure(first)
    query = example_structure(queries)
    leading_size("queries", queries)
    if measurement is None:
        _check_same_structure(queries, first)
        check_scalar_loss("loss_fn", loss_fn, params, query)
    else:
        check_scalar_loss("measurement", measurement, params, query)
    check_scalar_loss("loss_fn", loss_fn, params, example)
    _check_rank(rank, capture_layers(loss_fn, params, example))

    parts = []
    width = default if query_batch_size is None else query_batch_size
    for batch, new in iterate("queries", queries, width):
        part = _prepare(curv, damping, loss_fn, measurement, params, batch, example, rank)
        parts.append(jax.tree.map(lambda x, n=new: x[x.shape[0] - n :], part))
    prepared = jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
    check_finite_scores("The preconditioned gradients of the queries", prepared)

    done = 0
    with progress_bar(progress, "example", total) as bar:
        for batch, new in batches:
            scores = _score(loss_fn, params, prepared, batch, per_layer, per_token)
            yield ScoreBatch(
                jax.tree.map(lambda x, n=new: x[:, x.shape[1] - n :], scores), done, new
            )
            done += new
            bar.update(new)
