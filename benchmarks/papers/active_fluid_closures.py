"""Closures of an active fluid (arXiv:2308.06675), scaled down: minutes on two CPU cores.

    python benchmarks/papers/active_fluid_closures.py [--quick] [--json FILE]

Extensile swimmers that align, (alpha, beta, zeta) = (-3, 0.8, 0.5), d_t = d_r = 0.05, in a box of
L = 10 with 64^2 points: the kinetic theory with angular modes up to 32 (M = 16) is the truth, the
moment system closed in four ways is compared with it. SBDF2 from random, nearly isotropic states of
uniform density to T = 80; statistics over t >= 40. The flow is chaotic, so all numbers are means
over several starts. Algebraic closures and the kinetic theory run in float64 with dt = 0.01 and the
Stokes problem solved to 1e-9; the learned ones have float32 weights in float64 fields, dt = 0.02
and the Stokes problem solved to 1e-4 in the largest coefficient.

- paper MLP: five coefficients of the tensor basis from three invariants, 10 655 parameters.
- realisable: a_4 kept in the disc that a density allows, three coefficients, same width and depth.

Both learn S:T a-priori from ten snapshots of a run that is in no other number: 4000 steps of Adam
on batches of 4096 points, learning rate 1e-3 with cosine decay. A-priori errors are measured on
snapshots of the first start, t <= 20, in two ways: the paper's (relative to each component of each
snapshot, then averaged), and pooled (all squares summed before dividing), which late, strongly
ordered snapshots dominate.

Random states are drawn by JAX: starts, and so early order parameters, differ from those of the
authors' NumPy generator.

The last table is the cost of one right-hand side of the kinetic theory, in angular modes against
the tensor form on a grid of angles that the authors' code uses, both with a single Picard sweep for
the stress and both in NumPy, and of the library's, which solves the Stokes problem to tolerance.
"""

import argparse
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[1]))
from _timing import interleaved_minima, write_json

from jaxsci import closures, integrate, train
from jaxsci.closures import ActiveFluid, ActiveFluidParams
from jaxsci.spectral import FourierGrid

ALPHA, BETA, ZETA, DIFFUSION, LENGTH = -3.0, 0.8, 0.5, 0.05, 10.0
LEARNED = ("paper MLP", "realisable")


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment; times in units of the kinetic equation."""

    points: int = 64
    modes: int = 16
    end: float = 80.0
    starts: int = 3
    dt: float = 0.01
    dt_learned: float = 0.02
    snapshot_end: float = 20.0
    train_steps: int = 4000
    batch: int = 4096
    timing_repeats: int = 20


QUICK = Settings(
    points=32,
    modes=12,
    end=12.0,
    starts=1,
    snapshot_end=8.0,
    train_steps=200,
    batch=1024,
    timing_repeats=3,
)


@eqx.filter_jit
def simulate(fluid, starts, dt, num_saves, save_every):
    """Orders 0, 2 and 4 (where stored) at equal distances in time from 0 on, for each start."""

    def one(y0):
        return integrate.rollout(
            integrate.SBDF2(),
            fluid.term(),
            y0,
            dt=dt,
            num_steps=num_saves * save_every,
            save_every=save_every,
            include_initial=True,
            save=lambda t, y, args: {"a": y["a"][:3]},
        )

    return jax.lax.map(one, starts)


def run(fluid, starts, end, dt, every):
    """Saved orders to time `end`, and the seconds a unit of time takes once compiled."""
    arguments = fluid, starts, jnp.asarray(dt), round(end / every), round(every / dt)
    jitted: Any = simulate
    compiled = jitted.lower(*arguments).compile()
    begun = time.perf_counter()
    ys = jax.block_until_ready(compiled(*arguments))
    return ys, (time.perf_counter() - begun) / (end * len(starts["a"]))


@eqx.filter_jit
def statistics(fluid, ys):
    """Mean speed, order parameter and velocity spectrum of each saved state."""

    def one(y):
        f = fluid.fields(y)
        return {
            "speed": closures.mean_speed(f.velocity),
            "order": jnp.mean(closures.order_parameter(f.c, f.z)),
            "spectrum": fluid.velocity_spectrum(y)[1][:5],
        }

    return jax.lax.map(lambda trajectory: jax.lax.map(one, trajectory), ys)


def summary(stats, times):
    """Means over starts and the second half; std in time; standard error over starts."""
    row: dict[str, Any] = {}
    late = times >= times[-1] / 2
    for name in ("speed", "order"):
        x = np.asarray(stats[name])[:, late]
        means = x.mean(axis=1)
        error = means.std(ddof=1) / len(means) ** 0.5 if len(means) > 1 else None
        row[name] = {
            "mean": float(means.mean()),
            "std_in_time": float(x.std(axis=1).mean()),
            "standard_error": None if error is None else float(error),
            "per_start": means.tolist(),
        }
    row["spectrum"] = np.asarray(stats["spectrum"])[:, late, 1:5].mean(axis=(0, 1)).tolist()
    for t in (2.0, 5.0):
        early = int(np.searchsorted(times, t - 1e-6))
        row[f"order_at_{t:g}"] = float(np.asarray(stats["order"])[:, early].mean())
    finite = np.isfinite(np.asarray(stats["order"])).all(axis=0)
    row["ran_to"] = float(times[-1] if finite.all() else times[int(np.argmin(finite)) - 1])
    return row


def single_precision(tree):
    """Every floating-point array of a pytree in single precision."""

    def cast(x):
        if not eqx.is_inexact_array(x):
            return x
        return x.astype(jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32)

    return jax.tree.map(cast, tree)


def learn(closure, data, steps, batch, key):
    """Fit S:T at the grid points of snapshots; the closure and the seconds taken."""
    order_key, fit_key = jax.random.split(key)
    begun = time.perf_counter()
    result = train.fit(
        closures.contraction_loss,
        single_precision(closure),
        train.minibatches(single_precision(data.points()), batch, key=order_key),
        optax.adam(optax.cosine_decay_schedule(1e-3, steps)),
        key=fit_key,
        num_steps=steps,
        log_every=max(1, steps // 10),
    )
    return result.model, time.perf_counter() - begun


@eqx.filter_jit
def a_priori(closure, data):
    """Relative squared error of S:T: averaged over components and snapshots, and pooled."""
    predicted = jax.vmap(lambda c, z, e, zeta: closures.contracted_moment(closure, c, z, e, zeta))(
        data.c, data.z, data.eps, data.zeta
    )
    averaged = jnp.mean(closures.contraction_errors(closure, data))
    return averaged, jnp.sum((predicted - data.target) ** 2) / jnp.sum(data.target**2)


class Plane:
    """Spectral derivatives and the Stokes operator in the periodic plane."""

    def __init__(self, n):
        index = np.fft.fftfreq(n, 1 / n)
        keep = np.abs(index) < n / 3
        self.keep = keep[:, None] & keep
        k = 2 * np.pi / LENGTH * index
        self.k2 = k[:, None] ** 2 + k**2
        odd = np.where(index == -n // 2, 0, k)
        self.k = np.stack(np.meshgrid(odd, odd, indexing="ij"))
        self.inverse = 1 / np.where(self.k2 > 0, self.k2, np.inf)


class ThetaGridForm:
    """d psi/dt for psi[x, y, theta], with moments by quadrature and tensors by `einsum`."""

    def __init__(self, n, angles):
        self.plane, self.angles = Plane(n), angles
        theta = 2 * np.pi * np.arange(angles) / angles
        self.p = np.stack([np.cos(theta), np.sin(theta)])
        self.perp = np.stack([-self.p[1], self.p[0]])
        self.weight = 2 * np.pi / angles
        self.pp = np.einsum("it,jt->ijt", self.p, self.p)
        self.pppp = np.einsum("ijt,klt->ijklt", self.pp, self.pp)
        self.m = np.fft.fftfreq(angles, 1 / angles)

    def density(self, a):
        """The density that has the angular modes a_0, a_2, ..., on the grid of angles."""
        orders = 2 * np.arange(len(a))
        theta = self.weight * np.arange(self.angles)
        waves = np.where(orders == 0, 1, 2)[:, None] * np.exp(-1j * np.outer(orders, theta))
        return np.ascontiguousarray(np.einsum("mxy,mt->xyt", a, waves).real / (2 * np.pi))

    def __call__(self, psi, strain):
        """The rate, from a density and the rate of strain of the previous step, E[2, 2, x, y]."""
        plane, eye = self.plane, np.eye(2)[:, :, None, None]
        d = self.weight * np.einsum("ijt,xyt->ijxy", self.pp, psi, optimize=True)
        s = self.weight * np.einsum("ijklt,xyt->ijklxy", self.pppp, psi, optimize=True)
        c = d[0, 0] + d[1, 1]
        dd = np.einsum("ikxy,kjxy->ijxy", d, d)
        sd, se = (np.einsum("ijklxy,klxy->ijxy", s, tensor) for tensor in (d, strain))
        sigma = ALPHA * (d - c * eye / 2) + BETA * se - 2 * ZETA * BETA * (dd - sd)
        force = np.einsum("jxy,ijxy->ixy", 1j * plane.k, np.fft.fft2(sigma))
        pressure = np.einsum("ixy,ixy->xy", plane.k, force) * plane.inverse
        uh = (force - plane.k * pressure) * plane.inverse
        u = np.fft.ifft2(uh).real
        grad = np.fft.ifft2(1j * plane.k[None] * uh[:, None]).real
        torque = grad + 2 * ZETA * d
        turning = np.einsum("it,ijxy,jt->xyt", self.perp, torque, self.p, optimize=True)
        rate = -1j * self.m * np.fft.fft(turning * psi, axis=-1)
        rate = np.fft.fft2(np.fft.ifft(rate, axis=-1).real, axes=(0, 1))
        for k, speed in zip(plane.k, u):
            rate -= 1j * k[..., None] * np.fft.fft2(speed[..., None] * psi, axes=(0, 1))
        psih = np.fft.fft2(psi, axes=(0, 1))
        rate = rate * plane.keep[..., None] - DIFFUSION * plane.k2[..., None] * psih
        rate = np.fft.ifft2(rate, axes=(0, 1)).real
        spread = np.fft.ifft(-(self.m**2) * np.fft.fft(psi, axis=-1), axis=-1).real
        return rate + DIFFUSION * spread

    def modes(self, psi, num):
        """Angular modes of the orders 0, 2, ... of a density."""
        waves = np.exp(1j * self.weight * np.outer(np.arange(self.angles), 2 * np.arange(num)))
        return self.weight * np.einsum("xyt,tm->mxy", psi, waves)


def angular_mode_rate(plane, a_hat, eps):
    """The rate of the coefficients of a_0, a_2, ..., with one sweep from the strain E11 + i E12."""
    a = np.fft.ifft2(a_hat)
    c, z, a4 = a[0].real, a[1], a[2]
    sigma = ALPHA * z / 2 + BETA * (c * eps + a4 * eps.conj()) / 4
    sigma -= ZETA * BETA * (c * z - a4 * z.conj()) / 4
    s11, s12 = np.fft.fft2(np.stack([sigma.real, sigma.imag]))
    kx, ky = plane.k
    cross, difference = 2 * kx * ky * plane.inverse, (kx**2 - ky**2) * plane.inverse
    w = cross * s11 - difference * s12
    stream = 1j * w * plane.inverse
    # The coefficients of two real fields travel as one complex field.
    u, strain, w = np.fft.ifft2(
        np.stack([(ky - 1j * kx) * stream, (-cross + 1j * difference) * w / 2, w])
    )
    tau = strain + ZETA * z
    above = np.concatenate([a[1:], np.zeros_like(a[:1])])
    below = np.concatenate([a[1:2].conj(), a[:-1]])
    m = 2 * np.arange(len(a))[:, None, None]
    local = m / 2 * (1j * w.real * a + tau * below - tau.conj() * above)
    flux_x, flux_y, local = np.fft.fft2(np.stack([u.real * a, u.imag * a, local]))
    rate = local - 1j * (kx * flux_x + ky * flux_y)
    return rate * plane.keep - DIFFUSION * (plane.k2 + m**2) * a_hat


def cost_of_right_hand_side(fluid, y, start, repeats):
    """Milliseconds of each form at the state `y`, and how far they differ at `start`.

    `start` has no angular order above 16, so that no form truncates it.
    """
    n, term = fluid.grid.shape[0], fluid.term()
    rhs = jax.jit(lambda y: term.vf(0.0, y, None)["a"])
    plane = Plane(n)
    forms = {f"theta grid, {t} angles": ThetaGridForm(n, t) for t in (64, 256)}

    def arguments(y):
        a = np.asarray(y["a"])
        eps: Any = np.asarray(fluid.fields(y).eps)
        tensor = np.array([[eps.real, eps.imag], [eps.imag, -eps.real]])
        return a, eps, tensor, np.fft.ifft2(a)

    a, eps, tensor, fields = arguments(start)
    truth = np.asarray(rhs(start))
    scale = np.abs(truth).max()
    found = {"angular modes": angular_mode_rate(plane, a, eps)}
    for name, form in forms.items():
        rate = form(form.density(fields), tensor)
        found[name] = np.fft.fft2(form.modes(rate, len(a)))
    difference = {name: float(np.abs(x - truth).max() / scale) for name, x in found.items()}

    a, eps, tensor, fields = arguments(y)
    contenders = {
        "jaxsci": (rhs, (y,)),
        "angular modes": (lambda a, eps: angular_mode_rate(plane, a, eps), (a, eps)),
    }
    for name, form in forms.items():
        contenders[name] = (form, (form.density(fields), tensor))
    seconds = interleaved_minima(contenders, repeats)
    return {
        name: {
            "milliseconds": 1e3 * s,
            "over_angular_modes": s / seconds["angular modes"],
            "over_jaxsci": s / seconds["jaxsci"],
            "difference_from_jaxsci": difference.get(name),
        }
        for name, s in seconds.items()
    }


def print_rows(rows, end):
    ran = {name: r for name, r in rows.items() if "speed" in r}
    print(
        f"\n{'model':<11}{'mean speed':>16}{'order s':>16}{'|s - s_kin|':>12}"
        f"{'E(1)':>8}{'E(2)':>9}{'E(3)':>9}{'E(4)':>9}{'s(2)':>8}{'s(5)':>8}"
        f"{'ran to':>8}{'s/unit':>8}"
    )
    for name, r in ran.items():
        cells = [f"{r[k]['mean']:.3f} +- {r[k]['std_in_time']:.3f}" for k in ("speed", "order")]
        spectrum = "".join(f"{e:>9.1e}" for e in r["spectrum"][1:])
        print(
            f"{name:<11}{cells[0]:>16}{cells[1]:>16}{r['order_difference']:>12.4f}"
            f"{r['spectrum'][0]:>8.3f}{spectrum}{r['order_at_2']:>8.4f}{r['order_at_5']:>8.4f}"
            f"{r['ran_to']:>8g}{r['seconds_per_unit_time']:>8.3f}"
        )
    print(f"(means over starts and t >= {end / 2:g}; +- is the std in time)")
    if len(rows["kinetic"]["speed"]["per_start"]) > 1:
        cells = ", ".join(
            f"{name} {r['speed']['standard_error']:.3f} {r['order']['standard_error']:.4f}"
            for name, r in ran.items()
        )
        print(f"(standard error over starts, of speed and order: {cells})")
    print(f"\n{'a-priori error of S:T':<24}{'averaged':>10}{'pooled':>10}")
    for name, r in rows.items():
        if "a_priori" in r:
            print(f"{name:<24}{r['a_priori']:>10.2e}{r['a_priori_pooled']:>10.2e}")


def print_cost(cost):
    print(
        f"\n{'one right-hand side':<24}{'ms':>8}{'/ angular modes':>17}{'/ jaxsci':>10}"
        f"{'differs by':>12}"
    )
    for name, r in cost.items():
        off = r["difference_from_jaxsci"]
        print(
            f"{name:<24}{r['milliseconds']:>8.2f}{r['over_angular_modes']:>17.2f}"
            f"{r['over_jaxsci']:>10.2f}{'' if off is None else f'{off:.0e}':>12}"
        )


def verdicts(rows):
    """What must come out."""
    error = {name: r["a_priori"] for name, r in rows.items() if "a_priori" in r}
    claims = {"Bingham is below a4 = z^2 a-priori": error["Bingham"] < error["a4 = z^2"]}
    end = rows["kinetic"]["ran_to"]
    for name in LEARNED:
        claims[f"{name} is below Bingham a-priori"] = error[name] < error["Bingham"]
        claims[f"{name} runs to the end"] = rows[name]["ran_to"] == end
        claims[f"{name}: |s - s_kin| < 0.01"] = rows[name]["order_difference"] < 0.01
    return claims


def main():
    parser = argparse.ArgumentParser(description="Closures of an active fluid, compared.")
    parser.add_argument("--quick", action="store_true", help="a small, short version, no verdict")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    s = QUICK if args.quick else Settings()
    begun = time.perf_counter()

    def stage(text):
        print(f"[{time.perf_counter() - begun:6.1f} s] {text}", flush=True)

    train_key, eval_key, network_key, fit_key = jax.random.split(jax.random.key(0), 4)
    params = ActiveFluidParams(alpha=ALPHA, beta=BETA, zeta=ZETA, d_t=DIFFUSION, d_r=DIFFUSION)
    grid = FourierGrid((s.points, s.points), (LENGTH, LENGTH))
    kinetic = ActiveFluid(grid, params, s.modes)
    # Flow and S:T depend on the orders 0, 2 and 4 only, which are all that is saved.
    lowest = ActiveFluid(grid, params, 2)
    every = 0.25

    def random_start(key):
        return kinetic.random_state(key, uniform_density=True)

    stage(f"kinetic theory for training, t <= {s.snapshot_end:g}")
    training_start = jax.tree.map(lambda x: x[None], random_start(train_key))
    training, _ = run(kinetic, training_start, s.snapshot_end, s.dt, every)
    snapshots = round(s.snapshot_end / every)
    picks = np.linspace(snapshots // 10, snapshots, 10).astype(int)
    data = closures.contraction_data(lowest, {"a": training["a"][0, picks]})

    stage(f"kinetic theory as the truth, {s.starts} starts, t <= {s.end:g}")
    starts = jax.lax.map(random_start, jax.random.split(eval_key, s.starts))
    truth, seconds = run(kinetic, starts, s.end, s.dt, every)
    fresh = closures.contraction_data(lowest, {"a": truth["a"][0, 1 : snapshots + 1]})
    times = every * np.arange(truth["a"].shape[1])
    rows: dict[str, dict[str, Any]] = {"kinetic": summary(statistics(lowest, truth), times)}
    rows["kinetic"] |= {"seconds_per_unit_time": seconds, "order_difference": 0.0, "dt": s.dt}

    candidates = {
        "a4 = 0": closures.IsotropicFourthHarmonic(),
        "a4 = z^2": closures.QuadraticFourthHarmonic(),
        "Bingham": closures.BinghamClosure(),
        "paper MLP": closures.TensorBasisClosure(closures.sine_mlp(3, 5, key=network_key)),
        "realisable": closures.LearnedFourthHarmonic(closures.sine_mlp(3, 3, key=network_key)),
    }
    for name, closure in candidates.items():
        row: dict[str, Any] = {}
        if name in LEARNED:
            stage(f"{name}: {s.train_steps} steps of Adam")
            closure, row["training_seconds"] = learn(closure, data, s.train_steps, s.batch, fit_key)
            weights = jax.tree.leaves(eqx.filter(closure, eqx.is_inexact_array))
            row["parameters"] = sum(w.size for w in weights)
        row["a_priori"], row["a_priori_pooled"] = map(float, a_priori(closure, fresh))
        rows[name] = row
        if name == "a4 = 0":
            continue
        stage(f"{name}: to t = {s.end:g}")
        stokes = closures.PicardStokes(rtol=1e-4) if name in LEARNED else None
        dt, saved = (s.dt_learned, 2 * every) if name in LEARNED else (s.dt, every)
        fluid = ActiveFluid(grid, params, 1, closure, stokes=stokes)
        ys, seconds = run(fluid, kinetic.coarse_state(starts), s.end, dt, saved)
        row |= summary(statistics(fluid, ys), saved * np.arange(ys["a"].shape[1]))
        row |= {"seconds_per_unit_time": seconds, "dt": dt}
        difference = row["order"]["mean"] - rows["kinetic"]["order"]["mean"]
        row["order_difference"] = abs(difference)

    stage("one right-hand side")
    first = jax.tree.map(lambda x: x[0], starts)
    # An ordered state with all its angular modes, where the Stokes problem is at its hardest.
    turn = 0.85 * jnp.exp(2j * np.pi / LENGTH * grid.coordinates()[0])
    ordered = kinetic.initial_state(turn ** jnp.arange(s.modes + 1)[:, None, None])
    cost = cost_of_right_hand_side(kinetic, ordered, first, s.timing_repeats)

    print_rows(rows, s.end)
    print_cost(cost)
    claims = {} if args.quick else verdicts(rows)
    for claim, holds in claims.items():
        print(f"{claim}: {'yes' if holds else 'NO'}")
    about = {
        "settings": asdict(s),
        "jax": jax.__version__,
        "device": str(jax.devices()[0]),
        "machine": platform.machine(),
        "seconds": time.perf_counter() - begun,
    }
    write_json(args.json, {**about, "rows": rows, "right_hand_side": cost, "verdicts": claims})
    stage("done")


if __name__ == "__main__":
    main()
