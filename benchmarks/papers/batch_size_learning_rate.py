"""Learning rates from batch sizes (arXiv:2006.09092), scaled down to digits and CPU minutes.

    python benchmarks/papers/batch_size_learning_rate.py [--quick] [--json PATH]

Data: scikit-learn digits / 16; tanh networks with LeCun normal weights.

(a) The top eigenvalue of batch Hessians against the batch size, for a trained 64-8-10 network,
    beside the predictions from the noise along the top eigenvector.
(b) Learning rate and momentum from the curvature, refreshed every epoch, for a 64-32-10 network
    (weight decay 5e-4, batch 128, 15 epochs), beside a grid of constant rates.
(c) The largest learning rate that still trains a 64-16-10 network in 400 steps, and the best one,
    for batches of 2 to 128, with gradient descent and with Adam.

Bars: (a) sharpness falls with the batch size, prediction within 15 % from B = 128 on; (b) the
learned rates end within 20 % of the best of the grid and never diverge (c = 1, the limit itself,
is shown beside them); (c) Adam's exponent is
0.5 +- 0.1; that of the best rate of gradient descent is in [0.7, 1.1] up to B = 16 and below 0.5
from B = 32 on.
"""

import argparse
import json
import platform
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _digits import digits, init_mlp, tanh_mlp

from jaxsci.curvature import extremal_eigs, hessian_operator, hvp, rmt
from jaxsci.optim import curvature_schedule

(X, Y), _ = digits(1797)
X, Y = jnp.asarray(X, jnp.float32), jnp.asarray(Y)


def loss(params, batch, decay=0.0):
    x, y = batch
    ce = optax.softmax_cross_entropy_with_integer_labels(tanh_mlp(params, x), y).mean()
    return ce + decay / 2 * sum(jnp.sum(p**2) for p in jax.tree.leaves(params))


def rows(indices, size=None):
    return X[:size][indices], Y[:size][indices]


def descend(tx, params, indices, decay=0.0):
    """Train on the given batches; returns the last parameters."""

    def step(carry, index):
        params, state = carry
        grads = jax.grad(loss)(params, rows(index), decay)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), indices)[0][0]


def spectra(quick):
    sizes, n = (8, 16, 32, 64, 128, 256, 512), X.shape[0]
    draws = 10 if quick else 40
    g = np.random.default_rng(0)
    batches = lambda size, count: np.stack([g.permutation(n)[:size] for _ in range(count)])

    @jax.jit
    def trained(key, indices):
        return descend(optax.sgd(0.2, 0.9), init_mlp(key, (64, 8, 10)), indices)

    @jax.jit
    def ends(params, batch):
        op = hessian_operator(lambda p: loss(p, batch), params)
        found = extremal_eigs(op, jax.random.key(1), 40)
        return found.smallest, found.largest, found.largest_vector

    @jax.jit
    def noise_along(params, lam1, u1, indices):
        batch_hvp = lambda i, v: hvp(lambda p: loss(p, rows(i)), params, v)
        return rmt.batch_noise(batch_hvp, lam1, u1, indices, n)

    results = []
    for seed in range(1 if quick else 3):
        train = jnp.asarray(g.integers(0, n, (300, 64)))
        params = trained(jax.random.key(seed), train)
        low, lam1, u1 = ends(params, (X, Y))
        noise = noise_along(params, lam1, u1, jnp.asarray(batches(32, 200)))
        table = []
        for size in sizes:
            found = [ends(params, rows(idx)) for idx in batches(size, draws)]
            top, bottom = (np.array([float(f[i]) for f in found]) for i in (1, 0))
            rules = ("perturbative", "self-consistent", "spiked")
            predicted = {r: float(rmt.batch_sharpness(lam1, noise, size, n, r)) for r in rules}
            row = {"batch": size, "measured": top.mean(), "median": float(np.median(top))}
            table.append(row | {"std": top.std(), "smallest": bottom.mean()} | predicted)
        print(f"(a) lam1 {float(lam1):.3f}, smallest {float(low):.3f}, noise {float(noise):.1f}")
        for row in table:
            print("   ", "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
        results.append({"lam1": float(lam1), "noise": float(noise), "table": table})
    return results


def learner(quick):
    size, batch, epochs, decay = 1437, 128, 5 if quick else 15, 5e-4
    seeds = range(2 if quick else 5)
    per_epoch = size // batch
    start = lambda seed: init_mlp(jax.random.key(seed), (64, 32, 10))
    order = np.stack(
        [
            np.stack([np.random.default_rng((s, e)).permutation(size) for e in range(epochs)])
            for s in seeds
        ]
    )[:, :, : per_epoch * batch]
    order = jnp.asarray(order.reshape(len(seeds), epochs, per_epoch, batch))
    train_data = (X[:size], Y[:size])
    starts = jax.tree.map(lambda *p: jnp.stack(p), *map(start, seeds))

    def score(params):
        value = loss(params, train_data, decay)
        right = jnp.argmax(tanh_mlp(params, X[size:]), -1) == Y[size:]
        return value, jnp.mean(right)

    @jax.jit
    def constant(rates, momentum):
        def one(rate, params, indices):
            tx = optax.sgd(rate, momentum)
            return score(descend(tx, params, indices.reshape(-1, batch), decay))

        over_seeds = jax.vmap(one, (None, 0, 0))
        return jax.vmap(over_seeds, (0, None, None))(rates, starts, order)

    @partial(jax.jit, static_argnames="momentum")
    def learned(momentum, scale):
        tx = optax.inject_hyperparams(optax.sgd)(learning_rate=1.0, momentum=0.0)

        def one(params, indices, key):
            def refreshed(params, e, previous):
                return curvature_schedule(
                    lambda p, b: loss(p, b, decay),
                    params,
                    train_data,
                    jax.random.fold_in(key, e),
                    batch,
                    previous=previous,
                    momentum=momentum,
                    scale=scale,
                )

            def epoch(carry, e):
                params, state, previous = carry
                rates = refreshed(params, e, previous)
                state.hyperparams.update(rates._asdict())

                def step(carry, index):
                    params, state = carry
                    grads = jax.grad(loss)(params, rows(index), decay)
                    updates, state = tx.update(grads, state, params)
                    return (optax.apply_updates(params, updates), state), None

                (params, state), _ = jax.lax.scan(step, (params, state), indices[e])
                return (params, state, rates), rates

            carry = (params, tx.init(params), refreshed(params, epochs, None))
            (params, _, _), rates = jax.lax.scan(epoch, carry, jnp.arange(epochs))
            return (*score(params), rates)

        keys = jax.random.split(jax.random.key(7), len(seeds))
        return jax.vmap(one)(starts, order, keys)

    grid = (0.03, 0.1, 0.3, 1.0)
    results = {}
    for name, momentum, scale in (
        ("gradient descent", 0.0, 0.7),
        ("gradient descent, c = 1", 0.0, 1.0),
        ("heavy ball", 0.9, 0.25),
    ):
        value, accuracy = constant(jnp.asarray(grid), momentum)
        best = int(np.nanargmin(np.mean(value, 1)))
        own, own_accuracy, rates = learned(momentum > 0, scale)
        results[name] = {
            "grid": {str(lr): float(v) for lr, v in zip(grid, np.mean(value, 1), strict=True)},
            "best": float(np.mean(value, 1)[best]),
            "best accuracy": float(np.mean(accuracy, 1)[best]),
            "learned": float(np.mean(own)),
            "learned accuracy": float(np.mean(own_accuracy)),
            "worst seed": float(np.max(own)),
            "rates": np.asarray(rates.learning_rate).mean(0).tolist(),
            "momenta": np.asarray(rates.momentum).mean(0).tolist(),
        }
        print(f"(b) {name}: " + json.dumps(results[name]), flush=True)
    return results


def exponent(sizes, rates):
    return float(np.polyfit(np.log(sizes), np.log(rates), 1)[0])


def lowest(rates, values):
    """Where the parabola through the lowest point and its neighbours, in logarithms, is lowest."""
    i = int(np.clip(np.argmin(values), 1, len(values) - 2))
    y = np.log(np.minimum(values[i - 1 : i + 2], 1e3))
    curve = y[0] - 2 * y[1] + y[2]
    shift = np.clip(0.5 * (y[0] - y[2]) / curve, -1, 1) if curve > 0 else np.argmin(y) - 1
    return float(rates[i] * (rates[1] / rates[0]) ** shift)


def largest_rates(quick):
    sizes = (2, 8, 32, 128) if quick else (2, 4, 8, 16, 32, 64, 128)
    steps, n = 400, X.shape[0]
    grids = {
        "gradient descent": 0.1 * 2 ** (np.arange(12) / 2),
        "adam": 0.022365 * 2 ** (np.arange(10) / 2),
    }
    starts = [init_mlp(jax.random.key(s), (64, 16, 10)) for s in range(3)]
    starts = jax.tree.map(lambda *p: jnp.stack(p), *starts)
    results = {}
    for name, make in (("gradient descent", optax.sgd), ("adam", optax.adam)):

        @jax.jit
        def final(rates, indices, make=make):
            def one(rate, params, idx):
                return loss(descend(make(rate), params, idx), (X, Y))

            over_seeds = jax.vmap(one, (None, 0, 0))
            return jax.vmap(over_seeds, (0, None, None))(rates, starts, indices)

        largest, best = [], []
        for size in sizes:
            drawn = np.random.default_rng(size).integers(0, n, (3, steps, size))
            values = np.mean(final(jnp.asarray(grids[name], jnp.float32), jnp.asarray(drawn)), 1)
            values = np.where(np.isfinite(values), values, np.inf)
            largest.append(float(grids[name][np.flatnonzero(values < 1)[-1]]))
            best.append(lowest(grids[name], values))
        small = [i for i, b in enumerate(sizes) if b <= 16]
        large = [i for i, b in enumerate(sizes) if b >= 32]
        pick = lambda x, where: [x[i] for i in where]
        results[name] = {
            "batch": sizes,
            "largest": largest,
            "best": best,
            "exponent of the largest": exponent(sizes, largest),
            "exponent of the best, B <= 16": exponent(pick(sizes, small), pick(best, small)),
            "exponent of the best, B >= 32": exponent(pick(sizes, large), pick(best, large)),
        }
        print(f"(c) {name}: " + json.dumps(results[name]), flush=True)
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    results = {
        "machine": {"platform": platform.platform(), "device": str(jax.devices()[0])},
        "spectra": spectra(args.quick),
        "learner": learner(args.quick),
        "largest rates": largest_rates(args.quick),
    }
    tables = [r["table"] for r in results["spectra"]]
    mean = lambda what: np.mean([[row[what] for row in table] for table in tables], axis=0)
    measured, predicted = mean("measured"), mean("perturbative")
    large = np.array([row["batch"] >= 128 for row in tables[0]])
    errors = np.abs(predicted / measured - 1)[large]
    rates = results["largest rates"]
    descent = rates["gradient descent"]
    bars = {
        "sharpness falls with the batch size": np.all(np.diff(measured) < 0),
        "prediction within 15 % from B = 128 on": max(errors) <= 0.15,
        "learned within 20 % of the best of the grid": all(
            r["learned"] <= 1.2 * r["best"]
            for name, r in results["learner"].items()
            if not name.endswith("c = 1")
        ),
        "no seed diverges": all(r["worst seed"] < 1 for r in results["learner"].values()),
        "Adam's exponent is 0.5 +- 0.1": abs(rates["adam"]["exponent of the largest"] - 0.5) <= 0.1,
        "best rate of gradient descent, B <= 16": 0.7
        <= descent["exponent of the best, B <= 16"]
        <= 1.1,
        "best rate of gradient descent, B >= 32": descent["exponent of the best, B >= 32"] < 0.5,
    }
    for bar, met in bars.items():
        print(f"{'met' if met else 'MISSED':7}{bar}")
    results["bars"] = {bar: bool(met) for bar, met in bars.items()}
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
