"""A pytree of arrays in one file, replaced atomically.

The file is a NumPy `.npz` archive (readable with `numpy.load`): an array a leaf, and under
`"metadata"` the bytes of a JSON text: what the caller adds, and the path, shape and dtype of each
leaf. Nothing is pickled.
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


def write_arrays(path: str | os.PathLike, tree: PyTree, metadata: dict[str, Any]) -> None:
    """Write the array leaves of `tree` and `metadata` to a file, replaced only once complete.

    **Arguments:**

    - `path`: the file, overwritten if there; no suffix is added.
    - `tree`: any pytree; its arrays are numeric, of any dtype (bfloat16 and typed keys too).
    - `metadata`: what JSON can write, under other names than "leaves".
    """
    path, leaves = Path(path), array_leaves(tree)
    entries = describe(leaves)
    for entry, leaf in zip(entries, leaves.values()):
        if is_key(leaf):
            entry["key"] = str(jax.random.key_impl(leaf))
    text = json.dumps({**metadata, "leaves": entries}).encode()
    arrays = {f"leaf_{i}": _to_numpy(leaf) for i, leaf in enumerate(leaves.values())}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, metadata=np.frombuffer(text, np.uint8), **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_metadata(path: str | os.PathLike) -> dict[str, Any] | None:
    """The metadata of a file of `write_arrays`; None if the file is another one."""
    with open(path, "rb") as opened:
        if not zipfile.is_zipfile(opened):
            return None
    with np.load(path, allow_pickle=False) as file:
        return json.loads(file["metadata"].tobytes()) if "metadata" in file.files else None


def read_arrays(path: str | os.PathLike, like: PyTree) -> PyTree:
    """`like` with its arrays replaced by those of a file of `write_arrays`.

    **Arguments:**

    - `path`: the file.
    - `like`: a pytree of the structure of the written one; arrays go to the devices of its arrays.

    **Raises:** `ValueError` naming the first path, shape or dtype that differs.
    """
    leaves = array_leaves(like)
    with np.load(path, allow_pickle=False) as file:
        entries = json.loads(file["metadata"].tobytes())["leaves"]
        check_same_leaves(entries, leaves, f"the file {str(path)!r}")
        arrays = {
            name: _like(file[f"leaf_{i}"], leaf, entries[i])
            for i, (name, leaf) in enumerate(leaves.items())
        }
    return replace_array_leaves(like, arrays)
