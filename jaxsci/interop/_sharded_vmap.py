"""`sharded_vmap`: map over a batch that is cut over devices, each device running its own loop.

`jax.vmap` of a loop has one condition for the whole batch. Over a sharded batch all devices then
agree on it, and on every choice inside the loop, once a step; an adaptive solve spends its time on
that. Here the batch is cut first and each device maps over its part alone.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._base import check_choice


def sharded_vmap(
    fn: Callable[..., Any],
    mesh: Mesh | AbstractMesh | None = None,
    axis: str = "batch",
    in_axes: int | tuple[int | None, ...] | None = 0,
    out_axes: int = 0,
) -> Callable[..., Any]:
    """Vectorise `fn` as `jax.vmap` does, over a batch cut along a mesh axis.

    The same numbers as `jax.vmap(fn)`, with the batch cut along `axis` and no communication but
    what the derivatives of unmapped arguments need (their sum over devices). Arguments that are not
    on the devices yet are put there. May be jitted and differentiated, but reverse mode through the
    default adjoint of `diffrax.diffeqsolve` fails (its checkpointed loop rejects arrays of a cut
    mesh): differentiate `jaxsci.integrate.rollout` or a scan.

    **Arguments:**

    - `fn`: a function of one sample; arguments and results are any pytrees. Leaves that are not
        arrays are passed through, and keyword arguments reach it unmapped. It must not use mesh
        axes itself; arrays that it closes over must be on one device or the same on all.
    - `mesh`: the mesh; by default the one set by `jax.set_mesh`.
    - `axis`: the mesh axis along which the batch is cut.
    - `in_axes`: the batch axis of every positional argument, or one entry an argument; None for an
        argument that all samples share.
    - `out_axes`: where results have the batch axis.

    **Returns:**

    A function of the batched arguments.

    **Raises:** `ValueError` for an unknown axis, no mapped array, batches of different sizes, or a
    batch that the devices do not divide.
    """
    if not callable(fn):
        raise TypeError(f"`fn` must be a function of one sample, got {fn!r}.")

    def mapped(*args: PyTree, **kwargs: PyTree) -> PyTree:
        used = jax.sharding.get_abstract_mesh() if mesh is None else mesh
        if used.empty:
            raise ValueError("`mesh` must be given, or set by `jax.set_mesh`.")
        check_choice("axis", axis, used.axis_names)
        axes = _axes_of_leaves(args, in_axes)
        arrays, static = eqx.partition((args, kwargs, fn), eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        # Keyword arguments and arrays held by `fn` come after the positional ones, unmapped.
        axes = (*axes, *(None,) * (len(leaves) - len(axes)))
        _check_batch(leaves, axes, axis, used.shape[axis])
        box = _Box()

        def on_sample(*leaves):
            args, kwargs, fn = eqx.combine(jax.tree.unflatten(structure, leaves), static)
            out, box.static = eqx.partition(fn(*args, **kwargs), eqx.is_array_like)
            return out

        specs = tuple(_spec(x.ndim, a, axis) for x, a in zip(leaves, axes))
        if AxisType.Explicit in used.axis_types:
            leaves = [
                jax.sharding.reshard(x, NamedSharding(used, spec)) for x, spec in zip(leaves, specs)
            ]
        on_device = jax.shard_map(
            jax.vmap(on_sample, axes),
            mesh=used,
            in_specs=specs,
            out_specs=PartitionSpec(axis),
            axis_names=frozenset((axis,)),
            check_vma=False,
        )
        # Partly manual meshes are compiled only.
        out = jax.jit(on_device)(*leaves)
        out = jax.tree.map(lambda x: jax.numpy.moveaxis(x, 0, out_axes), out)
        return eqx.combine(out, box.static)

    return mapped


class _Box:
    """Where the results that are not arrays leave the traced function."""

    static: Any = None


def _axes_of_leaves(args, in_axes):
    if isinstance(in_axes, int | None):
        in_axes = (in_axes,) * len(args)
    if len(in_axes) != len(args):
        raise ValueError(
            f"`in_axes` must have one entry a positional argument, got {in_axes} for {len(args)}."
        )
    out = []
    for arg, a in zip(args, in_axes):
        for x in jax.tree.leaves(eqx.filter(arg, eqx.is_array)):
            out.append(None if a is None else a + x.ndim if a < 0 else a)
    return out


def _check_batch(leaves, axes, axis, devices):
    for x, a in zip(leaves, axes):
        if a is not None and not 0 <= a < x.ndim:
            raise ValueError(
                f"`in_axes` must be axes of the mapped arrays, got axis {a} for shape {x.shape}."
            )
    sizes = {x.shape[a] for x, a in zip(leaves, axes) if a is not None}
    if len(sizes) != 1:
        raise ValueError(f"`in_axes` must map arrays of one batch size, got sizes {sorted(sizes)}.")
    (size,) = sizes
    if size % devices:
        raise ValueError(
            f"The batch must be a multiple of the {devices} devices along mesh axis {axis!r}, "
            f"got {size}; pad it with copies of a sample and drop the results."
        )


def _spec(ndim, position, axis):
    if position is None:
        return PartitionSpec()
    return PartitionSpec(*(axis if i == position else None for i in range(ndim)))
