"""Adan (arXiv:2208.06677), scaled down: digits with a tanh MLP, on a CPU in a minute.

    python benchmarks/papers/adan.py [--quick] [--json PATH]

Data, model and batches are those of `adahessian.py`: tanh MLP 64-64-32-10, 1000 steps of 64 digits,
8 seeds, constant learning rates. Beside it `optax.adan`, which weighs the difference of gradients
by 1 - b2 where the algorithm has b2, and Adam.

What must come out: at its best learning rate Adan ends at least three times below Adam and below
`optax.adan`, and five times below `optax.adan` at 0.01 and 0.03; a training step costs at most 1.2
of Adam's.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# CPU seconds of one thread, so that a busy machine does not disturb the comparison of costs.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _timing import write_json
from adahessian import adam, data_sets, trainer

from jaxsci.optim import adan

RATES, ADAM_RATES = (3e-3, 1e-2, 3e-2), (1e-3, 3e-3, 1e-2)


def optax_adan(lr):
    return optax.with_extra_args_support(optax.adan(lr))


METHODS = {"adan": (adan, RATES), "optax.adan": (optax_adan, RATES), "adam": (adam, ADAM_RATES)}


def cpu_seconds(advance, params, repeats):
    """Smallest CPU seconds of `advance(tx)(state, params)` for Adan and Adam, taking turns."""
    runs, best = {}, {"adam": float("inf"), "adan": float("inf")}
    for name, make in (("adam", adam), ("adan", adan)):
        tx = make(1e-3)
        step = jax.jit(advance(tx), donate_argnums=(0, 1))
        runs[name] = step, step(tx.init(params), jax.tree.map(jnp.copy, params))
    for _ in range(repeats):
        for name, (step, args) in runs.items():
            start = time.process_time()
            runs[name] = step, jax.block_until_ready(step(*args))
            best[name] = min(best[name], time.process_time() - start)
    return best


def cost(width, batch, repeats):
    """Cost of Adan's step over Adam's: of the update alone and of training a square tanh MLP."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = [jax.random.normal(k, (width, width), jnp.float32) / width**0.5 for k in keys]
    x = jax.random.normal(jax.random.key(1), (batch, width), jnp.float32)

    def loss(params):
        y = x
        for w in params:
            y = jnp.tanh(y @ w)
        return jnp.mean(y**2)

    def advance_by(grad):
        def advance(tx):
            def step(state, params):
                updates, state = tx.update(grad(params), state, params)
                return state, optax.apply_updates(params, updates)

            return step

        return advance

    alone = cpu_seconds(advance_by(lambda params: params), params, repeats)
    whole = cpu_seconds(advance_by(jax.grad(loss)), params, repeats)
    return {
        "update alone": alone["adan"] / alone["adam"],
        "training step": whole["adan"] / whole["adam"],
    }


def main():
    parser = argparse.ArgumentParser(description="Adan on digits, beside optax.adan and Adam.")
    parser.add_argument("--quick", action="store_true", help="50 steps, one seed, no verdict")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    steps, seeds = (50, [0]) if args.quick else (1000, list(range(8)))

    data, rows, early = data_sets(), {}, {}
    print(f"{'method':<12}{'lr':>8}{'train loss':>13}{'test acc':>10}{'seconds':>9}")
    for name, (make, rates) in METHODS.items():
        train = trainer(make, seeds, steps, data)
        for lr in rates:
            start = time.perf_counter()
            losses, accuracies = train(lr)
            rows[name, lr] = float(np.mean(losses)), float(np.mean(accuracies))
            seconds = time.perf_counter() - start
            print(
                f"{name:<12}{lr:>8g}{rows[name, lr][0]:>13.2e}{rows[name, lr][1]:>10.3f}"
                f"{seconds:>9.1f}",
                flush=True,
            )
        if not args.quick and name != "adam":
            early[name] = float(np.mean(trainer(make, seeds, 100, data)(3e-2)[0]))
            print(f"{name:<12}  loss after 100 steps at 0.03: {early[name]:.3f}")

    ratios = cost(*((64, 64, 5) if args.quick else (512, 512, 30)))
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} times Adam's")

    verdicts = {}
    if not args.quick:
        best = {m: min(loss for (name, _), (loss, _) in rows.items() if name == m) for m in METHODS}
        verdicts = {
            "best Adan is 3x below best Adam": 3 * best["adan"] <= best["adam"],
            "best Adan is 3x below best optax.adan": 3 * best["adan"] <= best["optax.adan"],
            "5x below optax.adan at 0.01 and 0.03": all(
                5 * rows["adan", lr][0] < rows["optax.adan", lr][0] for lr in (1e-2, 3e-2)
            ),
            "a training step costs at most 1.2 of Adam's": ratios["training step"] <= 1.2,
        }
        for claim, holds in verdicts.items():
            print(f"{claim}: {'yes' if holds else 'NO'}")
    table = [
        {"method": m, "learning_rate": lr, "train_loss": x[0], "test_accuracy": x[1]}
        for (m, lr), x in rows.items()
    ]
    about = {"steps": steps, "seeds": seeds, "jax": jax.__version__, "optax": optax.__version__}
    write_json(
        args.json, about | {"rows": table, "early": early, "cost": ratios, "verdicts": verdicts}
    )


if __name__ == "__main__":
    main()
