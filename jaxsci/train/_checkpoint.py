"""Checkpoints of a run, written by orbax: complete or absent, and continued exactly."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from .._base import (
    array_leaves,
    check_at_least,
    check_same_leaves,
    describe,
    is_key,
    replace_array_leaves,
)

_FORMAT = 1
_METRICS = "metrics."


def _writable(leaves: dict[str, Any]) -> dict[str, Any]:
    """Leaves that orbax can write: it has no typed keys and no empty arrays."""
    raw = {path: jax.random.key_data(x) if is_key(x) else x for path, x in leaves.items()}
    return {path: x for path, x in raw.items() if x.size}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and how often [`fit`][jaxsci.train.fit] saves its state, and whether it continues.

    A checkpoint holds every array of the model, the optimizer state, the moving average, the step,
    the key and the logged metrics, by path, and the configuration and versions as JSON; nothing is
    pickled. It becomes visible only when complete: a run killed while saving continues from the
    checkpoint before. A run also saves its last state when it ends, unless it failed. The saved
    arrays may be restored onto another number of devices.

    **Arguments:**

    - `directory`: of this run alone; made if missing.
    - `every`: save after each multiple of this number of steps.
    - `keep`: how many checkpoints to keep, the latest ones; `None` keeps all.
    - `resume`: continue from the latest checkpoint in `directory`, if there is one. `False` asks
        for a directory without checkpoints: nothing is ever overwritten.

    **Raises:**

    - `ValueError`: `every` or `keep` is below 1.
    """

    directory: str | os.PathLike
    every: int
    keep: int | None = 3
    resume: bool = True

    def __post_init__(self):
        check_at_least("every", self.every, 1)
        if self.keep is not None:
            check_at_least("keep", self.keep, 1)


class CheckpointManager:
    """The open checkpoint directory of a run, as a context: leaving it waits for the writer."""

    def __init__(self, config: Checkpoint):
        try:
            import orbax.checkpoint as ocp
        except ImportError as error:
            raise ImportError(
                "checkpoints need orbax: `pip install jaxsci[train]` "
                "(`jaxsci.train.save` and `load` work without it)."
            ) from error
        self._ocp = ocp
        self._config = config
        directory = Path(config.directory).absolute()
        self._source = f"the checkpoint in {str(directory)!r}"
        keep = None if config.keep is None else ocp.checkpoint_managers.LatestN(config.keep)
        options = ocp.CheckpointManagerOptions(
            create=True, cleanup_tmp_directories=True, preservation_policy=keep
        )
        self._manager = ocp.CheckpointManager(directory, options=options)
        try:
            self.latest = self._manager.latest_step()
            if self.latest is not None and not config.resume:
                raise ValueError(
                    "`checkpoint` has `resume=False`, which must have a directory without "
                    f"checkpoints, got one at step {self.latest} in {str(directory)!r}."
                )
        except BaseException:
            self._manager.close()
            raise

    def save(
        self, step: int, state: PyTree, metrics: dict[str, np.ndarray], settings: dict[str, Any]
    ) -> None:
        """Start writing `state`, of whose arrays copies are taken; a no-op for a saved step."""
        if step == self.latest:
            return
        from .. import __version__

        leaves = array_leaves(state)
        rows = {_METRICS + name: x for name, x in metrics.items() if x.size}
        # The writer works in the background, while the next update takes over these buffers.
        arrays = {path: jnp.copy(x) for path, x in _writable(leaves).items()} | rows
        metadata = {
            "format": _FORMAT,
            "step": step,
            "settings": settings,
            "leaves": describe(leaves),
            "metrics": describe(rows),
            "versions": {
                "jaxsci": __version__,
                "jax": jax.__version__,
                "optax": optax.__version__,
                "equinox": eqx.__version__,
                "orbax": self._ocp.__version__,
            },
        }
        args = self._ocp.args
        self._manager.save(
            step,
            args=args.Composite(arrays=args.StandardSave(arrays), metadata=args.JsonSave(metadata)),
        )
        self.latest = step

    def restore(self, like: PyTree) -> tuple[PyTree, dict[str, np.ndarray]]:
        """The latest state, on the devices of the arrays of `like`, and the logged metrics.

        **Raises:**

        - `ValueError`: `like` differs from what was saved in a path, shape or dtype.
        """
        args = self._ocp.args
        metadata = self._manager.restore(
            self.latest, args=args.Composite(metadata=args.JsonRestore())
        )["metadata"]
        if metadata["format"] != _FORMAT:
            raise ValueError(f"{self._source} must have format {_FORMAT}: {metadata['format']}.")
        leaves = array_leaves(like)
        check_same_leaves(metadata["leaves"], leaves, self._source)

        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        targets = {
            path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for path, x in _writable(leaves).items()
        }
        for entry in metadata["metrics"]:
            shape, dtype = tuple(entry["shape"]), jnp.dtype(entry["dtype"])
            targets[entry["path"]] = jax.ShapeDtypeStruct(shape, dtype, sharding=device)
        arrays = self._manager.restore(
            self.latest, args=args.Composite(arrays=args.StandardRestore(targets))
        )["arrays"]

        def like_leaf(path, x):
            leaf = leaves[path]
            # Orbax ties arrays to their device; those that were free to move stay so.
            x = x if leaf.committed else jnp.asarray(np.asarray(x))
            return (
                jax.random.wrap_key_data(x, impl=jax.random.key_impl(leaf)) if is_key(leaf) else x
            )

        metrics = {
            path.removeprefix(_METRICS): np.asarray(arrays.pop(path))
            for path in list(arrays)
            if path not in leaves
        }
        restored = {path: like_leaf(path, x) for path, x in arrays.items()}
        return replace_array_leaves(like, restored), metrics

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, *_: Any) -> None:
        self._manager.close()
