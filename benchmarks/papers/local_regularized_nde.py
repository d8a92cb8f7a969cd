"""Local regularisation of neural differential equations (arXiv:2303.02262), on digits, on a CPU.

    python benchmarks/papers/local_regularized_nde.py [--quick] [--json PATH] [--only WORD]

Neural ODE: scikit-learn digits / 16, permutation RandomState(0), 1400 to train on, 397 to test.
y' = f(t, y) on [0, 1], f a network 64+1 - 100 tanh - 64 with the time appended to the input of
either layer, then a linear classifier. Tsit5 at rtol = atol = 1.4e-8, float64, Adam 1e-3, batches
of 128, 400 steps, one key.

Neural SDE: a linear layer 64 - 32, drift 32 - 64 tanh - 32 and a linear diagonal diffusion, a
linear classifier. SPaRK at rtol = atol = 0.14, Adam 1e-2, 300 steps; test figures are means over 5
paths.

Baselines: no regularisation; the sums over all steps (Pal et al. 2021, arXiv:2105.03918); the mean
square of the second derivative along the solve (Kelly et al. 2020, arXiv:2007.04504).

What must come out: some weight cuts the evaluations at test time to 0.6 of those without
regularisation at no more than one point of accuracy, and a step of training costs no more than 1.3
times one without.
"""

import abc
import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optax

from jaxsci.integrate import GlobalRegularization, LocalRegularization, num_function_evaluations

sys.path.insert(0, str(Path(__file__).parents[1]))
from _digits import digits
from _timing import compile_timed, interleaved_minima, write_json

BATCH, WIDTH, HIDDEN = 128, 64, 100


def dense(key, n, m):
    bound = (6 / (n + m)) ** 0.5
    return {"w": jax.random.uniform(key, (n, m), float, -bound, bound), "b": jnp.zeros(m)}


def apply(layer, x):
    return x @ layer["w"] + layer["b"]


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


class Problem(abc.ABC):
    """Parameters, terms and solve; a regulariser turns a solve into (solution, penalty)."""

    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    learning_rate: float

    @abc.abstractmethod
    def terms(self, params, key, shape):
        """Terms of the equation, given a key for its noise and the shape of the state."""

    def start(self, params, x):
        return x

    def solve(self, params, x, key, solve=None):
        path, draw = jax.random.split(key)
        y0 = self.start(params, x)
        terms = self.terms(params, path, y0.shape)
        call = (terms, self.solver, 0.0, 1.0, self.dt0, y0, params)
        if solve is None:
            sol = diffrax.diffeqsolve(*call, stepsize_controller=self.controller)
            return sol, jnp.zeros(())
        return solve(*call, key=draw, stepsize_controller=self.controller)

    def loss(self, params, batch, key, solve, weight):
        x, labels = batch
        sol, penalty = self.solve(params, x, key, solve)
        return cross_entropy(apply(params["out"], sol.ys[-1]), labels) + weight * penalty


class NeuralODE(Problem):
    solver, controller = diffrax.Tsit5(), diffrax.PIDController(rtol=1.4e-8, atol=1.4e-8)
    learning_rate, dt0 = 1e-3, None

    def init(self, key):
        a, b, c = jax.random.split(key, 3)
        return {
            "in": dense(a, WIDTH + 1, HIDDEN),
            "back": dense(b, HIDDEN + 1, WIDTH),
            "out": dense(c, WIDTH, 10),
        }

    @staticmethod
    def field(t, y, params):
        with_time = lambda z: jnp.concatenate([z, jnp.full((*z.shape[:-1], 1), t)], -1)
        return apply(params["back"], with_time(jnp.tanh(apply(params["in"], with_time(y)))))

    def terms(self, params, key, shape):
        return diffrax.ODETerm(self.field)


class NeuralSDE(Problem):
    solver = diffrax.SPaRK()
    controller = diffrax.PIDController(rtol=0.14, atol=0.14, pcoeff=0.1, icoeff=0.3)
    learning_rate, dt0 = 1e-2, 0.05

    def init(self, key):
        a, b, c, d = jax.random.split(key, 4)
        return {
            "first": dense(a, 64, 32),
            "in": dense(b, 32, 64),
            "back": dense(c, 64, 32),
            "noise": 0.1 * jnp.ones(32),
            "out": dense(d, 32, 10),
        }

    def start(self, params, x):
        return apply(params["first"], x)

    def terms(self, params, key, shape):
        drift = lambda t, y, p: apply(p["back"], jnp.tanh(apply(p["in"], y)))
        diffusion = lambda t, y, p: lineax.DiagonalLinearOperator(p["noise"] * y)
        levy = diffrax.SpaceTimeLevyArea
        path = diffrax.VirtualBrownianTree(0.0, 1.0, 1e-3, shape, key, levy_area=levy)
        return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))


def taylor(terms, solver, t0, t1, dt0, y0, args, *, key, stepsize_controller):
    """The integral of mean |y''|^2 along the solve, as one more component of the state."""

    def field(t, state, params):
        y, _ = state
        vf = lambda t, y: terms.vf(t, y, params)
        f = vf(t, y)
        _, second = jax.jvp(vf, (t, y), (jnp.ones_like(t), f))
        return f, jnp.mean(second**2)

    term, start = diffrax.ODETerm(field), (y0, jnp.zeros(()))
    sol = diffrax.diffeqsolve(
        term, solver, t0, t1, dt0, start, args, stepsize_controller=stepsize_controller
    )
    ys, integral = sol.ys
    return diffrax.Solution(**{**vars(sol), "ys": ys}), integral[-1]


local = lambda *args, **options: LocalRegularization(*args, **options).solve
ODE_ROWS: dict[str, tuple[Any, float]] = {
    "none": (None, 0.0),
    "error, unbiased, initial step, w=1e6": (local("error", "unbiased", "initial"), 1e6),
    "error, biased, initial step, w=1e6": (local("error", "biased", "initial"), 1e6),
    "error, unbiased, initial step, w=2.5": (local("error", "unbiased", "initial"), 2.5),
    "error, unbiased, accepted step, w=0.3": (local("error", "unbiased"), 0.3),
    "error, biased, accepted step, w=0.3": (local("error", "biased"), 0.3),
    "error, biased, accepted step, w=1": (local("error", "biased"), 1.0),
    "stiffness, unbiased, w=0.1": (local("stiffness", "unbiased"), 0.1),
    "stiffness, biased, w=0.1": (local("stiffness", "biased"), 0.1),
    "all steps, error (ERNODE), w=1": (GlobalRegularization("error").solve, 1.0),
    "all steps, stiffness (SRNODE), w=0.01": (GlobalRegularization("stiffness").solve, 0.01),
    "second derivative (TayNODE), w=0.1": (taylor, 0.1),
}
SDE_ROWS: dict[str, tuple[Any, float]] = {
    "none": (None, 0.0),
    "error, biased, accepted step, w=1": (local("error", "biased"), 1.0),
    "error, biased, accepted step, w=10": (local("error", "biased"), 10.0),
}


def make_step(problem, solve, weight):
    tx = optax.adam(problem.learning_rate)

    def step(params, state, data, key):
        pick, draw = jax.random.split(key)
        x, labels = data
        rows = jax.random.choice(pick, len(labels), (BATCH,), replace=False)
        loss = lambda p: problem.loss(p, (x[rows], labels[rows]), draw, solve, weight)
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return step, tx


def evaluate(problem, params, data, paths):
    x, labels = data

    @jax.jit
    def once(key):
        sol, _ = problem.solve(params, x, key)
        right = jnp.argmax(apply(params["out"], sol.ys[-1]), -1) == labels
        steps, nfe = sol.stats["num_steps"], num_function_evaluations(sol, problem.solver)
        return right.mean(), steps, nfe

    tries = [once(jax.random.key(100 + i)) for i in range(paths)]
    return [float(np.mean(column)) for column in zip(*tries, strict=True)]


def run(problem, rows, steps, paths, repeats, only):
    train, test = ((jnp.asarray(x, float), jnp.asarray(y)) for x, y in digits(1400))
    params = problem.init(jax.random.key(0))
    contenders, results = {}, {}
    for name, (solve, weight) in rows.items():
        if only not in name:
            continue
        step, tx = make_step(problem, solve, weight)
        args = params, tx.init(params), train, jax.random.key(1)
        compiled, seconds = compile_timed(step, *args)
        contenders[name] = compiled, args
        results[name] = {"weight": weight, "compile_seconds": seconds}
    # At the first parameters all solve the same dynamics: what is left is the penalty.
    for name, seconds in interleaved_minima(contenders, repeats).items():
        results[name]["seconds_per_step_at_start"] = seconds
    print(f"\n{type(problem).__name__}, {steps} steps")
    print(f"{'penalty':<42}{'accuracy':>9}{'steps':>7}{'NFE':>7}{'s/step':>9}{'loss':>10}")
    for name, (step, (p, state, data, key)) in contenders.items():
        start = time.perf_counter()
        for k in jax.random.split(key, steps):
            p, state, value = step(p, state, data, k)
        jax.block_until_ready(p)
        accuracy, taken, nfe = evaluate(problem, p, test, paths)
        row = results[name]
        row |= {"accuracy": accuracy, "steps": taken, "nfe": nfe, "last_loss": float(value)}
        row["training_seconds"] = time.perf_counter() - start
        per_step = row["seconds_per_step_at_start"]
        line = f"{name:<42}{accuracy:>9.3f}{taken:>7.1f}{nfe:>7.1f}{per_step:>9.4f}"
        print(line + f"{float(value):>10.2e}", flush=True)
    return results


def verdicts(results):
    none = results.get("none")
    if none is None:
        return {}
    good = [
        name
        for name, row in results.items()
        if name.startswith(("error", "stiffness"))
        and row["nfe"] <= 0.6 * none["nfe"]
        and row["accuracy"] >= none["accuracy"] - 0.01
    ]
    slow = [
        name
        for name, row in results.items()
        if name.startswith(("error", "stiffness"))
        and row["seconds_per_step_at_start"] > 1.3 * none["seconds_per_step_at_start"]
    ]
    return {"NFE <= 0.6 at <= 1 point": good, "a step costs more than 1.3": slow}


def main():
    parser = argparse.ArgumentParser(description="Local regularisation on digits.")
    parser.add_argument("--quick", action="store_true", help="10 steps, no verdict")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    solve = partial(run, repeats=2 if args.quick else 10, only=args.only)
    ode = solve(NeuralODE(), ODE_ROWS, steps=10 if args.quick else 400, paths=1)
    sde = solve(NeuralSDE(), SDE_ROWS, steps=10 if args.quick else 300, paths=5)
    found = {} if args.quick else verdicts(ode)
    for claim, names in found.items():
        print(f"{claim}: {', '.join(names) or 'none'}")
    about = {"jax": jax.__version__, "diffrax": diffrax.__version__}
    about["device"] = str(jax.devices()[0].device_kind)
    write_json(args.json, {**about, "ode": ode, "sde": sde, "verdicts": found})


if __name__ == "__main__":
    main()
