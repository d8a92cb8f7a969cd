"""The array leaves of a pytree by path: what is written to files and compared when read."""

from itertools import zip_longest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def is_array(leaf: Any) -> bool:
    """Whether `leaf` is an array, of JAX, of NumPy or only described."""
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def is_key(leaf: Any) -> bool:
    """Whether `leaf` is an array of typed PRNG keys."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def array_leaves(tree: PyTree) -> dict[str, Any]:
    """The array leaves of `tree` by path, in the order of flattening."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if is_array(leaf)}


def replace_array_leaves(tree: PyTree, arrays: dict[str, Any]) -> PyTree:
    """`tree` with the array leaves at the paths of `arrays` replaced."""

    def replace(path, leaf):
        return arrays.get(jax.tree_util.keystr(path), leaf)

    return jax.tree_util.tree_map_with_path(replace, tree)


def describe(leaves: dict[str, Any]) -> list[dict[str, Any]]:
    """Path, shape and dtype of each leaf, for a JSON file."""
    return [
        {"path": path, "shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        for path, leaf in leaves.items()
    ]


def check_same_leaves(saved: list[dict[str, Any]], leaves: dict[str, Any], source: str) -> None:
    """Raise `ValueError` naming the first path at which a file and a pytree differ."""
    for there, here in zip_longest(saved, describe(leaves)):
        if there is None or here is None or there["path"] != here["path"]:
            raise ValueError(
                f"{source} does not fit: it holds {there['path'] if there else 'nothing more'} "
                f"where {here['path'] if here else 'nothing more'} is expected."
            )
        for what in ("shape", "dtype"):
            if there[what] != here[what]:
                raise ValueError(
                    f"{source} does not fit at {here['path']}: its {what} is {there[what]}, "
                    f"expected {here[what]}."
                )
