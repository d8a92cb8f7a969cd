"""Adaptive Kuramoto-Sivashinsky side by side with rkstiff: error against wall time.

    python benchmarks/peers/adaptive.py [--quick] [--json FILE]

u_t = -u u_x - u_xx - u_xxxx on [0, 32 pi), N = 128, float64, u0 = cos(x/16)(1 + sin(x/16)). Up to
t = 15 the flow is not yet chaotic enough to make errors meaningless: relative errors there against
Krogstad's method with a step of 1/400, and times. Up to t = 50, numbers of steps and times alone.
ETDRK4 with `SpectralPIDController` against the adaptive methods of rkstiff, each at a ladder of
tolerances; all runs take turns and the smallest time counts. A tolerance means something else in
either library: compare errors and times, not tolerances.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from rkstiff.etd import SolverConfig
from rkstiff.etd34 import ETD34
from rkstiff.etd35 import ETD35
from rkstiff.if34 import IF34
from rkstiff.if45dp import IF45DP

sys.path.insert(0, str(Path(__file__).parents[1]))
from _timing import write_json

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid

GRID = FourierGrid((128,), (32 * np.pi,))
PEERS = {"ETD35": ETD35, "ETD34": ETD34, "IF34": IF34, "IF45DP": IF45DP}


def initial():
    x = np.asarray(GRID.x[0]) / 16
    return np.cos(x) * (1 + np.sin(x))


def ours(end):
    """A compiled solve `rtol -> (field, steps)`."""
    term = pde.kuramoto_sivashinsky(GRID)
    u0 = GRID.fft(jnp.asarray(initial()))

    def solve(rtol):
        controller = integrate.SpectralPIDController(rtol, rtol * 1e-3, GRID.norm)
        real = integrate.SemilinearTerm(term.linear, term.nonlinear_fn, real_state=True)
        solution = diffrax.diffeqsolve(
            real,
            integrate.ETDRK4(),
            0.0,
            end,
            0.01,
            real.encode(u0),
            stepsize_controller=controller,
            max_steps=100_000,
        )
        return GRID.ifft(real.decode(jnp.asarray(solution.ys)[0])), solution.stats["num_steps"]

    compiled = jax.jit(solve).lower(jnp.asarray(1e-3)).compile()

    def run(rtol):
        field, steps = compiled(jnp.asarray(rtol))
        return np.asarray(field), int(steps)

    return run


def peer(method, end):
    """The same for rkstiff, in NumPy."""
    k = np.asarray(GRID.k[0])
    linear = k**2 - k**4
    slope = np.asarray(GRID.derivative_wavenumbers()[0])
    mask = GRID.dealias_factors()[0]

    def nonlinear(uh):
        u = np.fft.irfft(uh * mask, 128)
        return -0.5j * slope * mask * np.fft.rfft(u * u)

    u0 = np.fft.rfft(initial())

    def run(tolerance):
        solver = PEERS[method](
            lin_op=linear, nl_func=nonlinear, config=SolverConfig(epsilon=tolerance)
        )
        uh = solver.evolve(u0, t0=0.0, tf=end, h_init=0.01, store_data=True)
        return np.fft.irfft(uh, 128), len(solver.t) - 1

    return run


def reference(end):
    term = pde.kuramoto_sivashinsky(GRID)
    steps = round(400 * end)
    solve = partial(
        integrate.rollout, integrate.ETDRK4(), term, dt=1 / 400, num_steps=steps, save_every=steps
    )
    return np.asarray(GRID.ifft(jax.jit(solve)(GRID.fft(jnp.asarray(initial())))[0]))


def compare(end, tolerances, repeats):
    """One row for each method and tolerance."""
    exact = reference(end)
    solve = ours(end)
    runs = {("jaxsci ETDRK4", tol): solve for tol in tolerances}
    # The step of IF45DP is held down by stability: thousands of steps at every tolerance.
    runs |= {
        (f"rkstiff {m}", tol): peer(m, end)
        for m in PEERS
        for tol in (tolerances if m != "IF45DP" else tolerances[:1])
        if m != "IF45DP" or end < 50
    }
    rows, best = {}, dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for (name, tol), run in runs.items():
            start = time.perf_counter()
            field, steps = run(tol)
            best[name, tol] = min(best[name, tol], time.perf_counter() - start)
            error = float(np.linalg.norm(field - exact) / np.linalg.norm(exact))
            rows[name, tol] = {"steps": steps, "error": error}
    return [
        {"method": n, "tolerance": t, "end": end, "seconds": best[n, t], **row}
        for (n, t), row in rows.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tolerances, two turns")
    parser.add_argument("--json", help="where to write the results")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    tolerances = [1e-4, 1e-6] if options.quick else [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]
    repeats = 2 if options.quick else 5
    rows = compare(15.0, tolerances, repeats) + compare(50.0, [1e-6], repeats)
    print(f"{'method':16} {'end':>4} {'tolerance':>9} {'steps':>6} {'error':>9} {'ms':>8}")
    for row in rows:
        error = f"{row['error']:9.1e}" if row["end"] < 50 else " " * 9
        print(
            f"{row['method']:16} {row['end']:4.0f} {row['tolerance']:9.0e} {row['steps']:6} "
            f"{error} {1e3 * row['seconds']:8.1f}"
        )
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
