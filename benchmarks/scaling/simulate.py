"""Streamed simulations: what the pieces and the disk cost, and what twenty kills change.

    python benchmarks/scaling/simulate.py [--quick] [--json FILE]

Overhead: two-dimensional Navier-Stokes with adaptive ETDRK4, as one `diffrax.diffeqsolve` and as
`jaxsci.integrate.simulate` with a zarr store and a checkpoint, in turns. Kills: an adaptive solve
of about 10^5 steps in a process of its own, killed by SIGKILL twenty times at random and started
again; its end is compared, bit by bit, with that of a process left alone.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from _timing import write_json

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid


def kuramoto_sivashinsky(directory, final):
    """The run that is killed."""
    grid = FourierGrid(32, 22.0)
    x = 2 * np.pi * grid.x[0] / 22.0
    found = integrate.simulate(
        pde.kuramoto_sivashinsky(grid),
        integrate.ETDRK4(),
        np.linspace(0.0, final, 2001),
        grid.fft(jnp.cos(x) + 0.1 * jnp.sin(3 * x)),
        dt0=0.01,
        stepsize_controller=integrate.SpectralPIDController(1e-8, 1e-10, grid.norm),
        save=lambda t, y, args: grid.ifft(y),
        chunk=16,
        chunk_steps=1000,
        store=directory / "u.zarr",
        checkpoint=directory / "u.npz",
    )
    np.savez(directory / "end.npz", y=found.y, ys=found.ys[:], **found.stats)


def kills(count, final):
    """Kill the run `count` times; compare its end with that of a run left alone."""
    work = Path(tempfile.mkdtemp())
    command = [sys.executable, __file__, "--final", str(final), "--run"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, str(work / "alone")])
    _wait_for_checkpoint(process, work / "alone", None)
    began = time.perf_counter()
    assert process.wait() == 0
    alone, solving = (time.perf_counter() - t for t in (start, began))
    rng, done = np.random.default_rng(0), 0
    while done < count:
        before = _modified(work / "killed")
        process = subprocess.Popen([*command, str(work / "killed")])
        _wait_for_checkpoint(process, work / "killed", before)
        # Short enough that the run is not over before the last kill.
        time.sleep(float(rng.uniform(0, solving / count)))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        done += 1
    subprocess.run([*command, str(work / "killed")], check=True)
    a, b = (np.load(work / name / "end.npz") for name in ("alone", "killed"))
    row = {
        "steps": int(a["num_steps"]),
        "rejected": int(a["num_rejected_steps"]),
        "kills": done,
        "bitwise equal": all(np.array_equal(a[name], b[name]) for name in a.files),
        "seconds alone": round(alone, 1),
    }
    shutil.rmtree(work)
    return row


def _modified(directory):
    """When the checkpoint was last written, or None."""
    path = directory / "u.npz"
    return path.stat().st_mtime_ns if path.exists() else None


def _wait_for_checkpoint(process, directory, before):
    """Wait until a process has written a checkpoint, or has ended."""
    while _modified(directory) == before and process.poll() is None:
        time.sleep(0.01)


def overhead(size, final, rounds):
    """Seconds of one solve in memory and of the streamed one, in turns."""
    grid = FourierGrid((size, size), (2 * np.pi, 2 * np.pi))
    flow = pde.NavierStokes2D(grid, 1e-3)
    w = flow.initial(jax.random.key(0)).astype(jnp.float32)
    y0 = grid.fft(10 * w)
    ts = np.linspace(0.0, final, 41).astype(np.float32)
    controller = integrate.SpectralPIDController(1e-5, 1e-7, grid.norm)
    term, solver = flow.term(), integrate.ETDRK4()
    save = lambda t, y, args: grid.ifft(y)

    @eqx.filter_jit
    def whole(y0):
        sol = diffrax.diffeqsolve(
            term,
            solver,
            ts[0],
            ts[-1],
            jnp.float32(1e-3),
            y0,
            saveat=diffrax.SaveAt(ts=jnp.asarray(ts), fn=save),
            stepsize_controller=controller,
            max_steps=100_000,
            adjoint=diffrax.ForwardMode(),
        )
        return sol.ys, sol.stats["num_steps"]

    def streamed(y0):
        work = Path(tempfile.mkdtemp())
        found = integrate.simulate(
            term,
            solver,
            ts,
            y0,
            dt0=1e-3,
            stepsize_controller=controller,
            save=save,
            chunk=8,
            store=work / "w.zarr",
            checkpoint=work / "w.npz",
        )
        shutil.rmtree(work)
        return found

    steps = int(whole(y0)[1])
    streamed(y0)
    best = {"whole": np.inf, "streamed": np.inf}
    for _ in range(rounds):
        for name, run in (("whole", whole), ("streamed", streamed)):
            start = time.perf_counter()
            jax.block_until_ready(run(y0))
            best[name] = min(best[name], time.perf_counter() - start)
    return {
        "N": size,
        "steps": steps,
        "one diffeqsolve [s]": round(best["whole"], 3),
        "streamed [s]": round(best["streamed"], 3),
        "ratio": round(best["streamed"] / best["whole"], 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--final", type=float, default=2500.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        jax.config.update("jax_enable_x64", True)
        kuramoto_sivashinsky(args.run, args.final)
        return
    # What a run costs once shows in the short one; what a piece costs shows in the long one.
    cases = [(64, 1.0, 2)] if args.quick else [(128, 4.0, 7), (128, 40.0, 5)]
    results = {"overhead": []}
    for case in cases:
        results["overhead"].append(overhead(*case))
        print(results["overhead"][-1], flush=True)
    results["kills"] = kills(3 if args.quick else 20, 200.0 if args.quick else 2500.0)
    print(results["kills"])
    write_json(args.json, results)


if __name__ == "__main__":
    main()
