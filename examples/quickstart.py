"""Learn a closure of an active fluid, and run it against the truth.

    python examples/quickstart.py [--fast | --full] [--out DIRECTORY]

Rod-like swimmers in a viscous fluid obey a kinetic equation in position and orientation. Its second
moment obeys a far cheaper equation, which needs a closure. This script

1. simulates the kinetic equation with a differentiable pseudo-spectral solver,
2. learns a realisable closure from snapshots, with a second-order optimizer,
3. trains it further through the solver,
4. runs kinetic theory, the Bingham closure and the learned one side by side, from several
   initial states, since the flow is chaotic,

prints a table and writes a figure and the numbers. The default takes minutes on two CPU cores,
`--fast` about one; `--full` trains longer, on a finer grid and in float64, and adds the quadratic
closure.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsci import closures, integrate, optim, train
from jaxsci.closures import ActiveFluid, ActiveFluidParams
from jaxsci.spectral import FourierGrid, valid_time


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment; times in units of the kinetic equation."""

    points: int = 48
    end: float = 80.0
    seeds: int = 3
    modes: int = 16
    train_points: int = 32
    train_end: float = 20.0
    snapshot_steps: int = 300
    solver_steps: int = 16
    kinetic_dt: float = 0.01
    moment_dt: float = 0.02


FAST = Settings(
    points=32, end=12.0, seeds=1, modes=8, train_end=10.0, snapshot_steps=60, solver_steps=3
)
FULL = Settings(points=64, snapshot_steps=1000, solver_steps=60, moment_dt=0.01)
LENGTH = 10.0
SAVE = 0.5  # time between saved states


def make_fluid(points, modes):
    """The kinetic model: extensile swimmers that align."""
    params = ActiveFluidParams(alpha=-3.0, beta=0.8, zeta=0.5, d_t=0.05, d_r=0.05, v0=0.0)
    return ActiveFluid(FourierGrid((points, points), (LENGTH, LENGTH)), params, modes)


def random_starts(fluid, key, num):
    """Random states of uniform density, stacked."""
    keys = jax.random.split(key, num)
    return jax.lax.map(lambda k: fluid.random_state(k, uniform_density=True), keys)


def moment_system(kinetic, closure):
    """The moment equations with a closure. The tolerance suits a network in float32."""
    return ActiveFluid(
        kinetic.grid, kinetic.params, 1, closure, stokes=closures.PicardStokes(rtol=1e-4)
    )


@eqx.filter_jit
def simulate(fluid, starts, dt, num_saves, save_every):
    """From each start, states at `num_saves + 1` times, `save_every` steps of `dt` apart."""

    def one(y0):
        return integrate.rollout(
            integrate.SBDF2(),
            fluid.term(),
            y0,
            dt=dt,
            num_steps=num_saves * save_every,
            save_every=save_every,
            include_initial=True,
        )

    return jax.lax.map(one, starts)


def run(fluid, starts, end, dt, every=SAVE):
    """Simulate to time `end`; the states, and the seconds for one unit of time once compiled."""
    arguments = fluid, starts, jnp.asarray(dt), round(end / every), round(every / dt)
    compiled = simulate.lower(*arguments).compile()
    start = time.perf_counter()
    ys = jax.block_until_ready(compiled(*arguments))
    return ys, (time.perf_counter() - start) / (end * len(starts["a"]))


def adahessian(learning_rate, num_steps, **options):
    """The second-order optimizer, averaging curvature over the inputs of each neuron."""
    return optim.adahessian(
        optax.cosine_decay_schedule(learning_rate, num_steps),
        block_axes=optim.BlockAxes.equinox_fan_in,
        **options,
    )


def train_on_snapshots(kinetic, ys, num_steps, key, progress=True):
    """A-priori: fit S:T at the grid points of ten snapshots."""
    picks = jnp.linspace(ys["a"].shape[0] // 10, ys["a"].shape[0] - 1, 10).astype(int)
    points = closures.contraction_data(kinetic, {"a": ys["a"][picks]}).points()
    network = closures.sine_mlp(3, 3, width=24, depth=3, key=key)
    return train.fit(
        closures.contraction_loss,
        closures.LearnedFourthHarmonic(network),
        train.minibatches(points, 2048),
        adahessian(0.05, num_steps),
        key=key,
        num_steps=num_steps,
        progress=progress,
    )


def train_through_solver(kinetic, ys, closure, dt, every, num_steps, key, progress=True):
    """A-posteriori: match the kinetic trajectory over one unit of time after many starts."""
    windows = closures.trajectory_windows(kinetic, ys, num_saves=round(1.0 / every))
    loss = closures.rollout_loss(
        lambda c: moment_system(kinetic, c), dt=dt, save_every=round(every / dt)
    )
    return train.fit(
        loss,
        closure,
        train.minibatches(windows, 4),
        adahessian(0.01, num_steps, update_interval=4, refresh_warmup=2),
        key=key,
        num_steps=num_steps,
        log_every=1,
        progress=progress,
    )


@eqx.filter_jit
def statistics(fluid, ys):
    """Mean speed, order parameter and velocity spectrum at each saved time."""

    def one(y):
        f = fluid.fields(y)
        _, spectrum = fluid.velocity_spectrum(y)
        return {
            "speed": closures.mean_speed(f.velocity),
            "order": jnp.mean(closures.order_parameter(f.c, f.z)),
            "spectrum": spectrum,
        }

    return jax.lax.map(lambda trajectory: jax.lax.map(one, trajectory), ys)


@eqx.filter_jit
def agreement_time(fluid, ys, truth, times):
    """How long the order field follows the truth with a correlation above 0.9, mean over starts."""

    def one(a, b):
        z, z_true = fluid.grid.ifft(a[:, 1]), fluid.grid.ifft(b[:, 1])
        parts = lambda w: jnp.stack([w.real, w.imag], axis=1)
        return valid_time(times, parts(z), parts(z_true))

    return jnp.mean(jax.vmap(one)(ys["a"], truth["a"]))


def a_priori_error(closure, data):
    """Relative error of S:T over the snapshots of a run that was not trained on."""
    return float(jnp.mean(closures.contraction_errors(closure, data)))


def second_half(values):
    """Mean over the second half of the saved times, for each start."""
    values = np.asarray(values)
    return values[:, values.shape[1] // 2 :].mean(axis=1)


def summary(stats, error, agreement, seconds):
    """The numbers of one model: means over starts, and their spread."""
    speed, order = second_half(stats["speed"]), second_half(stats["order"])
    return {
        "speed": [float(speed.mean()), float(speed.std())],
        "order": [float(order.mean()), float(order.std())],
        "spectrum": second_half(stats["spectrum"]).mean(axis=0).tolist(),
        "error": error,
        "agreement": agreement,
        "seconds": seconds,
    }


def table(rows):
    """The comparison as text."""
    heads = ("mean speed", "order parameter", "E(1)", "E(2)", "E(3)")
    widths = (15, 15, 7, 7, 7)
    lines = [
        " " * 10
        + " ".join(f"{h:>{w}}" for h, w in zip(heads, widths))
        + f" {'a-priori error':>14} {'follows truth to t':>18} {'s / unit time':>13}"
    ]
    for name, row in rows.items():
        cells = [f"{mean:.3f} +- {spread:.3f}" for mean, spread in (row["speed"], row["order"])]
        cells += [f"{e:.4f}" for e in row["spectrum"][1:4]]
        line = f"{name:10}" + " ".join(f"{c:>{w}}" for c, w in zip(cells, widths))
        error = "" if row["error"] is None else f"{row['error']:.2e}"
        agreement = "" if row["agreement"] is None else f"{row['agreement']:.1f}"
        lines.append(f"{line} {error:>14} {agreement:>18} {row['seconds']:13.3f}")
    return "\n".join(lines)


def figure(runs, times, path):
    """Vorticity and order parameter of each model, time series and spectra."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = int(np.searchsorted(times, min(12.0, times[-1])))  # before chaos parts the runs
    fig, axes = plt.subplots(3, 3, figsize=(10, 9.2), layout="constrained")
    compared = {name: runs[name] for name in ("kinetic", "Bingham", "learned")}
    fields = {
        name: fluid.fields({"a": ys["a"][0, shown]}) for name, (fluid, ys, _) in compared.items()
    }
    scale = float(jnp.max(jnp.abs(fields["kinetic"].vorticity)))
    box = {"origin": "lower", "extent": (0, LENGTH, 0, LENGTH)}
    for column, (name, f) in enumerate(fields.items()):
        vorticity = axes[0, column].imshow(
            f.vorticity.T, cmap="RdBu_r", vmin=-scale, vmax=scale, **box
        )
        order = axes[1, column].imshow(
            closures.order_parameter(f.c, f.z).T, cmap="viridis", vmin=0, vmax=1, **box
        )
        axes[0, column].set_title(name)
        for row in (0, 1):
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
    axes[0, 0].set_ylabel(f"vorticity, t = {times[shown]:g}")
    axes[1, 0].set_ylabel("order parameter")
    fig.colorbar(vorticity, ax=axes[0, :], shrink=0.8)
    fig.colorbar(order, ax=axes[1, :], shrink=0.8)
    for name, (_, _, stats) in runs.items():
        axes[2, 0].plot(times, stats["speed"].mean(axis=0), label=name)
        axes[2, 1].plot(times, stats["order"].mean(axis=0), label=name)
        spectrum = second_half(stats["spectrum"]).mean(axis=0)
        axes[2, 2].loglog(range(1, 12), spectrum[1:12], marker=".", label=name)
    for axis, title, label in zip(
        axes[2],
        ("mean speed", "mean order parameter", "velocity spectrum"),
        ("t", "t", "k L / 2π"),
    ):
        axis.set(title=title, xlabel=label)
    axes[2, 2].legend()
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main():
    """Run the story and write its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--fast", action="store_true", help="about a minute")
    size.add_argument("--full", action="store_true", help="longer training, float64")
    parser.add_argument("--out", default="results/quickstart", help="directory of the results")
    arguments = parser.parse_args()
    s = FAST if arguments.fast else FULL if arguments.full else Settings()
    if arguments.full:
        jax.config.update("jax_enable_x64", True)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    def stage(text):
        print(f"[{time.perf_counter() - began:6.1f} s] {text}", flush=True)

    train_key, eval_key, network_key, fit_key = jax.random.split(jax.random.key(0), 4)

    stage(f"kinetic theory for training: {s.train_points}^2 points, to t = {s.train_end:g}")
    small = make_fluid(s.train_points, s.modes)
    every = 0.2
    train_ys, _ = run(small, random_starts(small, train_key, 1), s.train_end, s.kinetic_dt, every)
    train_ys = jax.tree.map(lambda x: x[0], train_ys)

    stage(f"kinetic theory as the truth: {s.points}^2 points, {s.seeds} starts, to t = {s.end:g}")
    kinetic = make_fluid(s.points, s.modes)
    starts = random_starts(kinetic, eval_key, s.seeds)
    truth, kinetic_seconds = run(kinetic, starts, s.end, s.kinetic_dt)
    fresh = closures.contraction_data(kinetic, {"a": truth["a"][0, 1:41]})

    stage(f"learning from ten snapshots: {s.snapshot_steps} steps of AdaHessian")
    snapshots = train_on_snapshots(small, train_ys, s.snapshot_steps, network_key)

    stage(f"learning through the solver: {s.solver_steps} steps of AdaHessian")
    trained = train_through_solver(
        small, train_ys, snapshots.model, 0.02, every, s.solver_steps, fit_key
    )

    stage("running the closures against the truth")
    models = {
        "kinetic": (kinetic, None, truth, kinetic_seconds),
    }
    candidates = {"Bingham": closures.BinghamClosure(), "learned": trained.model}
    if arguments.full:
        candidates["quadratic"] = closures.QuadraticFourthHarmonic()
    for name, closure in candidates.items():
        fluid = moment_system(kinetic, closure)
        ys, seconds = run(fluid, kinetic.coarse_state(starts), s.end, s.moment_dt)
        models[name] = (fluid, closure, ys, seconds)

    times = jnp.arange(truth["a"].shape[1]) * SAVE
    rows, runs = {}, {}
    for name, (fluid, closure, ys, seconds) in models.items():
        stats = statistics(fluid, ys)
        runs[name] = (fluid, ys, stats)
        error = agreement = None
        if closure is not None:
            error = a_priori_error(closure, fresh)
            agreement = float(agreement_time(fluid, ys, truth, times))
        rows[name] = summary(stats, error, agreement, seconds)
    print()
    print(table(rows))
    print("(means over starts and the second half of the run, +- spread over starts)\n")
    (out / "quickstart.json").write_text(json.dumps(rows, indent=2) + "\n")
    figure(runs, times, out / "quickstart.png")
    train.save(out / "closure", trained.model)
    stage(f"figure, numbers and closure written to {out}")


if __name__ == "__main__":
    main()
