"""A zarr store to which a simulation appends, readable by xarray while it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


class ZarrStore:
    """Saved states of a simulation on disk, one zarr array (format 3) for each leaf.

    The arrays grow along their first axis, "time"; `xarray.open_zarr(path, consolidated=False)`
    opens them with their coordinates. Needs the extra `store`.

    **Arguments:**

    - `path`: directory of the store.
    - `name`: name of the array if what is saved is one array; leaves of a pytree are named by their
        path in it.
    - `dims`: names of the axes after time; by default "dim_1", "dim_2", ...
    - `coords`: coordinates `{axis name: values}`.
    - `units`: `{name of array or coordinate: units}`.
    - `attrs`: attributes of the store, of JSON types.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str = "y",
        dims: Sequence[str] | None = None,
        coords: Mapping[str, Any] | None = None,
        units: Mapping[str, str] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ):
        self.path = Path(path)
        self.name = name
        self.dims = None if dims is None else tuple(dims)
        self.coords = dict(coords or {})
        self.units = dict(units or {})
        self.attrs = dict(attrs or {})
        if "time" in self.coords or (self.dims and "time" in self.dims):
            raise ValueError('`dims` and `coords` must not contain "time", which the store adds.')

    def check_absent(self) -> None:
        """Raise `FileExistsError` if a new store at the path would erase something."""
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise FileExistsError(
                f"There is something at {self.path} already. Delete it, choose another place, or "
                "give the `checkpoint` of the solve that wrote it."
            )

    def open(self, like: PyTree, chunk: int, length: int) -> dict[str, Any]:
        """Open the store, made if it is not there, cut to its first `length` times.

        **Arguments:**

        - `like`: one saved state, or its shapes and dtypes.
        - `chunk`: number of times in a chunk of the arrays.
        - `length`: times to keep; 0 starts from nothing.

        **Returns:** the zarr arrays by name, "time" among them.

        **Raises:** `ImportError` without zarr, `ValueError` if `dims` does not fit the states or
        the store holds fewer than `length` times.
        """
        zarr = _import_zarr()
        leaves = self.named(like)
        if length == 0:
            return self._create(zarr, leaves, chunk)
        group = zarr.open_group(self.path, mode="r+")
        arrays: dict[str, Any] = {name: group[name] for name in ("time", *leaves)}
        for name, array in arrays.items():
            if array.shape[0] < length:
                raise ValueError(
                    f"The store {self.path} holds {array.shape[0]} times of {name!r}, fewer than "
                    f"the {length} of the checkpoint."
                )
            array.resize((length, *array.shape[1:]))
        return arrays

    def _create(self, zarr, leaves, chunk):
        group = zarr.open_group(self.path, mode="w", attributes=self.attrs)
        arrays = {"time": self._array(group, "time", (0,), (chunk,), np.float64, ("time",))}
        for name, leaf in leaves.items():
            dims = tuple(f"dim_{i + 1}" for i in range(len(leaf.shape)))
            if self.dims is not None:
                dims = self.dims
            if len(dims) != len(leaf.shape):
                raise ValueError(
                    f"`dims` must name the {len(leaf.shape)} axes of {name!r} with shape "
                    f"{tuple(leaf.shape)}, got {dims}."
                )
            shapes = (0, *leaf.shape), (chunk, *leaf.shape)
            arrays[name] = self._array(group, name, *shapes, leaf.dtype, ("time", *dims))
        for name, values in self.coords.items():
            values = np.asarray(values)
            coordinate = self._array(group, name, values.shape, values.shape, values.dtype, (name,))
            coordinate[:] = values
        return arrays

    def _array(self, group, name, shape, chunks, dtype, dims):
        attributes = {"units": self.units[name]} if name in self.units else {}
        return group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=np.dtype(dtype),
            dimension_names=dims,
            attributes=attributes,
        )

    def append(self, arrays: Mapping[str, Any], ts: np.ndarray, ys: PyTree) -> None:
        """Append states at the times `ts`."""
        for name, values in {"time": ts, **self.named(ys)}.items():
            array, values = arrays[name], np.asarray(values)
            start = array.shape[0]
            array.resize((start + len(values), *array.shape[1:]))
            array[start:] = values

    def named(self, tree: PyTree) -> dict[str, Any]:
        """The leaves of what is saved, by the names of their arrays."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        if len(leaves) == 1 and not leaves[0][0]:
            return {self.name: leaves[0][1]}
        named = {
            jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves
        }
        if "time" in named or len(named) != len(leaves):
            raise ValueError(
                f"What is saved must have distinct names other than time, got {named}."
            )
        return named


def _import_zarr():
    try:
        import zarr
    except ImportError as error:
        raise ImportError("Streaming to disk needs zarr: pip install 'jaxsci[store]'.") from error
    return zarr
