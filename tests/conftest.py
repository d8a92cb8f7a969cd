"""Test session: float64 on, run-time type checks on, seconds per room at the end.

Bad-input tests (marked `bad_input`) need a process without run-time type checks, whose errors would
come before ours: `tests/test_bad_input.py` starts it (with JAXSCI_TYPECHECK=0).
"""

import os
from collections import defaultdict
from pathlib import Path

TYPECHECK = os.environ.get("JAXSCI_TYPECHECK", "1") == "1"
if TYPECHECK:
    from jaxtyping import install_import_hook

    install_import_hook("jaxsci", "beartype.beartype")

import jax
import pytest

# JAXSCI_X64=0 runs a selection in JAX's default precision (the smoke leg of the checks).
jax.config.update("jax_enable_x64", os.environ.get("JAXSCI_X64", "1") == "1")


def pytest_collection_modifyitems(config, items):
    wanted = not TYPECHECK
    kept = [item for item in items if bool(item.get_closest_marker("bad_input")) == wanted]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def pytest_terminal_summary(terminalreporter):
    seconds = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                parts = Path(report.nodeid.split("::")[0]).parts
                seconds[parts[1] if len(parts) > 2 else "(top)"] += report.duration
    if seconds:
        terminalreporter.section("seconds per room (summed over workers)")
        for room, total in sorted(seconds.items()):
            terminalreporter.line(f"{room:>12} {total:8.1f} s")


@pytest.fixture
def key():
    return jax.random.key(0)
