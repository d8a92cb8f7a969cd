"""Timing shared by the benchmarks: compile first, then interleave, then take minima."""

import json
import time
from pathlib import Path

import jax


def compile_timed(fn, *args):
    """Compile `fn` for `args`; return the executable and the seconds it took."""
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(*args).compile()
    return compiled, time.perf_counter() - start


def interleaved_minima(contenders, repeats):
    """Smallest run time of each `{name: (executable, args)}`, taking turns `repeats` times."""
    best = {}
    for name, (compiled, args) in contenders.items():
        jax.block_until_ready(compiled(*args))
        best[name] = float("inf")
    for _ in range(repeats):
        for name, (compiled, args) in contenders.items():
            start = time.perf_counter()
            jax.block_until_ready(compiled(*args))
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def write_json(path, results):
    """Write `results` to `path`, if given."""
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(results, indent=2) + "\n")
