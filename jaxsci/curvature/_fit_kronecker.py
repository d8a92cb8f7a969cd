"""Fit Kronecker factors to a data set: one pass for the factors, one for eigenvalues."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxsci._base import (
    at_least_float32,
    check_at_least,
    check_choice,
    is_concrete,
    progress_bar,
    strided_parts,
)

from ._capture import LayerSites
from ._kronecker import KroneckerBlock, KroneckerCurvature
from ._kronecker_statistics import (
    Basis,
    kronecker_statistics,
    KroneckerStatistics,
    LABELS,
    layers_of,
)
from ._likelihoods import as_likelihood

_FACTORS = ("ekfac", "kfac", "diagonal", "identity")


class _ById:
    """Gives an object that cannot be hashed the hash of its identity, to be a static argument."""

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _ById) and self.value is other.value


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return _ById(value)
    return value


def _unwrap(value: Any) -> Any:
    return value.value if isinstance(value, _ById) else value


class _Program(NamedTuple):
    """The static part of a pass; equal ones share a compilation, across fits."""

    model_fn: Any
    loss: Any
    labels: str
    parts: int
    mask: Any


def _pieces(batch: PyTree, size: int, parts: int) -> PyTree:
    """`parts` strided parts, with copies of the first row added at the end where needed."""
    missing = -size % parts
    fill = lambda x: jnp.concatenate([x, x[jnp.zeros(missing, jnp.int32)]])
    return strided_parts(jax.tree.map(fill, batch) if missing else batch, parts)


@partial(jax.jit, static_argnums=0)
def _batch_statistics(
    program: _Program, params: PyTree, inputs: PyTree, targets: PyTree, key: Any, bases: Any
) -> KroneckerStatistics:
    model_fn, loss, labels, parts, mask = (_unwrap(x) for x in program)

    def statistics(inputs, targets, key, weights=None):
        return kronecker_statistics(
            model_fn,
            loss,
            params,
            inputs,
            targets,
            key,
            labels,
            bases=bases,
            weights=weights,
            mask=mask,
        )

    if parts == 1:
        return statistics(inputs, targets, key)
    size = jax.tree.leaves(inputs)[0].shape[0]
    rows = jnp.arange(-(-size // parts))[None, :] * parts + jnp.arange(parts)[:, None]
    weights = (rows < size).astype(jnp.result_type(float))
    keys = None if key is None else jax.random.split(key, parts)
    pieces = (_pieces(inputs, size, parts), _pieces(targets, size, parts), keys, weights)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(statistics, *jax.tree.map(lambda x: x[0], pieces)),
    )

    def add(total, piece):
        return jax.tree.map(jnp.add, total, statistics(*piece)), None

    return jax.lax.scan(add, zeros, pieces)[0]


def _as_pair(batch: Any) -> tuple[Any, Any]:
    return (batch[0], batch[1]) if isinstance(batch, tuple) and len(batch) == 2 else (batch, None)


def _passes(batches: Any) -> Callable[[], Iterable[Any]]:
    """A function that starts a pass over the batches."""
    if isinstance(batches, tuple) or not isinstance(batches, Iterable) or hasattr(batches, "shape"):
        return lambda: [batches]
    if isinstance(batches, dict):
        return lambda: [batches]
    if isinstance(batches, Iterator):
        stored = list(batches)
        return lambda: stored
    return lambda: batches


def _batch_size(inputs: PyTree, targets: PyTree) -> int:
    leaves = jax.tree_util.tree_leaves_with_path((inputs, targets))
    sizes = {jnp.shape(x)[:1] for _, x in leaves}
    if len(sizes) != 1 or () in sizes:
        shapes = {jax.tree_util.keystr(path): jnp.shape(x) for path, x in leaves}
        raise ValueError(
            "The arrays of a batch must have one leading axis over examples, got the shapes "
            f"{shapes}."
        )
    return sizes.pop()[0]


def _sum(
    program: _Program, params: PyTree, passes: Any, key: Any, bases: Any, progress: Any
) -> KroneckerStatistics:
    total = None
    for i, batch in enumerate(passes()):
        inputs, targets = _as_pair(batch)
        size = _batch_size(inputs, targets)
        inputs, targets = jax.tree.map(jnp.asarray, (inputs, targets))
        batch_key = None if key is None else jax.random.fold_in(key, i)
        part = program._replace(parts=min(program.parts, size))
        new = _batch_statistics(part, params, inputs, targets, batch_key, bases)
        total = new if total is None else jax.tree.map(jnp.add, total, new)
        progress.update(1)
    if total is None:
        raise ValueError("`batches` must hold at least one batch, got none.")
    return total


def _eigh(name: str, matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, at least zero, and eigenvectors; on the host in float64 where concrete."""
    if not is_concrete(matrix):
        values, vectors = jnp.linalg.eigh(matrix)
        return jnp.maximum(values, 0), vectors
    host = np.asarray(matrix, np.float64)
    if not np.all(np.isfinite(host)):
        raise ValueError(f"The {name} holds NaN or infinity.")
    values, vectors = np.linalg.eigh(host)
    eps = host.shape[-1] * float(jnp.finfo(matrix.dtype).eps)
    if np.any(values < -10 * eps * np.max(np.abs(values), axis=-1, keepdims=True)):
        raise ValueError(f"The {name} is not positive semidefinite: {values.min():.3g}.")
    dtype = matrix.dtype
    return jnp.asarray(np.maximum(values, 0), dtype), jnp.asarray(vectors, dtype)


def _factored(layers: LayerSites, total: KroneckerStatistics, factors: str) -> list[KroneckerBlock]:
    """The blocks of K-FAC; those of EK-FAC have the same bases."""
    made = []
    triples = zip(
        layers.blocks, total.input_grams, total.output_grams, total.positions, strict=True
    )
    for block, input_gram, output_gram, positions in triples:
        count = jnp.where(positions > 0, positions, 1)
        a, s = input_gram / count, output_gram / count
        s_values, s_basis = _eigh(f"output factor of {block.path!r}", s)
        if block.kind == "embedding":
            a_values, a_basis = a, None
        else:
            a_values, a_basis = _eigh(f"input factor of {block.path!r}", a)
        scale = positions / total.count
        values = scale * s_values[:, :, None] * a_values[:, None, :]
        made.append(KroneckerBlock(block, a, s, a_basis, s_basis, values))
    return made


def _bases(blocks: Iterable[KroneckerBlock]) -> tuple[Basis, ...]:
    return tuple((b.input_basis, b.output_basis) for b in blocks)


def _check_finite(curvature: KroneckerCurvature) -> None:
    if not is_concrete(curvature):
        return
    named = [(b.block.path, b.eigenvalues) for b in curvature.blocks]
    for path, values in named + list(curvature.leaves.items()):
        if not np.all(np.isfinite(np.asarray(values))):
            raise ValueError(f"The curvature of {path!r} holds NaN or infinity.")


def fit_kronecker(
    model_fn: Callable[[PyTree, Any], Any],
    loss: Any,
    params: PyTree,
    batches: Any,
    key: Key[Array, ""] | None = None,
    labels: str = "exact",
    factors: str = "ekfac",
    *,
    microbatch: int = 1,
    mask: Callable[[Any, Any], Array] | None = None,
    progress: bool = False,
) -> KroneckerCurvature:
    """Fit the Kronecker-factored Fisher (Gauss-Newton) matrix of a model on a data set.

    The layers are found in the trace of `model_fn`: see
    [`capture_layers`][jaxsci.curvature.capture_layers]. Leaves that are not captured get the
    diagonal of their Fisher matrix.

    ```python
    curvature = fit_kronecker(model_fn, "softmax", params, (inputs, labels))
    direction = curvature.precondition(grads)
    ```

    Batches may be sharded over examples: every pass ends in sums over devices, and parameters stay
    where they are. The result does not depend on the size or the order of the batches.

    **Arguments:**

    - `model_fn`: `(params, x) -> outputs` of one example, e.g. logits.
    - `loss`: the likelihood: `"softmax"` (integer labels, also one a position; negative ones are
        left out), `"mse"` (half the squared error), `"bernoulli"`, an `AbstractLikelihood`, or any
        object with `sample(key, outputs) -> labels` and `loss(outputs, labels) -> scalar`, the loss
        summed over positions.
    - `params`: pytree of real floating arrays.
    - `batches`: one batch, a tuple `(x, y)` with a leading axis over examples, or an iterable of
        them. `y` is needed for empirical labels; otherwise it may be None, or absent with `x` an
        array, and only tells which positions are left out. An iterator is stored, because EK-FAC
        passes over the data twice.
    - `key`: a typed key, for sampled labels.
    - `labels`: `"exact"` takes the expectation over labels of the model, by one backward pass for
        each output but one; `"sampled"` draws labels from the model, one pass; `"empirical"` takes
        the given labels (the empirical Fisher matrix, which is not the Gauss-Newton matrix).
    - `factors`: `"ekfac"`, `"kfac"`; `"diagonal"`: the Fisher diagonal of every leaf; or
        `"identity"`, which has no curvature.
    - `microbatch`: split each batch into this many parts, computed one after the other. Memory
        grows with the examples of a part times the size of the largest layer.
    - `mask`: `(x, y) -> (positions,)` of one example: which positions count in the input factors,
        in layers with as many positions. By default those of the labels that are not negative.
    - `progress`: show a progress bar, if tqdm is installed.

    **Returns:**

    A `KroneckerCurvature`: means over examples of the Fisher matrices of their losses.

    **Raises:**

    `ValueError` for an argument out of its choices, a missing `key` or missing targets, arrays that
    differ in their leading axis, no captured layer, or factors that are not finite; `TypeError` for
    a loss without the methods above.
    """
    check_choice("labels", labels, LABELS)
    check_choice("factors", factors, _FACTORS)
    check_at_least("microbatch", microbatch, 1)
    loss = as_likelihood(loss)
    if labels == "sampled" and factors != "identity" and key is None:
        raise ValueError("`key` is needed for labels='sampled', got None.")
    passes = _passes(batches)
    first = next(iter(passes()), None)
    if first is None:
        raise ValueError("`batches` must hold at least one batch, got none.")
    inputs, targets = _as_pair(first)
    _batch_size(inputs, targets)
    layers = layers_of(model_fn, params, inputs)
    if not layers.blocks and factors in ("ekfac", "kfac"):
        raise ValueError(
            "`model_fn` must have a layer that can be captured, got none; not captured: "
            f"{', '.join(layers.uncaptured)}."
        )
    leaves, treedef = jax.tree.flatten(params)
    structure = (treedef, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves))
    program = _Program(_hashable(model_fn), _hashable(loss), labels, microbatch, _hashable(mask))

    def finish(blocks: list[KroneckerBlock], leaves: dict[str, Array], count: Array):
        made = KroneckerCurvature(layers, factors, tuple(blocks), leaves, count, structure)
        _check_finite(made)
        return made

    if factors == "identity":
        matrices, rest = layers.to_matrices(params)
        ones = lambda x: jnp.ones(x.shape, at_least_float32(x))
        blocks = [
            KroneckerBlock(b, None, None, None, None, ones(v))
            for b, v in zip(layers.blocks, matrices, strict=True)
        ]
        return finish(blocks, {p: ones(x) for p, x in rest.items()}, jnp.zeros(()))

    keys = (None, None) if key is None else tuple(jax.random.split(key))
    with progress_bar(progress, "batch") as bar:
        if factors == "diagonal":
            bases = tuple((None, None) for _ in layers.blocks)
            total = _sum(program, params, passes, keys[0], bases, bar)
            blocks = [
                KroneckerBlock(b, None, None, None, None, squares / total.count)
                for b, squares in zip(layers.blocks, total.squares, strict=True)
            ]
        else:
            total = _sum(program, params, passes, keys[0], None, bar)
            blocks = _factored(layers, total, factors)
            if factors == "ekfac":
                total = _sum(program, params, passes, keys[1], _bases(blocks), bar)
                blocks = [
                    KroneckerBlock(
                        b.block,
                        b.input_factor,
                        b.output_factor,
                        b.input_basis,
                        b.output_basis,
                        squares / total.count,
                    )
                    for b, squares in zip(blocks, total.squares, strict=True)
                ]
    diagonal = {path: x / total.count for path, x in total.diagonal.items()}
    return finish(blocks, diagonal, total.count)
