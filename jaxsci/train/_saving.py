"""`save` and `load`: one model, one file, no further dependency.

The file is a NumPy `.npz` archive (readable with `numpy.load`): an array a leaf, and under
`"metadata"` the bytes of a JSON text with the path, shape and dtype of each. Nothing is pickled.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._leaves import array_leaves, check_same_leaves, describe, is_key, replace_array_leaves

_FORMAT = 1


def _to_numpy(leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    # NumPy files know only NumPy's own dtypes: bfloat16 and the 8-bit floats are kept as bits.
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _like(array: np.ndarray, like: Any, entry: dict[str, Any]) -> Any:
    if is_key(like):
        leaf = jax.random.wrap_key_data(jnp.asarray(array), impl=entry["key"])
    elif isinstance(like, np.ndarray):
        return array.view(like.dtype)
    else:
        leaf = jnp.asarray(array.view(like.dtype))
    sharding = like.sharding if getattr(like, "committed", True) else None
    return leaf if sharding is None else jax.device_put(leaf, sharding)


def save(path: str | os.PathLike, model: PyTree) -> None:
    """Write the array leaves of `model` to a file, which is replaced only once complete.

    Leaves that are no arrays (functions, strings, Python numbers) are not written: `load` takes
    them from its `like`.

    **Arguments:**

    - `path`: the file, overwritten if there; no suffix is added.
    - `model`: any pytree; its arrays may have any dtype (bfloat16 and typed keys too).

    **Raises:**

    - `TypeError`: an array is not numeric.
    """
    path, leaves = Path(path), array_leaves(model)
    entries = describe(leaves)
    for entry, (name, leaf) in zip(entries, leaves.items()):
        if is_key(leaf):
            entry["key"] = str(jax.random.key_impl(leaf))
        elif isinstance(leaf, jax.ShapeDtypeStruct) or leaf.dtype.hasobject:
            raise TypeError(f"`model` must have numeric arrays, got {leaf!r} at {name}.")
    metadata = json.dumps({"format": _FORMAT, "leaves": entries}).encode()
    arrays = {f"leaf_{i}": _to_numpy(leaf) for i, leaf in enumerate(leaves.values())}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, metadata=np.frombuffer(metadata, np.uint8), **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike, like: PyTree) -> PyTree:
    """Read a model written by [`save`][jaxsci.train.save].

    **Arguments:**

    - `path`: the file.
    - `like`: a pytree of the structure of the saved one: a freshly built model, or its
        `eqx.filter_eval_shape`. Arrays go to the devices of its arrays.

    **Returns:**

    `like` with its arrays replaced.

    **Raises:**

    - `ValueError`: the file is not one of `save`, or differs from `like` in a path, shape or dtype;
        the first difference is named.
    """
    leaves = array_leaves(like)
    with open(path, "rb") as opened:
        is_archive = zipfile.is_zipfile(opened)
    if not is_archive:
        raise ValueError(f"`path` must be a file written by `save`, got {str(path)!r}.")
    with np.load(path, allow_pickle=False) as file:
        if "metadata" not in file.files:
            raise ValueError(f"`path` must be a file written by `save`, got {str(path)!r}.")
        metadata = json.loads(file["metadata"].tobytes())
        if metadata["format"] != _FORMAT:
            raise ValueError(
                f"`path` must have format {_FORMAT}, got {metadata['format']} in {str(path)!r}."
            )
        check_same_leaves(metadata["leaves"], leaves, f"the file {str(path)!r}")
        arrays = {
            name: _like(file[f"leaf_{i}"], leaf, metadata["leaves"][i])
            for i, (name, leaf) in enumerate(leaves.items())
        }
    return replace_array_leaves(like, arrays)
