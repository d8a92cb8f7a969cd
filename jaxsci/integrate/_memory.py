"""`memory_plan`: choose how reverse mode stores a solve before it runs out of memory."""

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._base import check_choice, check_positive
from ._rollout import CHECKPOINTS

# Forward solves that reverse mode repeats. "binomial" repeats each step about twice at its default
# number of snapshots, and its loop costs more than the nested scans of "sqrt".
RECOMPUTED: Mapping[str, float] = MappingProxyType(
    {"none": 0.0, "step": 1.0, "windowed": 2.0, "sqrt": 2.0, "binomial": 3.0}
)


class MemoryPlan(eqx.Module):
    """Which checkpoint mode to use, and what it costs.

    **Attributes:**

    - `checkpoint`: the mode with the fewest repeated steps that fits.
    - `bytes`: peak memory of the gradient in each mode looked at, arguments and result included.
    - `recomputed`: forward solves that each of those repeats.
    - `budget`: the memory to fit in, in bytes.
    """

    checkpoint: str = eqx.field(static=True)
    bytes: dict[str, int] = eqx.field(static=True)
    recomputed: dict[str, float] = eqx.field(static=True)
    budget: float = eqx.field(static=True)

    def __str__(self):
        lines = [f"budget {self.budget / 1e6:.1f} MB"]
        for mode, size in self.bytes.items():
            mark = " <- chosen" if mode == self.checkpoint else ""
            repeated = self.recomputed[mode]
            lines.append(f"{mode:>9} {size / 1e6:12.2f} MB, {repeated:g} solves repeated{mark}")
        return "\n".join(lines)


def memory_plan(
    f: Callable[..., Float[Array, ""]],
    budget: float | int | None,
    *args: Any,
    modes: Sequence[str] = ("none", "step", "sqrt", "binomial"),
) -> MemoryPlan:
    """Choose the checkpoint mode of `rollout` for a gradient to fit in a memory budget.

    Compiles the gradient of `f` by the arrays of `args` for each mode, from the fewest repeated
    steps on, until one fits. Nothing is run and no array of the size of the solve is made: the
    figures are what the compiler will allocate, for any number of steps, in seconds.

    **Arguments:**

    - `f`: the loss, `f(*args, checkpoint=mode) -> scalar`, which gives `checkpoint` on to
        `rollout`.
    - `budget`: memory in bytes; None for that of the device.
    - `args`: arguments of `f`, or their `jax.ShapeDtypeStruct`s.
    - `modes`: modes to look at.

    **Returns:** a `MemoryPlan`; print it.

    **Raises:** `ValueError` if no mode fits, with the need of each.
    """
    if not callable(f):
        raise TypeError(f"`f` must be a function of (*args, checkpoint), got {f!r}.")
    if not modes:
        raise ValueError("`modes` must not be empty.")
    for mode in modes:
        check_choice("modes", mode, CHECKPOINTS)
    if budget is None:
        budget = _device_memory()
    check_positive("budget", budget)
    needs = {}
    for mode in sorted(modes, key=RECOMPUTED.__getitem__):
        needs[mode] = _peak(f, mode, args)
        if needs[mode] <= budget:
            return MemoryPlan(mode, needs, {m: RECOMPUTED[m] for m in needs}, float(budget))
    listed = ", ".join(f"{mode!r} {size}" for mode, size in needs.items())
    raise ValueError(
        f"No mode fits in `budget` = {budget:.0f} bytes; they need {listed}. Shorten the solve, or "
        "give `rollout` fewer `snapshots`."
    )


def _peak(f, mode, args) -> int:
    """Bytes that the compiled gradient allocates at most."""
    inexact = lambda x: eqx.is_inexact_array(x) or _is_inexact_struct(x)
    differentiated, rest = eqx.partition(args, inexact)

    def loss(differentiated, arrays):
        return f(*eqx.combine(differentiated, arrays, static), checkpoint=mode)

    is_array = lambda x: eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct)
    arrays, static = eqx.partition(rest, is_array)
    compiled = jax.jit(jax.grad(loss)).lower(differentiated, arrays).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("This backend does not tell how much memory a program needs.")
    return int(
        memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    )


def _is_inexact_struct(x):
    return isinstance(x, jax.ShapeDtypeStruct) and jax.numpy.issubdtype(x.dtype, jax.numpy.inexact)


def _device_memory() -> float:
    """Memory of the device, or of the machine where the device does not tell."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
