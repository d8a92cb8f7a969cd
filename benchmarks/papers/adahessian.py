"""AdaHessian (arXiv:2006.00719), scaled down: digits with a tanh MLP, on a CPU in a minute or two.

    python benchmarks/papers/adahessian.py [--quick] [--json PATH]

Data: scikit-learn digits / 16, permutation RandomState(0), 1437 to train on, 360 to test.
Model: tanh MLP 64-64-32-10, LeCun normal weights. Batches of 64 drawn with replacement, 1000 steps,
3 seeds, constant learning rate, the best of three for each method by the mean over seeds of the
final loss on the whole training set.

What must come out: averaging over the fan-in beats no averaging by more than a factor of two, and
reaches at most Adam's loss. The factor is not a constant of nature: over eight seeds at learning
rate 0.15 it is 3.1 here, and 1.9 when batches are drawn in epochs without replacement.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _digits import digits, init_mlp, tanh_mlp

from jaxsci.optim import adahessian, BlockAxes

SIZES = (64, 64, 32, 10)
BATCH = 64


def data_sets():
    return tuple((np.asarray(x, np.float32), y) for x, y in digits(1437))


def init_params(key):
    return init_mlp(key, SIZES)


def loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(tanh_mlp(params, x), y).mean()


def batches(seed, steps, size):
    return np.random.default_rng(seed).integers(0, size, (steps, BATCH))


def trainer(make, seeds, steps, data):
    """Learning rate -> final training loss and test accuracy of every seed."""
    (x, y), (x_test, y_test) = jax.tree.map(jnp.asarray, data)

    def run(learning_rate, key, indices):
        tx, params = make(learning_rate), init_params(key)

        def step(carry, batch):
            params, state = carry
            obj_fn = lambda p: loss(p, x[batch], y[batch])
            grads = jax.grad(obj_fn)(params)
            updates, state = tx.update(grads, state, params, obj_fn=obj_fn)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), indices)
        accuracy = jnp.mean(jnp.argmax(tanh_mlp(params, x_test), -1) == y_test)
        return loss(params, x, y), accuracy

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    order = jnp.asarray(np.stack([batches(s, steps, len(y)) for s in seeds]))
    all_seeds = jax.jit(jax.vmap(run, in_axes=(None, 0, 0)))

    def train(learning_rate):
        losses, accuracies = all_seeds(jnp.float32(learning_rate), keys, order)
        return np.asarray(losses, float).tolist(), np.asarray(accuracies, float).tolist()

    return train


def adam(lr):
    return optax.with_extra_args_support(optax.adam(lr))


def variant(**options):
    return lambda lr: adahessian(lr, **options)


ADAM_RATES, RATES = (1e-3, 3e-3, 1e-2), (0.015, 0.05, 0.15)
FAN_IN: dict[str, Any] = {"block_axes": BlockAxes.flax_fan_in}
METHODS = {
    "adam": (adam, ADAM_RATES),
    "adahessian, no averaging": (variant(), RATES),
    "adahessian, fan-in averaging": (variant(**FAN_IN), RATES),
    "adahessian, power 1/2": (variant(hessian_power=0.5), RATES),
    "fan-in, interval 5": (variant(**FAN_IN, update_interval=5), RATES),
    "no averaging, interval 5": (variant(update_interval=5), RATES),
    "no averaging, interval 5, no warm-up": (
        variant(update_interval=5, refresh_warmup=0),
        RATES,
    ),
}


def main():
    parser = argparse.ArgumentParser(description="AdaHessian on digits, beside Adam.")
    parser.add_argument("--quick", action="store_true", help="50 steps, one seed, no verdict")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    steps, seeds = (50, [0]) if args.quick else (1000, [0, 1, 2])

    data, rows = data_sets(), {}
    print(f"{'method':<38}{'lr':>8}{'train loss':>13}{'test acc':>10}{'seconds':>9}")
    for name, (make, rates) in METHODS.items():
        train, tries = trainer(make, seeds, steps, data), []
        for lr in rates:
            start = time.perf_counter()
            losses, accuracies = train(lr)
            tries.append(
                {
                    "learning_rate": lr,
                    "train_loss": float(np.mean(losses)),
                    "test_accuracy": float(np.mean(accuracies)),
                    "train_loss_per_seed": losses,
                    "test_accuracy_per_seed": accuracies,
                    "seconds": time.perf_counter() - start,
                }
            )
        finite = [t for t in tries if np.isfinite(t["train_loss"])]
        best = min(finite or tries, key=lambda t: t["train_loss"])
        rows[name] = {"best": best, "tries": tries}
        print(
            f"{name:<38}{best['learning_rate']:>8g}{best['train_loss']:>13.2e}"
            f"{best['test_accuracy']:>10.3f}{sum(t['seconds'] for t in tries):>9.1f}",
            flush=True,
        )

    verdicts = {}
    if not args.quick:
        final = {name: row["best"]["train_loss"] for name, row in rows.items()}
        averaged = final["adahessian, fan-in averaging"]
        verdicts = {
            "averaging beats no averaging by > 2x": averaged * 2
            < final["adahessian, no averaging"],
            "averaging reaches Adam's loss": averaged <= final["adam"],
        }
        for claim, holds in verdicts.items():
            print(f"{claim}: {'yes' if holds else 'NO'}")
    if args.json:
        about = {
            "steps": steps,
            "seeds": seeds,
            "jax": jax.__version__,
            "optax": optax.__version__,
            "device": str(jax.devices()[0]),
            "machine": platform.machine(),
        }
        args.json.write_text(json.dumps({**about, "rows": rows, "verdicts": verdicts}, indent=1))


if __name__ == "__main__":
    main()
