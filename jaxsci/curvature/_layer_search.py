"""Find where a jaxpr uses its parameters as the matrices of linear layers.

Every equation is visited once, abstractly. A value that is a strided view of one parameter leaf is
followed through relayouts, jitted calls and scans up to the products it enters ("sites"); the
output of a site is followed up to the addition of a bias. A leaf with any other use is left out as
a whole, with the reason.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn

from .._base import (
    body_of,
    equation_kind,
    EquationPath,
    is_literal,
    scan_sizes,
    use_counts,
)
from ._layer_block import LayerBlock
from ._strided import (
    Arrangement,
    cut,
    index_among,
    LeafLayout,
    merge,
    missing_pieces,
    Pieces,
    row_major,
    size_of,
    View,
)

STACK, POSITION, FEATURE = range(3)

_SAME_VALUES = frozenset(
    (
        "copy",
        "copy_p",
        "device_put",
        "name",
        "optimization_barrier",
        "pcast",
        "pvary",
        "reshard",
        "mesh_cast",
        "sharding_constraint",
        "layout_constraint",
    )
)


@dataclasses.dataclass(eq=False)
class Site:
    """One use of a view of a leaf as a matrix, at one equation.

    `inputs` takes the other operand of the equation (number `operand`) to shape (stack, positions,
    in), or (stack, positions) row numbers; `outputs` arranges its result as (stack, positions,
    out). Both are those of one step of the scans around the equation: `levels` holds for each,
    from the outside in, its length and whether it runs over the stack or over positions.
    """

    leaf: int
    path: EquationPath
    kind: str
    offset: int
    levels: tuple[Pieces | None, ...]
    lengths: tuple[int, ...]
    local_stack: Pieces
    out: Pieces
    in_: Pieces
    operand: int
    inputs: Callable[[Any], Any]
    outputs: Arrangement
    dtype: Any

    @property
    def stack(self) -> Pieces:
        scanned = [p for level in self.levels if level is not None for p in level]
        return merge([*scanned, *self.local_stack])

    @property
    def positions(self) -> int:
        steps = [n for n, level in zip(self.lengths, self.levels) if level is None]
        return math.prod(steps) * self.outputs.shape[POSITION]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of all outputs of the site, over all steps of the scans around it."""
        return size_of(self.stack), self.positions, size_of(self.out)


@dataclasses.dataclass(frozen=True)
class _Fold:
    """The addition of a view of a bias leaf to the output of a site."""

    site: Site
    offset: int
    stack: Pieces
    out: Pieces


@dataclasses.dataclass(frozen=True)
class SiteGroup:
    """Uses that make one site of a block: one for each slice of the leaf (mostly one in all).

    `transposed`: the matrix is used the other way round than elsewhere. `biased`: the bias of the
    block is added there.
    """

    sites: tuple[Site, ...]
    transposed: bool
    biased: bool


@dataclasses.dataclass(frozen=True)
class Layer:
    """A block, where its numbers come from, and how its leaves are laid out."""

    block: LayerBlock
    groups: tuple[SiteGroup, ...]
    leaf: int
    layout: LeafLayout
    bias_leaf: int | None
    bias_layout: LeafLayout | None


@dataclasses.dataclass(frozen=True)
class Found:
    """All layers of a jaxpr; `rest` are the leaves left out and why."""

    layers: tuple[Layer, ...]
    rest: dict[int, str]
    sites: dict[EquationPath, Site]
    entered: frozenset[EquationPath]


class _WhileLoop(Exception):
    def __init__(self, leaves):
        self.leaves = leaves


def find_layers(jaxpr: Jaxpr, names: list[str]) -> Found:
    """The layers among the first `len(names)` inputs of a jaxpr, the leaves of these names.

    **Raises:** `ValueError` naming the leaves that enter a `while` loop.
    """
    shapes = [_shape(x) for x in jaxpr.invars[: len(names)]]
    search = _Search()
    views: list[View | None] = [View(i, row_major(shape)) for i, shape in enumerate(shapes)]
    views += [None] * (len(jaxpr.invars) - len(views))
    try:
        out = search.walk(jaxpr, views, (), ())
    except _WhileLoop as loop:
        inside = ", ".join(names[i] for i in sorted(loop.leaves))
        raise ValueError(
            f"The leaves {inside} of `params` are used inside a `while` loop, whose uses cannot be "
            "captured; use `jax.lax.scan` or `jax.lax.fori_loop` with a fixed number of steps, or "
            "close over these leaves instead of passing them in `params`."
        ) from None
    search.give_up(out, "it is returned as it is")
    return _assemble(search, names, shapes)


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _is_leaf(view: View | None) -> bool:
    return view is not None and isinstance(view.source, int)


def _is_output(view: View | None) -> bool:
    return view is not None and isinstance(view.source, Site)


class _Search:
    """The walk over the equations, and what it has met so far."""

    def __init__(self):
        self.sites: list[Site] = []
        self.folds: dict[int, list[_Fold]] = defaultdict(list)
        self.reasons: dict[int, str] = {}

    def give_up(self, views: Sequence[View | None], reason: str) -> None:
        for view in views:
            if view is not None and isinstance(view.source, int):
                self.reasons.setdefault(view.source, reason)

    def walk(
        self,
        jaxpr: Jaxpr,
        views: Sequence[View | None],
        path: EquationPath,
        lengths: tuple[int, ...],
    ) -> list[View | None]:
        env = dict(zip(jaxpr.invars, views, strict=True))
        uses = use_counts(jaxpr)

        def read(atom):
            if is_literal(atom):
                return None
            view = env.get(atom)
            # A second use of an output would add to its cotangent what the bias does not see.
            return None if _is_output(view) and uses[atom] > 1 else view

        for index, eqn in enumerate(jaxpr.eqns):
            given = [read(x) for x in eqn.invars]
            if any(view is not None for view in given):
                out = self._visit(eqn, given, (*path, index), lengths)
                env.update(zip(eqn.outvars, out, strict=True))
        return [read(x) for x in jaxpr.outvars]

    def _visit(self, eqn, views, path, lengths) -> Sequence[View | None]:
        name, nothing = eqn.primitive.name, [None] * len(eqn.outvars)
        kind = equation_kind(eqn)
        if kind in ("call", "checkpoint"):
            return self.walk(body_of(eqn)[0], views, path, lengths)
        if kind == "scan":
            return self._scan(eqn, views, path, lengths)
        if name in ("add", "add_any"):
            return [self._add(views, _shape(eqn.outvars[0]))]
        leaves = [view for view in views if _is_leaf(view)]
        if kind == "while" and leaves:
            raise _WhileLoop({view.source for view in leaves if view is not None})
        if kind == "custom":
            self._custom(eqn, views, path, lengths)
            return nothing
        if kind in ("cond", "other"):
            what = "a conditional" if kind == "cond" else f"`{name}`"
            self.give_up(leaves, f"it is used inside {what}")
            return nothing
        if name == "convert_element_type":
            dtype = eqn.params["new_dtype"]
            if jnp.issubdtype(dtype, jnp.floating):
                return views
            if jnp.issubdtype(dtype, jnp.complexfloating):
                self.give_up(leaves, "it is cast to complex numbers")
            return nothing
        if name in _SAME_VALUES and len(views) == len(eqn.outvars):
            return views
        if name in _RELAYOUTS and views[0] is not None:
            out = _RELAYOUTS[name](views[0], eqn)
            if any(view is None for view in out):
                self.give_up(leaves, f"its matrix is not to be seen through `{name}`")
            return out
        if name == "stop_gradient" or not leaves:
            return nothing
        if name in _SITES and len(leaves) == 1:
            site = _SITES[name](eqn, views)
            if isinstance(site, dict):
                view: Any = leaves[0]
                site = Site(
                    leaf=view.source,
                    path=path,
                    offset=view.offset,
                    levels=view.levels,
                    lengths=lengths,
                    dtype=eqn.outvars[0].aval.dtype,
                    **site,
                )
                self.sites.append(site)
                return [site.outputs.view(site)]
            self.give_up(leaves, site)
            return nothing
        many = "it is multiplied by another parameter" if len(leaves) > 1 else None
        self.give_up(leaves, many or f"it is used by `{name}`")
        return nothing

    def _scan(self, eqn, views, path, lengths):
        sizes = scan_sizes(eqn)
        body, _ = body_of(eqn)
        first = sizes.consts + sizes.carry
        inner: list[View | None] = []
        outer: list[View | None] = [None] * len(eqn.outvars)
        for i, view in enumerate(views):
            if not _is_leaf(view):
                inner.append(None)
                continue
            if i < first:
                carry = i - sizes.consts
                level, axes = None, view.axes
                if carry >= 0:
                    if body.outvars[carry] is not body.invars[i]:
                        self.give_up([view], "it is changed from step to step of a scan")
                        inner.append(None)
                        continue
                    outer[carry] = view
            else:
                level, axes = view.axes[0], view.axes[1:]
                broadcast = [stride == 0 for _, stride in level]
                if all(broadcast):
                    level = None if sizes.length > 1 else ()
                elif any(broadcast):
                    self.give_up([view], "it is scanned over along a broadcast axis")
                    inner.append(None)
                    continue
            inner.append(dataclasses.replace(view, axes=axes, levels=(*view.levels, level)))
        out = self.walk(body, inner, path, (*lengths, sizes.length))
        for i, view in enumerate(out):
            if outer[i : i + 1] == [None]:
                self.give_up([view], "it is a result of a scan")
        return outer

    def _custom(self, eqn, views, path, lengths):
        """Enter a rule of its own only if there is a site in it; else it is kept whole."""
        trial = _Search()
        try:
            inside = [view if _is_leaf(view) else None for view in views]
            out = trial.walk(body_of(eqn)[0], inside, path, lengths)
            trial.give_up(out, "it is a result of a function with a derivative rule of its own")
        except _WhileLoop:
            trial = _Search()
        if trial.sites:
            self.sites += trial.sites
            for leaf, folds in trial.folds.items():
                self.folds[leaf] += folds
            for leaf, reason in trial.reasons.items():
                self.reasons.setdefault(leaf, reason)
        else:
            self.give_up(views, "it is used inside a function with a derivative rule of its own")

    def _add(self, views, shape):
        # Terms of size 1 along an axis are repeated along it.
        left, right = (view and view.broadcast_in_dim(shape, range(len(shape))) for view in views)
        if _is_leaf(left) and _is_leaf(right):
            self.give_up(views, "it is added to another parameter")
            return None
        if _is_leaf(left):
            left, right = right, left
        if _is_leaf(right):
            fold = _fold(left, right) if _is_output(left) else None
            if fold is None:
                self.give_up([right], "it is added to what is not the output of one layer")
            else:
                self.folds[right.source].append(fold)
            return left if _is_output(left) else None
        # A sum has the cotangent of its terms, so a bias may be added to it as well as to one.
        return left if _is_output(left) else right


def _fold(output: View, bias: View) -> _Fold | None:
    site = output.source
    if [level is None for level in bias.levels] != [level is None for level in site.levels]:
        return None
    if any(size_of(a) != size_of(b) for a, b in zip(bias.levels, site.levels) if a and b):
        return None
    _, positions, out = site.outputs.shape
    if math.prod(output.shape) != math.prod(site.outputs.shape):
        return None  # only a part of the output, or the output repeated
    pieces = []
    for ours, theirs in zip(output.axes, bias.axes, strict=True):
        aligned = _align(_split_at(ours, (out, positions * out)), theirs)
        if aligned is None:
            return None
        pieces += aligned
    pieces.sort(key=lambda p: -p[1])
    groups: tuple[list, list, list] = ([], [], [])
    for n, ours, theirs in pieces:
        role = FEATURE if ours < out else POSITION if ours < positions * out else STACK
        if ours == 0 or (theirs == 0) != (role == POSITION):
            return None
        groups[role].append((n, theirs))
    scanned = [p for level in bias.levels if level is not None for p in level]
    return _Fold(site, bias.offset, merge([*scanned, *groups[STACK]]), merge(groups[FEATURE]))


def _split_at(pieces, bounds):
    """Split pieces so that none reaches over one of the bounds of the stride."""
    out = []
    for n, stride in pieces:
        parts = []
        for bound in sorted(bounds, reverse=True):
            if 0 < stride < bound < n * stride and (n * stride) % bound == bound % stride == 0:
                parts.append((n * stride // bound, bound))
                n = bound // stride
        out += [*parts, (n, stride)]
    return out


def _align(ours, theirs):
    """Both index maps over common pieces: (size, our stride, their stride); None if impossible."""
    left, right = [p for p in ours if p[0] > 1], [p for p in theirs if p[0] > 1]
    out = []
    while left and right:
        n = min(left[0][0], right[0][0])
        for side in (left, right):
            size, stride = side[0]
            if size % n:
                return None
            side[0] = (size // n, stride)
        # The outer part of a piece comes first, so it is cut off with the inner size as factor.
        out.append((n, left[0][1] * left[0][0], right[0][1] * right[0][0]))
        for side in (left, right):
            if side[0][0] == 1:
                side.pop(0)
    return None if left or right else out


def _slices(view, eqn):
    axis, start, out = eqn.params["axis"], 0, []
    for size in map(int, eqn.params["sizes"]):
        out.append(_part(view, axis, start, start + size))
        start += size
    return out


def _unstack(view, eqn):
    axis = eqn.params["axis"]
    rows = [_part(view, axis, i, i + 1) for i in range(view.shape[axis])]
    return [row and row.squeeze((axis,)) for row in rows]


def _part(view, axis, start, limit):
    starts, limits = [0] * len(view.shape), list(view.shape)
    starts[axis], limits[axis] = start, limit
    return view.slice(starts, limits, None)


def _ints(values):
    # Sizes in jaxprs may be NumPy integers.
    return None if values is None else tuple(int(v) for v in values)


def _reshape(view, shape, dimensions):
    return view.reshape(shape) if dimensions is None else None


def _broadcast(view, eqn):
    shape, dimensions = _shape(eqn.outvars[0]), _ints(eqn.params["broadcast_dimensions"])
    return [view.broadcast_in_dim(shape, dimensions)]


def _one_result(method, *names):
    def relayout(view, eqn):
        return [method(view, *(_ints(eqn.params.get(name)) for name in names))]

    return relayout


_RELAYOUTS: dict[str, Callable[[View, JaxprEqn], list[View | None]]] = {
    "transpose": _one_result(View.transpose, "permutation"),
    "reshape": _one_result(_reshape, "new_sizes", "dimensions"),
    "squeeze": _one_result(View.squeeze, "dimensions"),
    "broadcast_in_dim": _broadcast,
    "slice": _one_result(View.slice, "start_indices", "limit_indices", "strides"),
    "split": _slices,
    "unstack": _unstack,
}


def _ranked(pieces, role):
    return [(n, role, (-stride,)) for n, stride in pieces]


def _sorted(pieces):
    return merge(sorted(pieces, key=lambda p: -p[1]))


def _dot_general(eqn, views):
    side = 0 if _is_leaf(views[0]) else 1
    view, x = views[side], _shape(eqn.invars[1 - side])
    contract, batch = eqn.params["dimension_numbers"]
    rank = len(view.axes)
    free = [i for i in range(rank) if i not in contract[side] and i not in batch[side]]
    if not _full(view.shape, x):
        return "it is empty"
    if any(s == 0 for i in (*contract[side], *free) for _, s in view.axes[i]):
        return "it is repeated before it is multiplied"
    in_axes = [_ranked(view.axes[i], FEATURE) for i in contract[side]]
    out_axes = [_ranked(view.axes[i], FEATURE) for i in free]
    batch_axes = [
        [
            (n, STACK, (-s,)) if s else (n, POSITION, (0, k, j))
            for j, (n, s) in enumerate(view.axes[i])
        ]
        for k, i in enumerate(batch[side])
    ]
    x_free = [i for i in range(len(x)) if i not in contract[1 - side] and i not in batch[1 - side]]
    x_axes: list[Any] = [None] * len(x)
    for i, axis in zip(contract[1 - side], in_axes):
        x_axes[i] = axis
    for i, axis in zip(batch[1 - side], batch_axes):
        x_axes[i] = axis
    position_axes = []
    for k, i in enumerate(x_free):
        x_axes[i] = [(x[i], POSITION, (1, k))]
        position_axes.append(x_axes[i])
    frees = [out_axes, position_axes] if side == 0 else [position_axes, out_axes]
    return {
        "kind": "dense",
        "local_stack": _sorted([p for i in batch[side] for p in view.axes[i] if p[1]]),
        "out": _sorted([p for i in free for p in view.axes[i]]),
        "in_": _sorted([p for i in contract[side] for p in view.axes[i]]),
        "operand": 1 - side,
        "inputs": Arrangement.of(x_axes),
        "outputs": Arrangement.of([*batch_axes, *frees[0], *frees[1]]),
    }


def _full(*shapes):
    return all(all(shape) for shape in shapes)


def _conv(eqn, views):
    view, params = views[1], eqn.params
    if view is None:
        return "it is convolved as the image"
    if params["batch_group_count"] != 1:
        return "it is used in a convolution with groups of examples"
    if not _full(view.shape, _shape(eqn.invars[0]), _shape(eqn.outvars[0])):
        return "it is empty"
    spec = params["dimension_numbers"]
    groups = params["feature_group_count"]
    out_axis, in_axis, *kernel = (view.axes[i] for i in spec.rhs_spec)
    if any(s == 0 for axis in view.axes for _, s in axis):
        return "it is repeated before it is convolved"
    grouped = cut(out_axis, (groups, size_of(out_axis) // groups))
    if grouped is None:
        return "its matrix is not to be seen through the groups of a convolution"
    group_axis, out_axis = grouped
    sizes = [size_of(axis) for axis in kernel]
    out_shape = [_shape(eqn.outvars[0])[i] for i in spec.out_spec]
    windows = [
        np.arange(n)[:, None] * stride + np.arange(k)[None] * dilation
        for n, k, stride, dilation in zip(
            out_shape[2:], sizes, params["window_strides"], params["rhs_dilation"]
        )
    ]
    padding = [(0, 0, 0), (0, 0, 0)] + [
        (lo, hi, dilation - 1)
        for (lo, hi), dilation in zip(params["padding"], params["lhs_dilation"])
    ]
    images = [(out_shape[0], POSITION, (0,))]
    pixels = [[(n, POSITION, (1, i))] for i, n in enumerate(out_shape[2:])]
    channels = [*_ranked(group_axis, STACK), *_ranked(in_axis, FEATURE)]
    arrange = Arrangement.of(
        [
            images,
            channels,
            *(a for p, k in zip(pixels, kernel) for a in (p, _ranked(k, FEATURE))),
        ]
    )

    def inputs(x):
        x = jnp.transpose(x, spec.lhs_spec)
        x = lax.pad(x, jnp.zeros((), x.dtype), padding)
        for i, window in enumerate(windows):
            x = jnp.take(x, window, axis=2 + 2 * i)
        return arrange(x)

    y_axes: list[Any] = [None] * len(spec.out_spec)
    features = [*_ranked(group_axis, STACK), *_ranked(out_axis, FEATURE)]
    for i, axis in zip(spec.out_spec, [images, features, *pixels]):
        y_axes[i] = axis
    return {
        "kind": "conv",
        "local_stack": _sorted(group_axis),
        "out": _sorted(out_axis),
        "in_": _sorted([p for axis in (in_axis, *kernel) for p in axis]),
        "operand": 0,
        "inputs": inputs,
        "outputs": Arrangement.of(y_axes),
    }


_NO_TABLE = "it is indexed, but not as a table of rows"


def _gather(eqn, views):
    view, params = views[0], eqn.params
    numbers = params["dimension_numbers"]
    if view is None or len(view.axes) != 2 or numbers.operand_batching_dims:
        return _NO_TABLE
    collapsed, mapped = tuple(numbers.collapsed_slice_dims), tuple(numbers.start_index_map)
    fills = params["mode"] == lax.GatherScatterMode.FILL_OR_DROP
    axes = [
        i
        for i in mapped
        if collapsed in ((i,), ())
        and params["slice_sizes"][i] == 1
        and params["slice_sizes"][1 - i] == view.shape[1 - i]
        # A start along the other axis does nothing, unless it may be out of range.
        and (len(mapped) == 1 or not fills)
    ]
    if not axes or not _full(view.shape, _shape(eqn.invars[1])) or not _is_table(view, axes[0]):
        return _NO_TABLE
    axis = axes[0]
    rows, column = view.shape[axis], mapped.index(axis)

    def inputs(index):
        index = jnp.reshape(index[..., column], (1, -1))
        if not fills:
            return jnp.clip(index, 0, rows - 1)
        return jnp.where((index < 0) | (index >= rows), rows, index)

    y_axes: list[Any] = [[(n, POSITION, (i,))] for i, n in enumerate(_shape(eqn.outvars[0]))]
    kept = [i for i in range(2) if i not in collapsed]
    for i, dimension in zip(kept, numbers.offset_dims, strict=True):
        y_axes[dimension] = [] if i == axis else _ranked(view.axes[i], FEATURE)
    return _table(view, axis, 1, inputs, y_axes)


def _dynamic_slice(eqn, views):
    view, sizes = views[0], eqn.params["slice_sizes"]
    if view is None or len(sizes) != 2 or not _full(view.shape):
        return _NO_TABLE
    axes = [i for i, n in enumerate(sizes) if n != view.shape[i]]
    if len(axes) != 1 or sizes[axes[0]] != 1 or not _is_table(view, axes[0]):
        return _NO_TABLE
    (axis,) = axes
    last = view.shape[axis] - 1
    y_axes: list[Any] = [[], []]
    y_axes[1 - axis] = _ranked(view.axes[1 - axis], FEATURE)

    def inputs(index):
        return jnp.reshape(jnp.clip(index, 0, last), (1, 1))

    return _table(view, axis, 1 + axis, inputs, y_axes)


def _is_table(view, axis):
    return all(s for a in view.axes for _, s in a) and len(merge(view.axes[axis])) <= 1


def _table(view, axis, operand, inputs, y_axes):
    return {
        "kind": "embedding",
        "local_stack": (),
        "out": _sorted(view.axes[1 - axis]),
        "in_": merge(view.axes[axis]),
        "operand": operand,
        "inputs": inputs,
        "outputs": Arrangement.of(y_axes),
    }


_SITES: dict[str, Callable[[JaxprEqn, Sequence[View | None]], dict[str, Any] | str]] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
}


def _assemble(search: _Search, names: list[str], shapes: Sequence[tuple[int, ...]]) -> Found:
    """Blocks from all sites and folds, once it is known which leaves have no other use."""
    reasons = dict(search.reasons)
    by_leaf: dict[int, list[Site]] = defaultdict(list)
    for site in search.sites:
        by_leaf[site.leaf].append(site)
    weights = {}
    for leaf, sites in by_leaf.items():
        if search.folds[leaf]:
            reasons.setdefault(leaf, "it is a matrix in one place and a bias in another")
        if leaf not in reasons:
            built = _weight(shapes[leaf], sites)
            if isinstance(built, str):
                reasons[leaf] = built
            else:
                weights[leaf] = built
    biases: dict[int, tuple[int, LeafLayout, set[Site]]] = {}
    for leaf, folds in search.folds.items():
        if folds and leaf not in reasons:
            built = _bias(shapes[leaf], folds, weights)
            if isinstance(built, str):
                reasons[leaf] = built
            elif built[0] in biases:
                reasons[leaf] = "the layer that it is added to has another bias already"
            else:
                biases[built[0]] = (leaf, *built[1:])
    layers = []
    for leaf in sorted(weights):
        layout, groups, _ = weights[leaf]
        bias_leaf, bias_layout, biased = biases.get(leaf, (None, None, set()))
        groups = tuple(
            dataclasses.replace(group, biased=group.sites[0] in biased) for group in groups
        )
        sites = groups[0].sites
        in_features = size_of(layout.in_)
        block = LayerBlock(
            path=names[leaf],
            bias_path=None if bias_leaf is None else names[bias_leaf],
            kind=_kind(groups),
            stack=size_of(layout.stack),
            in_features=in_features,
            out_features=size_of(layout.out),
            positions=tuple(
                in_features if is_expanded(_kind(groups), group) else group.sites[0].positions
                for group in groups
            ),
        )
        layers.append(Layer(block, groups, leaf, layout, bias_leaf, bias_layout))
    used = {site.path: site for layer in layers for g in layer.groups for site in g.sites}
    captured = set(weights) | {leaf for leaf, _, _ in biases.values()}
    rest = {i: reasons.get(i, "it is not used") for i in range(len(names)) if i not in captured}
    entered = frozenset(path[:n] for path in used for n in range(1, len(path)))
    return Found(tuple(layers), rest, used, entered)


def _kind(groups: Sequence[SiteGroup]) -> str:
    kinds = [group.sites[0].kind for group in groups]
    return "embedding" if "embedding" in kinds else kinds[0]


def is_expanded(kind: str, group: SiteGroup) -> bool:
    """Whether a site enters as its whole gradient matrix, one position for each input coordinate.

    So does a site whose inputs are another's outputs (a matrix that is used both ways), and a
    product with the table of an embedding.
    """
    return group.transposed or (kind == "embedding") != (group.sites[0].kind == "embedding")


def _weight(shape, sites):
    size = math.prod(shape)
    ways = [(site.out, site.in_) for site in sites]
    tables = [way for site, way in zip(sites, ways) if site.kind == "embedding"]
    way = max(tables or ways, key=ways.count)
    missing = missing_pieces(size, [*sites[0].stack, *way[0], *way[1]])
    if missing is None:
        return "only a part of it is used"
    count = size_of(missing)
    slices: list[list[Site]] = [[] for _ in range(count)]
    for site, its_way in zip(sites, ways):
        index = index_among(missing, site.offset)
        same = its_way == way or its_way == way[::-1]
        if not same or site.stack != sites[0].stack or index is None:
            return "its uses see matrices of different shapes"
        slices[index].append(site)
    groups = []
    if len({len(s) for s in slices}) > 1:
        return "its slices are not all used alike"
    for group in zip(*slices):
        alike = {(s.kind, s.positions, (s.out, s.in_) == way) for s in group}
        if len(alike) > 1:
            return "its slices are not all used alike"
        groups.append(SiteGroup(group, (group[0].out, group[0].in_) != way, False))
    layout = LeafLayout(shape, merge([*missing, *sites[0].stack]), *way)
    return layout, groups, missing


def _bias(shape, folds, weights):
    leaf = folds[0].site.leaf
    if leaf not in weights or any(fold.site.leaf != leaf for fold in folds):
        return "it is added to more than one layer, or to one that is not captured"
    layout, groups, slices_of_weight = weights[leaf]
    sites = {fold.site for fold in folds}
    first = folds[0]
    slices = missing_pieces(math.prod(shape), [*first.stack, *first.out])
    if slices is None or len(sites) != len(folds):
        return "it is added more than once, or only in part"
    for fold in folds:
        if (fold.stack, fold.out) != (first.stack, first.out) or index_among(
            slices, fold.offset
        ) != index_among(slices_of_weight, fold.site.offset):
            return "it is added in different shapes"
    bias = LeafLayout(shape, merge([*slices, *first.stack]), first.out, ())
    if (size_of(bias.stack), size_of(bias.out)) != (size_of(layout.stack), size_of(layout.out)):
        return "it is shared by matrices that are captured apart"
    for group in groups:
        if len({site in sites for site in group.sites}) > 1:
            return "it is added to some slices of the layer alone"
        if group.sites[0] in sites and (group.transposed or _kind(groups) == "embedding"):
            return "it is added to an embedding, or to a matrix that is used both ways"
    return leaf, bias, sites
