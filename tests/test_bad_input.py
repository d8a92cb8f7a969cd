"""The bad-input tests, in a process of their own without run-time type checks."""

import os
import subprocess
import sys
from pathlib import Path


def test_every_bad_input_raises_its_documented_error():
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "bad_input", "tests"]
    run = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "JAXSCI_TYPECHECK": "0"},
        text=True,
        capture_output=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
