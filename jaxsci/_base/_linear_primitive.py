"""Define a linear JAX primitive that tells the partitioner how to run on shards."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
from jax._src.dispatch import prim_requires_devices_during_lowering
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def linear_primitive(
    name: str,
    *,
    local: Callable[..., Any],
    abstract: Callable[..., Any],
    transpose: Callable[..., Any],
    sharding_rule: Callable[..., str],
    partition: Callable[..., Any],
) -> Callable[..., Any]:
    """Build a one-operand linear primitive with static parameters; leading axes are batch axes.

    **Arguments:**

    - `name`: name of the primitive in a jaxpr.
    - `local`: `local(x, **params) -> y`, the computation on one device.
    - `abstract`: `abstract(aval, **params) -> aval`.
    - `transpose`: `transpose(ct, **params) -> x_bar`, written with the returned function.
    - `sharding_rule`: `sharding_rule(ndim, **params)`, the Shardy rule as an einsum-like string.
    - `partition`: `partition(mesh, spec, **params) -> (spec_in, spec_out, on_shard)` for an operand
      laid out as `spec`; `on_shard` runs on each shard and may use collectives over the mesh axes.

    **Returns:**

    `bind(x, **params) -> y`, valid under `jit`, `vmap`, forward and reverse differentiation, and on
    sharded arrays in Auto and Explicit meshes.
    """
    primitive = Primitive(name)

    def partitioned(x, **params):
        fn = custom_partitioning(lambda x: local(x, **params))

        def rule(mesh, operands, results):
            return sharding_rule(len(operands[0].shape), **params)

        def infer(mesh, arg_shapes, result_shape):
            spec = _spec(arg_shapes[0])
            _, out, _ = partition(mesh, spec, **params)
            return jax.sharding.NamedSharding(arg_shapes[0].sharding.mesh, out)

        def split(mesh, arg_shapes, result_shape):
            spec_in, spec_out, on_shard = partition(mesh, _spec(arg_shapes[0]), **params)
            named = partial(jax.sharding.NamedSharding, mesh)
            return mesh, on_shard, named(spec_out), (named(spec_in),)

        fn.def_partition(partition=split, infer_sharding_from_operands=infer, sharding_rule=rule)
        return fn(x)

    def bind(x, **params):
        return primitive.bind(x, **params)

    def batch(args, dims, **params):
        (x,), (d,) = args, dims
        return bind(jax.numpy.moveaxis(x, d, 0), **params), 0

    @cache
    def compiled(names):
        return jax.jit(partitioned, static_argnames=names)

    primitive.def_impl(lambda x, **params: compiled(tuple(params))(x, **params))
    primitive.def_abstract_eval(abstract)
    ad.deflinear2(primitive, lambda ct, x, **params: [transpose(ct, **params)])
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(
        primitive, mlir.lower_fun(partitioned, multiple_results=False), cacheable=False
    )
    # The partitioning callback needs the device list when it is lowered, and JAX looks for it only
    # if a primitive of this set is seen; there is no public way to say so.
    prim_requires_devices_during_lowering.add(primitive)
    return bind


def _spec(shape) -> tuple:
    """The partition spec of a shaped argument, padded to its rank."""
    spec = tuple(getattr(shape.sharding, "spec", ()))
    return spec + (None,) * (len(shape.shape) - len(spec))
