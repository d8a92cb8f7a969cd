"""`save` and `load`: one model, one file, no further dependency."""

import os

import jax
from jaxtyping import PyTree

from .._base import array_leaves, is_key, read_arrays, read_metadata, write_arrays

_FORMAT = 1


def save(path: str | os.PathLike, model: PyTree) -> None:
    """Write the array leaves of `model` to a file, which is replaced only once complete.

    The file is a NumPy `.npz` archive, readable with `numpy.load`; nothing is pickled. Leaves that
    are no arrays (functions, strings, Python numbers) are not written: `load` takes them from its
    `like`.

    **Arguments:**

    - `path`: the file, overwritten if there; no suffix is added.
    - `model`: any pytree; its arrays may have any dtype (bfloat16 and typed keys too).

    **Raises:**

    - `TypeError`: an array is not numeric.
    """
    for name, leaf in array_leaves(model).items():
        if isinstance(leaf, jax.ShapeDtypeStruct) or (not is_key(leaf) and leaf.dtype.hasobject):
            raise TypeError(f"`model` must have numeric arrays, got {leaf!r} at {name}.")
    write_arrays(path, model, {"format": _FORMAT})


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
    metadata = read_metadata(path)
    if metadata is None or "format" not in metadata:
        raise ValueError(f"`path` must be a file written by `save`, got {str(path)!r}.")
    if metadata["format"] != _FORMAT:
        raise ValueError(
            f"`path` must have format {_FORMAT}, got {metadata['format']} in {str(path)!r}."
        )
    return read_arrays(path, like)
