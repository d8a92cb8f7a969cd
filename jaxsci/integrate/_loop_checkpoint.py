"""Checkpoints of a solve in one file, replaced atomically."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

_CONFIGURATION = "configuration"


def save_checkpoint(path: Path, tree: PyTree, configuration: dict[str, Any]) -> None:
    """Write the array leaves of `tree` by path, and the configuration as JSON, to an npz file.

    The file is written beside its place and then renamed, so that a crash leaves the old one.
    """
    arrays = {name: _to_numpy(leaf) for name, leaf in _array_leaves(tree).items()}
    text = np.frombuffer(json.dumps(configuration).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".partial")
    with open(scratch, "wb") as file:
        np.savez(file, **{_CONFIGURATION: text}, **arrays)  # pyright: ignore[reportArgumentType]
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def load_checkpoint(path: Path, tree: PyTree, configuration: dict[str, Any]) -> PyTree:
    """`tree` with its array leaves from the file.

    **Raises:** `ValueError` naming what differs if the file is of another solve.
    """
    with np.load(path, allow_pickle=False) as file:
        saved = json.loads(bytes(file[_CONFIGURATION]).decode())
        arrays = {name: file[name] for name in file.files if name != _CONFIGURATION}
    for name, value in configuration.items():
        if saved.get(name) != value:
            raise ValueError(
                f"The checkpoint {path} is of another solve: its {name} differs. Delete it to "
                "start from the beginning."
            )
    expected = _array_leaves(tree)
    if set(arrays) != set(expected):
        raise ValueError(
            f"The checkpoint {path} is of another solve: it holds "
            f"{sorted(set(arrays) ^ set(expected))} too many or too few."
        )

    def restore(key_path, leaf):
        if not eqx.is_array(leaf):
            return leaf
        value = _like(arrays[jax.tree_util.keystr(key_path)], leaf)
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise ValueError(
                f"The checkpoint {path} is of another solve: {jax.tree_util.keystr(key_path)} is "
                f"{value.dtype}{value.shape} instead of {leaf.dtype}{leaf.shape}."
            )
        # To where the leaf of a fresh start lies, sharded as it is.
        return jax.device_put(value, leaf.sharding)

    return jax.tree_util.tree_map_with_path(restore, tree)


def fingerprint(tree: PyTree) -> str:
    """A hash of the structure of a pytree and of the bytes of its arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        if eqx.is_array_like(leaf):
            value = _to_numpy(leaf)
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def _is_key(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf):
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(value, leaf):
    if not _is_key(leaf):
        return value
    return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf))


def _array_leaves(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if eqx.is_array(leaf)}
