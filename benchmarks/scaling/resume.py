"""Kill a training run many times, resume it each time, and compare with the run left alone.

Each kill is a SIGKILL at a random moment, often during a save, of a process that trains 250 000
parameters with AdamW and an average of the parameters, saving every 25 steps. The
parameters, optimizer state, average and metrics of the resumed run must be bitwise those of a run
that was never interrupted.

    python benchmarks/scaling/resume.py [--kills 20] [--quick] [--json PATH]
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

EVERY = 25
STEPS_PER_KILL = 50


def child(directory: str, num_steps: int, kill_step: int, kill_delay: float) -> None:
    """Train up to `num_steps`; print a JSON line with what the parent tabulates."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxsci import train

    def loss(model, batch, key):
        mlp, table = model
        x, y = batch
        noise = 0.01 * jax.random.normal(key, y.shape)
        return jnp.mean((jax.vmap(mlp)(x)[:, 0] - y + noise) ** 2) + jnp.mean((table - 1) ** 2)

    times = []

    def callback(state):
        times.append(time.perf_counter())
        if state.step == kill_step:
            timer = threading.Timer(kill_delay, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        print(state.step, flush=True)

    x = jnp.linspace(-1, 1, 256)[:, None]
    model = eqx.nn.MLP(1, 1, 32, 2, key=jax.random.key(0)), jnp.zeros((500, 500))
    result = train.fit(
        loss,
        model,
        train.minibatches((x, jnp.sin(6 * x[:, 0])), 32, key=jax.random.key(1)),
        optax.adamw(1e-3),
        key=jax.random.key(2),
        num_steps=num_steps,
        ema=0.99,
        log_every=1,
        callbacks=[callback],
        checkpoint=train.Checkpoint(directory, every=EVERY) if directory != "none" else None,
    )
    # Without compiling; closing the checkpoints is included.
    seconds = time.perf_counter() - times[0]
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((result.model, result.opt_state, result.ema, result.metrics)):
        if eqx.is_array_like(leaf):
            digest.update(np.asarray(leaf).tobytes())
    loss_end = float(result.metrics["loss"][-1])
    print(json.dumps({"digest": digest.hexdigest(), "seconds": seconds, "loss": loss_end}))


def start(directory, num_steps, kill_step, kill_delay, cache):
    root = str(Path(__file__).parents[2])
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    arguments = ["--child", directory, num_steps, kill_step, kill_delay]
    command = [sys.executable, __file__, *map(str, arguments)]
    begin = time.perf_counter()
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    return run, time.perf_counter() - begin


def finished(run) -> dict:
    if run.returncode:
        raise RuntimeError(run.stderr)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill, resume, compare.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="three kills")
    parser.add_argument("--json", metavar="PATH", help="write the table there")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        directory, num_steps, kill_step, kill_delay = options.child
        child(directory, int(num_steps), int(kill_step), float(kill_delay))
        return

    kills = 3 if options.quick else options.kills
    num_steps = STEPS_PER_KILL * (kills + 1)
    moments = random.Random(0)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        cache, directory = f"{scratch}/compiled", f"{scratch}/killed"
        plain = finished(start("none", num_steps, -1, 0, cache)[0])
        whole = finished(start(f"{scratch}/whole", num_steps, -1, 0, cache)[0])

        print(f"{'kill':>4} {'resumed at':>10} {'killed after':>12} {'during a save':>13} {'s':>6}")
        for kill in range(1, kills + 1):
            kill_step = STEPS_PER_KILL * kill - moments.randrange(EVERY)
            run, seconds = start(directory, num_steps, kill_step, moments.uniform(0, 0.2), cache)
            if run.returncode != -signal.SIGKILL:
                raise RuntimeError(f"not killed: {run.stderr}")
            steps = [int(line) for line in run.stdout.split()]
            row = {
                "kill": kill,
                "resumed_at": steps[0] - 1,
                "killed_after": steps[-1],
                "during_a_save": any("tmp" in name for name in os.listdir(directory)),
                "seconds": seconds,
            }
            rows.append(row)
            print(
                f"{kill:4} {row['resumed_at']:10} {row['killed_after']:12} "
                f"{row['during_a_save']!s:>13} {seconds:6.2f}",
                flush=True,
            )
        resumed = finished(start(directory, num_steps, -1, 0, cache)[0])

    identical = resumed["digest"] == whole["digest"] == plain["digest"]
    during = sum(row["during_a_save"] for row in rows)
    print(f"\n{kills} kills, {during} of them during a save; bitwise identical: {identical}")
    saves = num_steps // EVERY
    overhead = (whole["seconds"] - plain["seconds"]) / saves
    print(f"a save holds the run up by {1e3 * overhead:.1f} ms (4 MB, every {EVERY} steps)")
    if options.json:
        report = {
            "kills": rows,
            "identical": identical,
            "during_a_save": during,
            "seconds_per_save": overhead,
            "final_loss": whole["loss"],
        }
        Path(options.json).write_text(json.dumps(report, indent=2))
    sys.exit(not identical)


if __name__ == "__main__":
    main()
