"""Where the arrays of a run live: replicated beside sharded ones, and kept there."""

from typing import Any

import jax
from jaxtyping import PyTree


def _named_sharding(x: Any) -> Any:
    sharding = getattr(x, "sharding", None)
    if isinstance(sharding, jax.sharding.NamedSharding) and sharding.num_devices > 1:
        return sharding
    return None


def place(tree: PyTree, batch: PyTree) -> PyTree:
    """Replicate single-device arrays over the mesh of the sharded ones, if there are any."""
    shardings = [s for x in jax.tree.leaves((tree, batch)) if (s := _named_sharding(x)) is not None]
    if not shardings:
        return tree
    everywhere = jax.sharding.NamedSharding(shardings[0].mesh, jax.sharding.PartitionSpec())

    def one(x):
        return jax.device_put(x, everywhere) if len(x.sharding.device_set) == 1 else x

    return jax.tree.map(one, tree)


def kept_shardings(carry: PyTree) -> tuple[Any, ...]:
    """The shardings that an update keeps; on explicit mesh axes the types say so already."""

    def kept(x):
        sharding = _named_sharding(x)
        explicit = sharding is not None and any(
            kind == jax.sharding.AxisType.Explicit for kind in sharding.mesh.axis_types
        )
        return None if explicit else sharding

    return tuple(kept(x) for x in jax.tree.leaves(carry))
