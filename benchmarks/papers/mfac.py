"""M-FAC (arXiv:2107.03356), scaled down: pruning and training on digits, on a CPU in minutes.

    python benchmarks/papers/mfac.py [--quick] [--json PATH]

- Pruning: ReLU MLP 64-64-32-10 trained by AdamW (3e-3, decay 1e-2, 1500 steps of 64 digits), pruned
  in one shot with 16 recomputations of 256 gradients on batches of 8, damping 1e-5, no fine-tuning,
  3 seeds. Test accuracy against sparsity, beside magnitude and the diagonal of the Fisher matrix.
- Training: data, model and batches of `adahessian.py`, M-FAC with 32 gradients.
- Cost: time to build the operator (about m^2 d) and of an optimizer's step (about m d), against m
  and d.

What must come out: at sparsity 0.75 and above, magnitude < diagonal < M-FAC, and M-FAC at least 0.3
above magnitude at 0.875; in training M-FAC below Adam; doubling m or d costs what it should.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _timing import compile_timed, interleaved_minima, write_json
from adahessian import adam, batches, data_sets, init_params, trainer

from jaxsci.curvature import EmpiricalFisherInverse, GradientWindow
from jaxsci.optim import mfac
from jaxsci.optim.pruning import (
    diagonal_fisher_scores,
    magnitude_scores,
    obs_prune,
    prune_mask,
)

SPARSITIES = (0.5, 0.75, 0.875, 0.9375)


def logits(params, x):
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]


def loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


@jax.jit
def accuracy(params, x, y):
    return jnp.mean(jnp.argmax(logits(params, x), -1) == y)


def trained(seed, data, steps):
    (x, y), _ = data
    tx = optax.adamw(3e-3, weight_decay=1e-2)

    @jax.jit
    def run(params, indices):
        def step(carry, batch):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, x[batch], y[batch]), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), indices)[0][0]

    return run(init_params(jax.random.key(seed)), batches(seed, steps, len(y)))


def small_batch_gradients(seed, data, number):
    """A function of the parameters: gradients on fresh batches of 8 at every call."""
    (x, y), _ = data
    rng = np.random.default_rng(100 + seed)
    stack = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))

    def gradients(params):
        picks = rng.integers(0, len(y), (number, 8))
        return stack(params, x[picks], y[picks])

    return gradients


def masked(params, mask):
    return jax.tree.map(lambda p, m: jnp.where(m, p, 0), params, mask)


def pruners(seed, data, number, recompute):
    fresh = lambda: small_batch_gradients(seed, data, number)

    def magnitude(params, sparsity):
        return masked(params, prune_mask(magnitude_scores(params), sparsity))

    def diagonal(params, sparsity):
        gradients, mask = fresh(), None
        for stage in range(1, recompute + 1):
            now = 1 - (1 - sparsity) ** (stage / recompute)
            mask = prune_mask(diagonal_fisher_scores(params, gradients(params)), now, mask)
            params = masked(params, mask)
        return params

    def surgeon(**options):
        def prune(params, sparsity):
            return obs_prune(params, fresh(), sparsity, 1e-5, recompute=recompute, **options)[0]

        return prune

    return {
        "magnitude": magnitude,
        "diagonal Fisher": diagonal,
        "M-FAC, independent": surgeon(update="independent"),
        "M-FAC, joint": surgeon(),
        "M-FAC, joint, blocks of 128": surgeon(block_size=128),
    }


def pruning_table(seeds, data, steps, number, recompute):
    _, (x, y) = data
    table, dense = {}, []
    for seed in seeds:
        params = trained(seed, data, steps)
        dense.append(float(accuracy(params, x, y)))
        for name, prune in pruners(seed, data, number, recompute).items():
            for s in SPARSITIES:
                table.setdefault((name, s), []).append(float(accuracy(prune(params, s), x, y)))
    return {k: float(np.mean(v)) for k, v in table.items()}, float(np.mean(dense))


def mfac_of(capacity, damping):
    return lambda lr: mfac(lr, capacity, damping)


OPTIMIZERS = {
    "adam": (adam, (1e-3, 3e-3, 1e-2)),
    "mfac, 32 gradients, damping 1e-3": (mfac_of(32, 1e-3), (3e-3, 1e-2)),
    "mfac, 32 gradients, damping 1e-5": (mfac_of(32, 1e-5), (1e-4, 1e-3)),
}


def costs(sizes, repeats):
    """Seconds to build the operator and of an optimizer's step for each (m, d)."""
    setup, steps = {}, {}
    for m, d in sizes:
        rows = jax.random.normal(jax.random.key(0), (m, d), jnp.float32)
        build = lambda g: EmpiricalFisherInverse.from_gradients(g, 1e-3).factor
        setup[m, d] = (compile_timed(build, rows)[0], (rows,))
        window = GradientWindow(m, 1e-3)

        def advance(state, g, window=window):
            state = window.push(state, g)
            return state, EmpiricalFisherInverse(state).apply_to_row(state.latest)

        # Donated, as in training: the window is then updated in place.
        step = jax.jit(advance, donate_argnums=0)
        steps[m, d] = (step, step(window.init(rows[0]), rows[0])[0], rows)
    best = dict.fromkeys(steps, float("inf"))
    for k in range(1, repeats + 1):
        for size, (step, state, rows) in steps.items():
            g = rows[k]
            start = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, g))
            best[size] = min(best[size], time.perf_counter() - start)
            steps[size] = step, state, rows
    return interleaved_minima(setup, repeats), best


def main():
    parser = argparse.ArgumentParser(description="M-FAC: pruning, training and cost.")
    parser.add_argument("--quick", action="store_true", help="small and short, no verdict")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    seeds = [0] if args.quick else [0, 1, 2]
    data = jax.tree.map(jnp.asarray, data_sets())

    start = time.perf_counter()
    pruning, dense = pruning_table(seeds, data, *((100, 16, 2) if args.quick else (1500, 256, 16)))
    names = list(dict.fromkeys(name for name, _ in pruning))
    print(f"dense accuracy {dense:.3f} ({time.perf_counter() - start:.0f} s)")
    print(f"{'pruned by':<30}" + "".join(f"{s:>9}" for s in SPARSITIES))
    for name in names:
        print(f"{name:<30}" + "".join(f"{pruning[name, s]:>9.3f}" for s in SPARSITIES))

    training = {}
    steps = 50 if args.quick else 1000
    print(f"{'optimizer':<34}{'lr':>8}{'train loss':>13}{'test acc':>10}")
    for name, (make, rates) in OPTIMIZERS.items():
        train = trainer(make, seeds, steps, jax.tree.map(np.asarray, data))
        for lr in rates:
            losses, accuracies = train(lr)
            training[name, lr] = float(np.mean(losses)), float(np.mean(accuracies))
            shown = f"{training[name, lr][0]:>13.2e}{training[name, lr][1]:>10.3f}"
            print(f"{name:<34}{lr:>8g}{shown}", flush=True)

    m, d = (16, 1000) if args.quick else (128, 200_000)
    setup, step = costs([(m, d), (2 * m, d), (m, 2 * d)], 2 if args.quick else 15)
    base = (m, d)
    ratios = {
        "setup, twice m": setup[2 * m, d] / setup[base],
        "setup, twice d": setup[m, 2 * d] / setup[base],
        "step, twice m": step[2 * m, d] / step[base],
        "step, twice d": step[m, 2 * d] / step[base],
    }
    print(f"m {m}, d {d}: setup {1e3 * setup[base]:.1f} ms, step {1e3 * step[base]:.1f} ms")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} times")

    verdicts = {}
    if not args.quick:
        best = lambda word: min(x[0] for (name, _), x in training.items() if name.startswith(word))
        ordered = all(
            pruning["magnitude", s] < pruning["diagonal Fisher", s] < pruning["M-FAC, joint", s]
            for s in SPARSITIES[1:]
        )
        ahead = pruning["M-FAC, joint", 0.875] - pruning["magnitude", 0.875]
        verdicts = {
            "magnitude < diagonal < M-FAC at 0.75 and above": ordered,
            "M-FAC at least 0.3 above magnitude at 0.875": ahead >= 0.3,
            "M-FAC trains to a lower loss than Adam": best("mfac") < best("adam"),
            "setup is about m^2 d": 2.8 <= ratios["setup, twice m"] <= 5.2
            and 1.4 <= ratios["setup, twice d"] <= 2.6,
            "a step is about m d": all(1.4 <= ratios[f"step, twice {x}"] <= 2.6 for x in "md"),
        }
        for claim, holds in verdicts.items():
            print(f"{claim}: {'yes' if holds else 'NO'}")
    write_json(
        args.json,
        {
            "seeds": seeds,
            "jax": jax.__version__,
            "dense": dense,
            "pruning": [{"by": n, "sparsity": s, "accuracy": a} for (n, s), a in pruning.items()],
            "training": [
                {"optimizer": n, "learning_rate": lr, "train_loss": x[0], "test_accuracy": x[1]}
                for (n, lr), x in training.items()
            ],
            "cost_ratios": ratios,
            "verdicts": verdicts,
        },
    )


if __name__ == "__main__":
    main()
