"""The empirical neural tangent kernel of a concrete function, in tiles.

T[n, m, i, j] = sum over parameters of df_i(x_n)/dp df_j(x'_m)/dp. The three ways to compute it are
in `_contractions`; here one is chosen, and the kernel is cut into tiles of points.
"""

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._base import check_at_least, check_choice, example_structure
from .._capture import capture_layers
from ._contractions import Jacobian, layer_operations, Structured, VectorProducts
from ._parts import num_points, output_of, split_parameters


def _operations(
    sites: Any, params: PyTree, n: int, m: int, size: int, outputs: str
) -> dict[str, float]:
    """Multiplications of each method; a model, good to a small factor."""
    weights = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))
    full = outputs == "full"
    square = size**2 if full else size
    forward, structured, covered = 0.0, 0.0, 0
    for block in sites.blocks if sites else ():
        positions, (stack, fan_out, fan_in) = sum(block.positions), block.shape
        entries = stack * fan_in * fan_out
        covered += entries
        forward += positions * (stack * fan_out if block.kind == "embedding" else entries)
        pairs, matrices = layer_operations(n, m, size, positions, fan_in, fan_out, full)
        structured += stack * min(pairs, matrices)
    rest = max(weights - covered, 0)
    forward += rest
    backward = 2.0 * (n + m) * size * forward
    operations = {
        "jacobian": backward + n * m * square * weights,
        "vp": backward + 2.0 * n * m * size * forward,
    }
    if sites:
        operations["structured"] = backward + structured + n * m * square * rest
    return operations


def _memory(chosen: str, sites: Any, params: PyTree, n: int, m: int, size: int) -> float:
    """Numbers held at once by one tile; a model, good to a small factor."""
    weights = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))
    if chosen == "vp":
        return float(size * weights + n * size**2)
    if chosen == "jacobian":
        return float((n + m) * size * weights)
    numbers, covered = 0.0, 0
    for block in sites.blocks:
        positions, (stack, fan_out, fan_in) = sum(block.positions), block.shape
        covered += stack * fan_in * fan_out
        numbers += (n + m) * stack * positions * (fan_in + size * fan_out)
        if positions > 1:
            pairs, matrices = layer_operations(n, m, size, positions, fan_in, fan_out, True)
            through_pairs = n * m * positions**2 * size**2
            numbers += through_pairs if pairs < matrices else (n + m) * size * fan_in * fan_out
    return numbers + (n + m) * size * max(weights - covered, 0)


def _memory_limit() -> float:
    """Bytes of the default device, or of this machine."""
    try:
        stats = jax.devices()[0].memory_stats() or {}
        if "bytes_limit" in stats:
            return float(stats["bytes_limit"])
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError, RuntimeError):
        return float("inf")


def empirical_ntk(
    fn: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None = None,
    outputs: str = "full",
    method: str = "auto",
    batch_size: int | None = None,
) -> Float[Array, "n1 n2 ..."]:
    """The neural tangent kernel of `fn` at `params`: Jacobian times transposed Jacobian.

    Any pure function of one point will do: an Equinox module as `lambda m, x: m(x)` with the module
    as `params` (its `NonTrainable` leaves, integers and functions are left alone), Flax linen's
    `model.apply`, a split nnx model. The call is traced anew each time; put it inside `jax.jit`.

    **Arguments:**

    - `fn`: `(params, x) -> array` on one point. Real floating, any shape `out`.
    - `params`: pytree; its floating array leaves are the parameters.
    - `x1`: points stacked along the leading axis, (n1, ...); an array or a pytree of arrays.
    - `x2`: more points, (n2, ...), or `None` for `x1` again, which costs half when tiled.
    - `outputs`: "full" keeps all pairs of outputs; "diag" equal outputs only; "trace" their mean,
        (1/O) sum_i T[n, m, i, i].
    - `method`: "structured" (by layer, from captured inputs and output gradients), "vp" (products
        with the kernel, one row of a Jacobian at a time), "jacobian" (full Jacobians), or "auto",
        the one of least operations. They agree up to rounding.
    - `batch_size`: points on each side of a tile; `None` for a single tile. The memory is that of
        a tile and of the result.

    **Returns:**

    "full": (n1, n2, *out, *out). "diag": (n1, n2, *out). "trace": (n1, n2).

    **Raises:**

    `ValueError` if an option is not known, the points do not match, or a tile would not fit into
    memory; `TypeError` if `fn` does not return one real array or a parameter is complex.
    """
    check_choice("outputs", outputs, ("full", "trace", "diag"))
    check_choice("method", method, ("auto", "structured", "vp", "jacobian"))
    if batch_size is not None:
        check_at_least("batch_size", batch_size, 1)
    fn, params = split_parameters(fn, params)
    n, m = num_points("x1", x1), num_points("x1" if x2 is None else "x2", x1 if x2 is None else x2)
    out = output_of(fn, params, x1)
    if x2 is not None:
        shapes = [[leaf.shape for leaf in jax.tree.leaves(example_structure(x))] for x in (x1, x2)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"`x1` and `x2` must hold points of one shape, got {shapes[0]} and {shapes[1]}."
            )
    size = math.prod(out.shape)
    rows, columns = (min(k, batch_size or k) for k in (n, m))
    sites = None
    if method == "structured":
        sites = capture_layers(fn, params, example_structure(x1))
    elif method == "auto":
        # A parameter inside a `while` loop cannot be captured; the other methods do not mind.
        with contextlib.suppress(ValueError):
            sites = capture_layers(fn, params, example_structure(x1))
    chosen = method
    if method == "auto":
        operations = _operations(sites, params, rows, columns, size, outputs)
        chosen = min(operations, key=lambda name: operations[name])

    numbers = _memory(chosen, sites, params, rows, columns, size)
    numbers += n * m * (size**2 if outputs == "full" else size if outputs == "diag" else 1)
    needed, limit = numbers * out.dtype.itemsize, _memory_limit()
    if needed > limit:
        raise ValueError(
            f"The kernel of {n} by {m} points and {size} outputs needs about "
            f"{needed / 2**30:.1f} GiB with `method={chosen!r}` and `batch_size={batch_size}`; "
            f"there are {limit / 2**30:.1f} GiB. Give a smaller `batch_size`, "
            '`outputs="trace"`, or use `ntk_operator`.'
        )
    if chosen == "structured":
        parts = Structured(sites, params, out)
    else:
        parts = {"jacobian": Jacobian, "vp": VectorProducts}[chosen](fn, params, out)

    def tile(left_points, right_points):
        left = parts.prepare_left(left_points)
        right = left if right_points is None else parts.prepare_right(right_points)
        return parts.contract(left, right, outputs)

    if rows == n and columns == m:
        kernel = tile(x1, x2)
    elif x2 is None:
        kernel = _symmetric_tiles(tile, x1, n, rows, outputs)
    else:
        kernel = _tiles(tile, x1, x2, (n, m), (rows, columns))
    if outputs == "trace":
        return kernel / size
    return kernel.reshape(n, m, *out.shape * (2 if outputs == "full" else 1))


def _take(x: PyTree, start: Array, size: int, total: int) -> PyTree:
    """`size` points from `start` on, the last point again where there are no more."""
    index = jnp.minimum(start + jnp.arange(size), total - 1)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], x)


def _tiles(tile: Callable, x1: PyTree, x2: PyTree, totals, sizes) -> Array:
    (n, m), (rows, columns) = totals, sizes
    down, across = -(-n // rows), -(-m // columns)

    def row(i):
        left = _take(x1, i * rows, rows, n)
        return jax.lax.map(
            lambda j: tile(left, _take(x2, j * columns, columns, m)), jnp.arange(across)
        )

    blocks = jax.lax.map(row, jnp.arange(down))
    return _assemble(blocks)[:n, :m]


def _symmetric_tiles(tile: Callable, x: PyTree, n: int, rows: int, outputs: str) -> Array:
    """The tiles on and above the diagonal, and their mirror images."""
    count = -(-n // rows)
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    i, j = (jnp.asarray(index) for index in zip(*pairs, strict=True))
    blocks = jax.lax.map(
        lambda ij: tile(_take(x, ij[0] * rows, rows, n), _take(x, ij[1] * rows, rows, n)), (i, j)
    )
    mirrored = jnp.swapaxes(blocks, 1, 2)
    if outputs == "full":
        mirrored = jnp.swapaxes(mirrored, 3, 4)
    full = jnp.zeros((count, count, *blocks.shape[1:]), blocks.dtype)
    # The lower half first: a tile on the diagonal is its own mirror image up to rounding.
    full = full.at[j, i].set(mirrored).at[i, j].set(blocks)
    return _assemble(full)[:n, :n]


def _assemble(blocks: Array) -> Array:
    """(down, across, rows, columns, ...) -> (down * rows, across * columns, ...)."""
    down, across, rows, columns, *outputs = blocks.shape
    return jnp.swapaxes(blocks, 1, 2).reshape(down * rows, across * columns, *outputs)
