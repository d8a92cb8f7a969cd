"""Run a script in a process with eight simulated devices, and read what it prints last."""

import json
import os
import subprocess
import sys
from pathlib import Path


def on_eight_devices(script: Path, *arguments: str):
    """The JSON of the last line that the script prints."""
    run = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        text=True,
        capture_output=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout.splitlines()[-1])
