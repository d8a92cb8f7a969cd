"""Capture the inputs and output gradients of linear layers in any JAX function.

A weight W that is used as s = W abar at some positions (abar the inputs, with a 1 for the bias) has
the gradient

    dL/dW = sum over positions of delta abar^T,    delta = dL/ds,

and its Kronecker-factored curvature (Martens and Grosse 2015, "Optimizing neural networks with
Kronecker-factored approximate curvature") needs abar and delta apart. They are read from the jaxpr
of the function: the other operand of each product with a parameter is abar, and the gradient with
respect to a zero that is added to its result is delta. No special layers, no tags.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Jaxpr
from jaxtyping import Array, PyTree

from .._base import (
    bind,
    body_of,
    equation_kind,
    EquationPath,
    evaluate,
    scan_sizes,
    trace,
    traceable_leaves,
)
from ._layer_block import LayerBlock
from ._layer_search import find_layers, Found, is_expanded, Layer, Site

Blockwise = tuple[tuple[Array, ...], ...]
Matrices = tuple[Array, ...]


def capture_layers(fn: Callable[..., PyTree], params: PyTree, *args: PyTree) -> "LayerSites":
    """Find the linear layers in a function of parameters.

    The function is traced and read, not run: every matrix product, convolution or table look-up of
    a parameter is found, whatever transposes, reshapes, casts or slices the parameter first,
    through `jax.jit`, `jax.checkpoint` and `jax.lax.scan` (over stacked layers as well as over time
    with shared weights), and with it a bias that is added to the result. Parameters with any other
    use (scales of normalisations, biases without a layer, ...) are listed as not captured, with
    the reason.

    ??? cite

        Martens and Grosse 2015, arXiv:1503.05671; Grosse et al. 2023, arXiv:2308.03296.

    **Arguments:**

    - `fn`: `fn(params, *args)` on one example, any pytree of arrays (outputs of a model, or a
        loss). Batch with `jax.vmap` around the methods of the result.
    - `params`: pytree of real floating arrays; `eqx.filter(model, eqx.is_inexact_array)` of a
        module, say. Traced or only described arrays will do.
    - `args`: pytrees of arrays, of the shapes of one example; traced or only described will do.

    **Returns:** a [`jaxsci.curvature.LayerSites`][].

    **Raises:**

    `TypeError` for parameters that are not real floating arrays, `ValueError` naming parameters
    that are used inside a `while` loop.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    described = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            complex_ = dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating)
            what = f"shape {leaf.shape} and dtype {dtype}" if dtype is not None else repr(leaf)
            raise TypeError(
                f"`params` must hold real floating arrays only, got {what} at {name!r}; "
                + (
                    "store the real and imaginary parts as two real arrays."
                    if complex_
                    else "leave other leaves out, e.g. by `eqx.partition`."
                )
            )
        described.append(_Leaf(name, tuple(leaf.shape), np.dtype(dtype)))
    closed, _ = trace(fn, params, *args)
    found = find_layers(closed.jaxpr, [leaf.path for leaf in described])
    return LayerSites(
        blocks=tuple(layer.block for layer in found.layers),
        reasons={described[i].path: reason for i, reason in found.rest.items()},
        _fn=fn,
        _leaves=tuple(described),
        _treedef=treedef,
        _layers=found.layers,
    )


@dataclasses.dataclass(frozen=True)
class _Leaf:
    path: str
    shape: tuple[int, ...]
    dtype: Any


@dataclasses.dataclass(frozen=True, eq=False)
class LayerSites:
    """The linear layers of a function, and how to get their inputs and output gradients.

    Made by [`jaxsci.curvature.capture_layers`][]; it holds no arrays, is hashable, and may be a
    static argument or field. Its methods may be jitted, and mapped over examples by `jax.vmap`.
    Numbers come as tuples over `blocks`, of tuples over the sites of a block.

    A matrix that is used both ways (W x in one place, W^T x in another) has one orientation; uses
    in the other one enter as their whole gradient matrix, with one position for each input
    coordinate, a unit vector. So does a product with the table of an embedding.

    **Fields:**

    - `blocks`: a [`jaxsci.curvature.LayerBlock`][] for each captured weight.
    - `reasons`: for each leaf that is not captured, by path, why.
    """

    blocks: tuple[LayerBlock, ...]
    reasons: dict[str, str]
    _fn: Callable[..., PyTree]
    _leaves: tuple[_Leaf, ...]
    _treedef: Any
    _layers: tuple[Layer, ...]

    @property
    def uncaptured(self) -> tuple[str, ...]:
        """Paths of the leaves of the parameters that are not captured."""
        return tuple(self.reasons)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LayerSites)
            and self._fn is other._fn
            and self._treedef == other._treedef
            and (self.blocks, self._leaves, self.reasons)
            == (other.blocks, other._leaves, other.reasons)
        )

    def __hash__(self) -> int:
        return hash((id(self._fn), self.blocks, self._leaves))

    def __repr__(self) -> str:
        rows = [["layer", "bias", "kind", "stack", "in", "out", "positions"]]
        for b in self.blocks:
            sizes = (b.stack, b.in_features, b.out_features, "+".join(map(str, b.positions)))
            rows.append([b.path, b.bias_path or "-", b.kind, *map(str, sizes)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths)).rstrip() for row in rows]
        if self.reasons:
            lines += ["not captured:"]
            lines += [f"  {path}: {reason}" for path, reason in self.reasons.items()]
        return "\n".join(lines)

    def record(self, params: PyTree, *args: PyTree) -> tuple[PyTree, Blockwise]:
        """Run the function and keep the inputs of its layers.

        **Arguments:**

        - `params`, `args`: as in `capture_layers`; the arrays of `args` may have other sizes as
            long as the layers stay the same.

        **Returns:**

        The outputs, and the inputs: for each site an array of shape `(stack, positions, in)`, its
        last coordinate 1 if the block has a bias (0 at a site without); for an embedding row
        numbers of shape `(stack, positions)`, equal to the number of rows where the look-up was
        out of range.
        """
        program = self._trace(params, *args)
        outputs, recorded = program.run({}, dict(enumerate(program.values[: len(self._leaves)])))
        return outputs, program.inputs(recorded)

    def vjp(
        self, params: PyTree, *args: PyTree
    ) -> tuple[PyTree, Blockwise, Callable[[PyTree], tuple[Blockwise, dict[str, Array]]]]:
        """Run the function, keep the inputs of its layers, and prepare the backward pass.

        **Arguments:**

        - `params`, `args`: as for `record`.

        **Returns:**

        The outputs, the inputs as from `record`, and `pullback(cotangent of the outputs) ->
        (deltas, rest)`: for each site the cotangents of its outputs, shape `(stack, positions,
        out)`, and the gradients of the leaves that are not captured, by path. `pullback` may be
        mapped over cotangents.
        """
        program = self._trace(params, *args)
        zeros = {
            path: jnp.zeros(site.shape, site.dtype) for path, site in program.found.sites.items()
        }
        leaves = dict(enumerate(program.values[: len(self._leaves)]))
        rest = {i: leaves[i] for i in program.found.rest}

        def run(zeros, rest):
            return program.run(zeros, {**leaves, **rest})

        outputs, pull, recorded = jax.vjp(run, zeros, rest, has_aux=True)

        def pullback(cotangent: PyTree) -> tuple[Blockwise, dict[str, Array]]:
            at_sites, of_rest = pull(cotangent)
            named = {self._leaves[i].path: x for i, x in of_rest.items()}
            return program.deltas(recorded, at_sites), named

        return outputs, program.inputs(recorded), pullback

    def gradients(self, inputs: Blockwise, deltas: Blockwise) -> Matrices:
        """The gradient matrices, shape `(stack, out, in)` (with the bias as last column).

        **Arguments:**

        - `inputs`, `deltas`: as from `vjp` and its pullback.
        """
        return tuple(b.gradient(a, d) for b, a, d in zip(self.blocks, inputs, deltas, strict=True))

    def to_matrices(self, tree: PyTree) -> tuple[Matrices, dict[str, Array]]:
        """Sort a pytree like the parameters (a gradient, a vector) into matrices.

        **Arguments:**

        - `tree`: pytree with the structure and shapes of the parameters.

        **Returns:** a matrix stack `(stack, out, in)` for each block, and the other leaves by path.
        """
        leaves, treedef = jax.tree.flatten(tree)
        if treedef != self._treedef:
            raise ValueError(
                f"`tree` must have the structure of `params`, {self._treedef}, got {treedef}."
            )
        for leaf, like in zip(leaves, self._leaves):
            if jnp.shape(leaf) != like.shape:
                raise ValueError(
                    f"`tree` must have the shapes of `params`, got {jnp.shape(leaf)} instead of "
                    f"{like.shape} at {like.path!r}."
                )
        matrices = []
        for layer in self._layers:
            matrix = layer.layout.to_matrices(leaves[layer.leaf])
            if layer.bias_leaf is not None and layer.bias_layout is not None:
                bias = layer.bias_layout.to_matrices(leaves[layer.bias_leaf])
                matrix = jnp.concatenate([matrix, bias], axis=-1)
            matrices.append(matrix)
        paths = {leaf.path: x for leaf, x in zip(self._leaves, leaves)}
        return tuple(matrices), {path: paths[path] for path in self.uncaptured}

    def from_matrices(self, matrices: Sequence[Array], rest: dict[str, Array]) -> PyTree:
        """The inverse of `to_matrices`, in the dtypes of the parameters.

        **Arguments:**

        - `matrices`: a matrix stack `(stack, out, in)` for each block.
        - `rest`: the leaves that are not captured, by path.

        **Returns:** a pytree like the parameters.
        """
        if set(rest) != set(self.reasons):
            raise ValueError(
                f"`rest` must hold the leaves {sorted(self.reasons)}, got {sorted(rest)}."
            )
        leaves: dict[int, Any] = {}
        for layer, matrix in zip(self._layers, matrices, strict=True):
            if matrix.shape != layer.block.shape:
                raise ValueError(
                    f"`matrices` must have shape {layer.block.shape} for {layer.block.path!r}, got "
                    f"{matrix.shape}."
                )
            n = layer.block.in_features
            leaves[layer.leaf] = layer.layout.from_matrices(matrix[..., :n])
            if layer.bias_leaf is not None and layer.bias_layout is not None:
                leaves[layer.bias_leaf] = layer.bias_layout.from_matrices(matrix[..., n:])
        out = [
            jnp.asarray(rest[like.path] if like.path in rest else leaves[i], like.dtype)
            for i, like in enumerate(self._leaves)
        ]
        return jax.tree.unflatten(self._treedef, out)

    def check(self, params: PyTree, *args: PyTree, rtol: float | None = None) -> None:
        """Compare the gradient that is put together from inputs and deltas with `jax.grad`.

        The outputs are contracted with fixed random numbers. Not to be called in compiled code.

        **Arguments:**

        - `params`, `args`: as for `record`, concrete.
        - `rtol`: allowed difference, relative to the largest entry of the gradient of each leaf; by
            default 3e4 times the machine epsilon of the outputs or the leaf, whichever is coarser.

        **Raises:** `ValueError` naming the leaf whose gradient differs most.
        """
        outputs, inputs, pullback = self.vjp(params, *args)
        leaves, treedef = jax.tree.flatten(outputs)
        keys = jax.random.split(jax.random.key(0), max(len(leaves), 1))
        weights = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves)]
        weights = jax.tree.unflatten(treedef, weights)
        deltas, rest = pullback(weights)
        rebuilt = self.from_matrices(self.gradients(inputs, deltas), rest)
        (reference,) = jax.vjp(lambda p: self._fn(p, *args), params)[1](weights)
        coarsest = max([float(jnp.finfo(x.dtype).eps) for x in leaves], default=0.0)
        worst = (0.0, "", 0.0)
        for leaf, a, b in zip(self._leaves, jax.tree.leaves(rebuilt), jax.tree.leaves(reference)):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            allowed = rtol
            if allowed is None:
                allowed = 3e4 * max(coarsest, float(jnp.finfo(leaf.dtype).eps))
            scale = np.max(np.abs(b), initial=0.0)
            error = np.max(np.abs(a - b), initial=0.0)
            excess = error / (allowed * scale) if scale > 0 else float(error > 0) * np.inf
            if not np.isfinite(error) or excess > max(worst[0], 1.0):
                worst = (excess, leaf.path, error / max(scale, np.finfo(float).tiny))
        if worst[1]:
            raise ValueError(
                f"The captured gradient of {worst[1]!r} differs from that of `jax.grad` by "
                f"{worst[2]:.1e} of its largest entry. A likely reason is a layer in a function "
                "with a derivative rule of its own, which is not seen."
            )

    def _trace(self, params: PyTree, *args: PyTree) -> "_Program":
        given = jax.tree.structure(params)
        if given != self._treedef:
            raise ValueError(
                f"`params` must have the structure at capture, {self._treedef}, got {given}."
            )
        closed, out = trace(self._fn, params, *args)
        found = find_layers(closed.jaxpr, [leaf.path for leaf in self._leaves])
        for now, then in zip(found.layers, self._layers):
            if dataclasses.replace(now.block, positions=then.block.positions) != then.block:
                break
        else:
            if len(found.layers) == len(self._layers):
                values = traceable_leaves(params, *args)
                return _Program(closed.jaxpr, closed.consts, values, found, jax.tree.structure(out))
        raise ValueError(
            "The function uses its parameters in another way on these arguments than on those at "
            "capture; capture its layers again."
        )


@dataclasses.dataclass(frozen=True)
class _Program:
    """A traced call: its jaxpr, the values of its inputs, and the layers in it."""

    jaxpr: Jaxpr
    consts: Sequence[Any]
    values: list[Any]
    found: Found
    out_tree: Any

    def run(self, zeros: dict[EquationPath, Any], leaves: dict[int, Any]) -> tuple[PyTree, dict]:
        """The outputs, with `zeros` added to those of the sites, and the recorded inputs."""
        values = [leaves.get(i, x) for i, x in enumerate(self.values)]
        out, recorded = _run(self.found, self.jaxpr, self.consts, values, zeros, (), 0)
        return jax.tree.unflatten(self.out_tree, out), recorded

    def inputs(self, recorded: dict[EquationPath, Any]) -> Blockwise:
        return tuple(
            tuple(
                _expanded_inputs(layer)
                if is_expanded(layer.block.kind, group)
                else _with_bias(layer, group, _joined(recorded, group.sites))
                for group in layer.groups
            )
            for layer in self.found.layers
        )

    def deltas(
        self, recorded: dict[EquationPath, Any], at_sites: dict[EquationPath, Any]
    ) -> Blockwise:
        return tuple(
            tuple(
                _expanded_deltas(layer, group, recorded, at_sites)
                if is_expanded(layer.block.kind, group)
                else _joined(at_sites, group.sites)
                for group in layer.groups
            )
            for layer in self.found.layers
        )


def _joined(values, sites):
    parts = [values[site.path] for site in sites]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _with_bias(layer, group, inputs):
    if not layer.block.has_bias:
        return inputs
    last = jnp.full((*inputs.shape[:-1], 1), float(group.biased), inputs.dtype)
    return jnp.concatenate([inputs, last], axis=-1)


def _expanded_inputs(layer):
    block = layer.block
    if block.kind == "embedding":
        rows = jnp.arange(block.in_features)
        return jnp.broadcast_to(rows, (block.stack, block.in_features))
    dtype = layer.groups[0].sites[0].dtype
    unit = jnp.eye(block.in_features, block.shape[2], dtype=dtype)
    return jnp.broadcast_to(unit, (block.stack, *unit.shape))


def _expanded_deltas(layer, group, recorded, at_sites):
    a, d = _joined(recorded, group.sites), _joined(at_sites, group.sites)
    return (
        jnp.einsum("sto,sti->sio", a, d) if group.transposed else jnp.einsum("sti,sto->sio", a, d)
    )


def _run(found, jaxpr, consts, values, zeros, path, depth):
    """Run a jaxpr around sites; only what holds a site is opened."""
    recorded = {}

    def rule(eqn, inputs, path):
        if path in found.sites:
            site: Site = found.sites[path]
            recorded[path] = site.inputs(inputs[site.operand])
            (out,) = bind(eqn, inputs)
            zero = zeros.get(path)
            return [out if zero is None else out + site.outputs.inverse(zero)]
        if path not in found.entered:
            return None
        inside = {p: z for p, z in zeros.items() if p[: len(path)] == path}
        kind = equation_kind(eqn)
        body, body_consts = body_of(eqn)
        if kind == "scan":
            out, inner = _run_scan(found, eqn, inputs, inside, path, depth)
        else:

            def call(inputs, inside):
                return _run(found, body, body_consts, inputs, inside, path, depth)

            if kind == "checkpoint":
                options = {k: eqn.params[k] for k in ("policy", "prevent_cse") if k in eqn.params}
                call = jax.checkpoint(call, **options)
            out, inner = call(inputs, inside)
        recorded.update(inner)
        return out

    return evaluate(jaxpr, consts, values, rule, path), recorded


def _run_scan(found, eqn, inputs, zeros, path, depth):
    sizes = scan_sizes(eqn)
    body, body_consts = body_of(eqn)
    first = sizes.consts + sizes.carry
    consts, init, xs = inputs[: sizes.consts], inputs[sizes.consts : first], inputs[first:]

    def step(carry, scanned):
        xs, zeros = scanned
        values = [*consts, *carry, *xs]
        out, recorded = _run(found, body, body_consts, values, zeros, path, depth + 1)
        return out[: sizes.carry], (out[sizes.carry :], recorded)

    def is_stack(path):
        return found.sites[path].levels[depth] is not None

    zeros = {p: _cut_steps(z, sizes.length, is_stack(p)) for p, z in zeros.items()}
    carry, (ys, recorded) = lax.scan(
        step,
        init,
        (xs, zeros),
        length=sizes.length,
        reverse=eqn.params["reverse"],
        unroll=eqn.params["unroll"],
    )
    return [*carry, *ys], {p: _join_steps(a, is_stack(p)) for p, a in recorded.items()}


def _cut_steps(x, length, is_stack):
    """Move the steps of a scan out of (stack, positions, ...) to the front."""
    stack, positions = x.shape[:2]
    if is_stack:
        return jnp.reshape(x, (length, stack // length, *x.shape[1:]))
    x = jnp.reshape(x, (stack, length, positions // length, *x.shape[2:]))
    return jnp.moveaxis(x, 1, 0)


def _join_steps(x, is_stack):
    """Move the steps of a scan from the front into (stack, positions, ...)."""
    length, stack, positions = x.shape[:3]
    if is_stack:
        return jnp.reshape(x, (length * stack, *x.shape[2:]))
    return jnp.reshape(jnp.moveaxis(x, 0, 1), (stack, length * positions, *x.shape[3:]))
