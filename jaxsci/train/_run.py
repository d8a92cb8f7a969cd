"""The arrays of a training run while it lasts, and its logged metrics."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._checkpoint import CheckpointManager
from ._update import Carry, Parts, Program, update, update_many


class Saved(NamedTuple):
    """What a checkpoint holds; the paths of its leaves name them in the files."""

    params: PyTree
    frozen: PyTree
    ema: PyTree
    opt_state: PyTree
    step: Array
    key: PRNGKeyArray


class Run:
    """The arrays of a run, flat as the compiled updates take them, and what advances them."""

    def __init__(
        self,
        program: Program,
        carry: Carry,
        arrays: Parts,
        key: PRNGKeyArray,
        decay: float | None,
    ):
        self.program, self.key = program, key
        self.decay = 0.0 if decay is None else decay
        self._leaves, self._arrays = jax.tree.leaves(carry), jax.tree.leaves(arrays)

    @property
    def carry(self) -> Carry:
        return self.program.carry(self._leaves)

    @property
    def finite(self) -> Array:
        return self._leaves[-1]  # the last field of `Carry`

    def update(self, batch: PyTree, key: PRNGKeyArray) -> dict[str, Array]:
        self._leaves, row = update(self.program, self._leaves, self._arrays, batch, key, self.decay)
        return row

    def update_many(self, count: int, keys: tuple) -> dict[str, Array]:
        self._leaves, row = update_many(
            self.program, self._leaves, self._arrays, count, keys, self.decay
        )
        return row

    def _merge(self, params: PyTree, copy: bool) -> PyTree:
        params = jax.tree.map(jnp.copy, params) if copy else params
        return eqx.combine(params, self.program.parts(self._arrays).rest)

    def model(self, copy: bool = True) -> PyTree:
        return self._merge(self.carry.params, copy)

    def ema(self, copy: bool = True) -> PyTree:
        return None if self.carry.ema is None else self._merge(self.carry.ema, copy)

    def state(self) -> Saved:
        carry, arrays = self.carry, jax.tree.unflatten(self.program.arrays_tree, self._arrays)
        return Saved(carry.params, arrays.rest, carry.ema, carry.opt_state, carry.step, self.key)

    def restore(self, manager: CheckpointManager) -> dict[str, np.ndarray]:
        """Take over the latest checkpoint; returns the metrics logged before it."""
        saved, metrics = manager.restore(self.state())
        arrays = jax.tree.unflatten(self.program.arrays_tree, self._arrays)
        self._arrays = jax.tree.leaves(arrays._replace(rest=saved.frozen))
        carry = Carry(saved.params, saved.opt_state, saved.ema, saved.step, self.carry.finite)
        self._leaves, self.key = jax.tree.leaves(carry), saved.key
        return metrics


class Rows:
    """The logged metrics: arrays of earlier rows, and the rows since."""

    def __init__(self, before: dict[str, np.ndarray] | None = None):
        self._before, self._rows = before or {}, []

    def append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)

    def stacked(self) -> dict[str, np.ndarray]:
        if self._rows:
            new = {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}
            old = self._before
            self._before = {
                name: np.concatenate([old[name], x]) if name in old else x
                for name, x in new.items()
            }
            self._rows = []
        return self._before
