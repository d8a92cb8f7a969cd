"""Pseudo-spectral solvers side by side with exponax and jax-cfd.

    python benchmarks/peers/spectral.py [--quick] [--json FILE]

Forward: milliseconds a step in float32, in one dimension (Burgers, Korteweg-de Vries,
Kuramoto-Sivashinsky, N = 256), two (Navier-Stokes, N = 128 and 256; Kuramoto-Sivashinsky,
Gray-Scott, Swift-Hohenberg, N = 128) and three (Navier-Stokes, N = 32 and 64), each library in its
fastest form, all compiled first and then timed in turns. Accuracy: error of each library on
Korteweg-de Vries at equal steps, float64. Reverse mode: time and memory of the gradient through 100
Navier-Stokes steps for each checkpoint setting.
"""

import argparse
import sys
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from _timing import compile_timed, interleaved_minima, write_json

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid, truncated_fourier_series


def through_diffrax(solver, term, dt, n):
    def solve(uh):
        sol = diffrax.diffeqsolve(
            term, solver, 0.0, n * dt, dt, uh, max_steps=n + 2, saveat=diffrax.SaveAt(t1=True)
        )
        return sol.ys[0]

    return solve


def bare_scan(solver, term, dt, n):
    return lambda uh: integrate.rollout(solver, term, uh, dt=dt, num_steps=n, save_every=n)[0]


def exponax_scan(step, n):
    return lambda u: jax.lax.scan(lambda c, _: (step(c), None), u, None, length=n)[0]


def ours(prefix, term, solver, dt, n, uh):
    fronts = {"jaxsci scan": bare_scan, "jaxsci diffrax": through_diffrax}
    return {f"{prefix} {k}": (make(solver, term, dt, n), uh) for k, make in fronts.items()}


def with_exponax(prefix, stepper, n, u, ndim):
    import exponax as ex

    uh = ex.fft(u, num_spatial_dims=ndim)
    return {
        f"{prefix} exponax physical": (exponax_scan(stepper, n), u),
        f"{prefix} exponax fourier": (exponax_scan(stepper.step_fourier, n), uh),
    }


def ks_cases(n):
    import exponax as ex

    grid = FourierGrid(256, 32 * np.pi)
    x = grid.coordinates(jnp.float32)[0]
    u = (jnp.cos(x / 16) * (1 + jnp.sin(x / 16)))[None]
    term = pde.kuramoto_sivashinsky(grid)
    for order, solver, dt in (
        (2, integrate.ETDRK2(), 0.05),
        (4, integrate.ETDRK4("cox-matthews"), 0.25),
        (4, integrate.ETDRK4(), 0.25),
    ):
        variant = f" {solver.variant}" if order == 4 else ""
        prefix = f"KS 256 ETDRK{order}{variant}"
        stepper = ex.stepper.KuramotoSivashinskyConservative(1, 32 * np.pi, 256, dt, order=order)
        yield compared(prefix, term, stepper, dt, n, grid, u, solver)


def line_cases(n):
    """One-dimensional equations besides Kuramoto-Sivashinsky."""
    import exponax as ex

    grid = FourierGrid(256, 2 * np.pi)
    x = grid.coordinates(jnp.float32)[0]
    u = (jnp.cos(x) + 0.3 * jnp.sin(2 * x))[None]
    dt = 1e-3
    burgers = ex.stepper.Burgers(1, 2 * np.pi, 256, dt, diffusivity=0.1, conservative=True, order=4)
    kdv = ex.stepper.KortewegDeVries(
        1,
        2 * np.pi,
        256,
        dt,
        convection_scale=1.0,
        dispersivity=0.05,
        hyper_diffusivity=0.0,
        conservative=True,
        order=4,
    )
    for prefix, term, stepper in (
        ("Burgers 256 ETDRK4", pde.burgers(grid, viscosity=0.1), burgers),
        ("KdV 256 ETDRK4", pde.korteweg_de_vries(grid, convection=1.0, dispersion=0.05), kdv),
    ):
        yield compared(prefix, term, stepper, dt, n, grid, u)


def plane_cases(size, n):
    """Two-dimensional equations besides Navier-Stokes."""
    import exponax as ex

    patterns = FourierGrid((size, size), (20 * np.pi, 20 * np.pi))
    u = truncated_fourier_series(jax.random.key(0), patterns, 5, dtype=jnp.float32)[None]
    steppers = ex.stepper
    dt = 0.05
    yield compared(
        f"KS 2-D {size} ETDRK4",
        pde.kuramoto_sivashinsky(patterns),
        steppers.KuramotoSivashinsky(2, 20 * np.pi, size, dt, order=4),
        dt,
        n,
        patterns,
        u,
    )
    yield compared(
        f"Swift-Hohenberg 2-D {size} ETDRK4",
        pde.swift_hohenberg(patterns),
        steppers.reaction.SwiftHohenberg(2, 20 * np.pi, size, dt, order=4),
        dt,
        n,
        patterns,
        u,
    )
    grid = FourierGrid((size, size), (2.5, 2.5))
    equation = pde.GrayScott(grid)
    yield compared(
        f"Gray-Scott 2-D {size} ETDRK4",
        equation.term(),
        steppers.reaction.GrayScott(2, 2.5, size, 1.0, order=4),
        1.0,
        n,
        grid,
        equation.initial(jax.random.key(0)).astype(jnp.float32),
    )


def box_cases(size, n):
    """Three-dimensional Navier-Stokes."""
    import exponax as ex

    grid = FourierGrid((size,) * 3, (2 * np.pi,) * 3)
    flow = pde.NavierStokes3D(grid, viscosity=1e-2)
    u = flow.initial(jax.random.key(0)).astype(jnp.float32)
    dt = 2e-3
    for order, solver in ((2, integrate.ETDRK2()), (4, integrate.ETDRK4("cox-matthews"))):
        stepper = ex.stepper.NavierStokesVelocity(
            3, 2 * np.pi, size, dt, diffusivity=1e-2, order=order
        )
        prefix = f"NS 3-D {size} ETDRK{order}"
        yield compared(prefix, flow.term(), stepper, dt, n, grid, u, solver)


def compared(prefix, term, stepper, dt, n, grid, u, solver=None):
    """One row: both of our fronts and both forms of the peer."""
    solver = integrate.ETDRK4("cox-matthews") if solver is None else solver
    fronts = ours(prefix, term, solver, dt, n, grid.fft(u))
    return prefix, n, fronts | with_exponax(prefix, stepper, n, u, grid.ndim)


def ns_initial(grid):
    w = truncated_fourier_series(jax.random.key(0), grid, 5, std=5.0, dtype=jnp.float32)
    return w[None]


def ns_cases(size, n):
    import exponax as ex

    grid = FourierGrid((size, size), (2 * np.pi, 2 * np.pi))
    w, dt = ns_initial(grid), 2e-3
    term = pde.navier_stokes_2d(grid, viscosity=1e-3)
    for order, solver in (
        (2, integrate.ETDRK2()),
        (4, integrate.ETDRK4("cox-matthews")),
        (4, integrate.ETDRK4()),
    ):
        variant = f" {solver.variant}" if order == 4 else ""
        prefix = f"NS {size} ETDRK{order}{variant}"
        stepper = ex.stepper.NavierStokesVorticity(
            2, 2 * np.pi, size, dt, diffusivity=1e-3, order=order
        )
        cases = ours(prefix, term, solver, dt, n, grid.fft(w))
        yield prefix, n, cases | with_exponax(prefix, stepper, n, -w, 2)
    yield from jax_cfd_cases(size, n, grid, w, dt, term)


def jax_cfd_cases(size, n, grid, w, dt, term):
    try:
        from jax_cfd import spectral
        from jax_cfd.base import grids
        from jax_cfd.spectral import time_stepping
    except ImportError as error:
        print(f"jax-cfd does not import: {error}")
        return
    box = grids.Grid((size, size), domain=((0, 2 * np.pi), (0, 2 * np.pi)))
    equation = spectral.equations.NavierStokes2D(viscosity=1e-3, grid=box, smooth=True)
    for name, solver, peer in (
        ("CNRK2", integrate.CNRK2(), time_stepping.crank_nicolson_rk2),
        ("CNRK4", integrate.CNRK4(), time_stepping.crank_nicolson_rk4),
    ):
        prefix = f"NS {size} {name}"
        cases = ours(prefix, term, solver, dt, n, grid.fft(w))
        cases[f"{prefix} jax-cfd"] = (exponax_scan(peer(equation, dt), n), grid.fft(w[0]))
        yield prefix, n, cases


def forward(quick):
    rows = []
    steps = (200, 20) if quick else (1000, 100)
    sizes = (128,) if quick else (128, 256)
    groups = [*line_cases(steps[0]), *ks_cases(steps[0])]
    for size in sizes:
        groups += list(ns_cases(size, steps[1]))
    groups += list(plane_cases(64 if quick else 128, steps[1]))
    for size in (16,) if quick else (32, 64):
        groups += list(box_cases(size, steps[1] // (5 if size > 32 else 1)))
    for prefix, n, cases in groups:
        compiled, seconds = {}, {}
        for name, (fn, x) in cases.items():
            executable, seconds[name] = compile_timed(fn, x)
            compiled[name] = (executable, (x,))
        best = interleaved_minima(compiled, 3 if quick else 15)
        row = {"problem": prefix}
        for name, value in best.items():
            label = name.removeprefix(prefix).strip()
            row[f"{label} [ms/step]"] = round(1e3 * value / n, 5)
            row[f"{label} compile [s]"] = round(seconds[name], 2)
        peers = [v for k, v in best.items() if "jaxsci" not in k]
        row["ratio scan/peer"] = round(best[f"{prefix} jaxsci scan"] / min(peers), 3)
        row["ratio diffrax/scan"] = round(
            best[f"{prefix} jaxsci diffrax"] / best[f"{prefix} jaxsci scan"], 3
        )
        rows.append(row)
        print(" | ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
    return rows


def kdv_accuracy():
    """Error on KdV u_t + u u_x + 0.05 u_xxx = 0 at equal steps, against a fine ETDRK4 solution."""
    import exponax as ex

    rows = []
    with jax.enable_x64(True):
        grid = FourierGrid(128, 2 * np.pi)
        x = grid.x[0]
        u = (jnp.cos(x) + 0.3 * jnp.sin(2 * x))[None]
        term = pde.korteweg_de_vries(grid, convection=1.0, dispersion=0.05)
        final = 0.5

        def solve(solver, n):
            return grid.ifft(jax.jit(bare_scan(solver, term, final / n, n))(grid.fft(u)))

        reference = solve(integrate.ETDRK4(), 3200)
        for n in (25, 50, 100, 200, 400):
            row = {"steps": n}
            for order, solver in ((2, integrate.ETDRK2()), (4, integrate.ETDRK4())):
                stepper = ex.stepper.KortewegDeVries(
                    1,
                    2 * np.pi,
                    128,
                    final / n,
                    convection_scale=1.0,
                    dispersivity=0.05,
                    hyper_diffusivity=0.0,
                    order=order,
                )
                theirs = jax.jit(exponax_scan(stepper, n))(u)
                row[f"jaxsci ETDRK{order}"] = float(jnp.abs(solve(solver, n) - reference).max())
                row[f"exponax order {order}"] = float(jnp.abs(theirs - reference).max())
            rows.append(row)
            print(" | ".join(f"{k}: {v:.3g}" for k, v in row.items()), flush=True)
    return rows


def reverse(quick):
    """Gradient of a loss of the state after 100 Navier-Stokes steps: time and memory."""
    rows = []
    size, n, dt = (64 if quick else 128), 100, 2e-3
    grid = FourierGrid((size, size), (2 * np.pi, 2 * np.pi))
    uh = grid.fft(ns_initial(grid))
    solver = integrate.ETDRK4()

    def loss_of(solve):
        def loss(viscosity, uh):
            term = pde.navier_stokes_2d(grid, viscosity=viscosity)
            return grid.norm(solve(term)(uh)) ** 2

        return jax.grad(loss, argnums=(0, 1))

    def checkpointed(mode):
        return lambda term: (
            lambda uh: integrate.rollout(
                solver, term, uh, dt=dt, num_steps=n, save_every=n, checkpoint=mode
            )[0]
        )

    fronts = {f"rollout {m}": checkpointed(m) for m in ("none", "step", "sqrt")}
    fronts["diffrax recursive"] = lambda term: through_diffrax(solver, term, dt, n)
    compiled, seconds = {}, {}
    arguments = (jnp.float32(1e-3), uh)
    for name, front in fronts.items():
        executable, seconds[name] = compile_timed(loss_of(front), *arguments)
        compiled[name] = (executable, arguments)
    forward_only, _ = compile_timed(bare_scan(solver, pde.navier_stokes_2d(grid), dt, n), uh)
    best = interleaved_minima(compiled | {"forward": (forward_only, (uh,))}, 2 if quick else 7)
    for name in fronts:
        memory = compiled[name][0].memory_analysis()
        row = {
            "front": name,
            "N": size,
            "seconds": round(best[name], 4),
            "ratio to forward": round(best[name] / best["forward"], 2),
            "temporary MB": round(memory.temp_size_in_bytes / 1e6, 2),
            "compile [s]": round(seconds[name], 2),
        }
        rows.append(row)
        print(" | ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    results = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "forward": forward(args.quick),
        "kdv": kdv_accuracy(),
        "reverse": reverse(args.quick),
    }
    write_json(args.json, results)


if __name__ == "__main__":
    main()
