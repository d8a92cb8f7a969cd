"""Checkpoints of a solve: its state in one file, and what must be the same when it goes on."""

import hashlib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._base import is_key, read_arrays, read_metadata, write_arrays


def save_checkpoint(path: Path, tree: PyTree, configuration: dict[str, Any]) -> None:
    """Write the array leaves of `tree` and the configuration; a crash leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, tree, {"configuration": configuration})


def load_checkpoint(path: Path, tree: PyTree, configuration: dict[str, Any]) -> PyTree:
    """`tree` with its array leaves from the file.

    **Raises:** `ValueError` naming what differs if the file is of another solve.
    """
    saved = (read_metadata(path) or {}).get("configuration", {})
    for name, value in configuration.items():
        if saved.get(name) != value:
            raise ValueError(
                f"The checkpoint {path} is of another solve: its {name} differs. Delete it to "
                "start from the beginning."
            )
    return read_arrays(path, tree)


def fingerprint(tree: PyTree) -> str:
    """A hash of the structure of a pytree and of the bytes of its arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        if eqx.is_array_like(leaf):
            value = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
            digest.update(f"{value.dtype}{value.shape}".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()
