"""The cost of an AdaHessian step beside its peers, and one trajectory beside PyTorch's.

    python benchmarks/peers/adahessian.py [--quick] [--json PATH]

Cost: float32, MLP 64-512-512-10, batch 512. Each method runs blocks of ten jitted steps, the blocks
of all methods take turns, and the fastest block of each counts, so that a busy machine disturbs
them alike. `python-somax` joins when it is installed.

Trajectory: five steps with the paper's defaults on a function with a diagonal Hessian, where every
probe is exact, against `torch_optimizer` and `pytorch_optimizer` when they are installed.

Bars: at most 3.3 times Adam at interval 1, at most 1.5 times at interval 10.
"""

import argparse
import importlib.util
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsci.curvature import CompositeObjective, GaussNewtonDiagonal
from jaxsci.optim import adahessian, BlockAxes

SIZES = (64, 512, 512, 10)
BATCH = 512
BLOCK = 10  # a whole period of the lazy methods


def problem():
    rng = np.random.default_rng(0)
    params = [
        {
            "w": jnp.asarray(rng.normal(size=(m, n)) / m**0.5, jnp.float32),
            "b": jnp.zeros(n, jnp.float32),
        }
        for m, n in itertools.pairwise(SIZES)
    ]
    x = jnp.asarray(rng.normal(size=(BATCH, SIZES[0])), jnp.float32)
    y = jnp.asarray(rng.integers(SIZES[-1], size=BATCH))
    return params, x, y


def logits(params, x):
    *hidden, last = params
    for layer in hidden:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]


def cross_entropy(outputs, y):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()


def objective(x, y):
    return CompositeObjective(lambda p: logits(p, x), lambda out: cross_entropy(out, y))


def optax_step(tx):
    tx = optax.with_extra_args_support(tx)

    def step(carry, x, y):
        params, state = carry
        obj_fn = objective(x, y)
        grads = jax.grad(obj_fn)(params)
        updates, state = tx.update(grads, state, params, obj_fn=obj_fn)
        return optax.apply_updates(params, updates), state

    return step, tx.init


def somax_step():
    import somax

    method = somax.adahessian(
        loss_fn=lambda p, batch: cross_entropy(logits(p, batch["x"]), batch["y"]),
        learning_rate=1e-3,
        eps=1e-4,
    )

    def step(carry, x, y):
        params, state = carry
        key = jax.random.fold_in(jax.random.PRNGKey(0), state.step)
        params, state, _ = method.step(params, {"x": x, "y": y}, state, key)
        return params, state

    return step, method.init


def methods():
    blocks: dict[str, Any] = {"block_axes": BlockAxes.flax_fan_in}
    lazy: dict[str, Any] = {"update_interval": 10, "refresh_warmup": 0}
    rows = {
        "optax.adam": optax_step(optax.adam(1e-3)),
        "optax.contrib.sophia, interval 1": optax_step(
            optax.contrib.sophia(1e-3, update_interval=1)
        ),
        "optax.contrib.sophia, interval 10": optax_step(
            optax.contrib.sophia(1e-3, update_interval=10)
        ),
        "adahessian, interval 1": optax_step(adahessian(1e-3)),
        "adahessian, interval 10": optax_step(adahessian(1e-3, **lazy)),
        "adahessian, fan-in, interval 1": optax_step(adahessian(1e-3, **blocks)),
        "adahessian, Gauss-Newton, interval 1": optax_step(
            adahessian(1e-3, estimator=GaussNewtonDiagonal())
        ),
    }
    if importlib.util.find_spec("somax"):
        rows["python-somax adahessian"] = somax_step()
    return rows


def costs(rounds):
    params, x, y = problem()
    runs, carries, flops = {}, {}, {}
    for name, (step, init) in methods().items():
        carries[name] = (params, init(params))
        compiled = jax.jit(step).lower(carries[name], x, y).compile()
        runs[name] = compiled
        flops[name] = (compiled.cost_analysis() or {})["flops"]

    def block(name):
        carry = carries[name]
        start = time.perf_counter()
        for _ in range(BLOCK):
            carry = runs[name](carry, x, y)
        jax.block_until_ready(carry)
        return (time.perf_counter() - start) / BLOCK

    best = dict.fromkeys(runs, np.inf)
    for _ in range(rounds):
        for name in runs:
            best[name] = min(best[name], block(name))
    adam = "optax.adam"
    return {
        name: {
            "milliseconds": 1e3 * seconds,
            "times_adam": seconds / best[adam],
            # XLA counts both branches of a lazy step.
            "flops_times_adam": flops[name] / flops[adam],
        }
        for name, seconds in best.items()
    }


H, C, X0 = (1.0, 10.0, 100.0, -5.0), (0.5, 0.0, -0.1, 0.2), (1.0, -2.0, 0.3, 0.7)
REFERENCE = (0.6954218693058516, -0.7312245965523209, 0.10959749461865227, 1.5589084719120496)


def our_trajectory():
    with jax.enable_x64(True):
        h, c = jnp.asarray(H), jnp.asarray(C)
        f = lambda x: jnp.sum(0.5 * h * x**2 + c * x**4)
        tx = adahessian()
        x = jnp.asarray(X0)
        state = tx.init(x)
        for _ in range(5):
            updates, state = tx.update(jax.grad(f)(x), state, x, obj_fn=f)
            x = optax.apply_updates(x, updates)
        return np.asarray(x)


def torch_trajectory(make):
    import torch

    h, c, x = (torch.tensor(v, dtype=torch.float64) for v in (H, C, X0))
    x.requires_grad_()
    optimizer = make([x])
    for _ in range(5):
        optimizer.zero_grad()
        torch.sum(0.5 * h * x**2 + c * x**4).backward(create_graph=True)
        optimizer.step()
    return x.detach().numpy()


def trajectories():
    ours = our_trajectory()
    rows = {"paper's reference (recorded)": np.asarray(REFERENCE)}
    if importlib.util.find_spec("torch") and importlib.util.find_spec("torch_optimizer"):
        import torch_optimizer

        rows["torch_optimizer"] = torch_trajectory(
            lambda p: torch_optimizer.Adahessian(p, lr=0.15, eps=1e-4, hessian_power=1.0)
        )
    if importlib.util.find_spec("torch") and importlib.util.find_spec("pytorch_optimizer"):
        import pytorch_optimizer

        rows["pytorch_optimizer"] = torch_trajectory(
            lambda p: pytorch_optimizer.AdaHessian(p, lr=0.15, eps=1e-4, hessian_power=1.0)
        )
    return {name: float(np.max(np.abs(x - ours))) for name, x in rows.items()}


def main():
    parser = argparse.ArgumentParser(description="The cost of an AdaHessian step beside its peers.")
    parser.add_argument("--quick", action="store_true", help="two rounds instead of thirty")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()

    distances = trajectories()
    print(f"{'trajectory, five steps':<40}{'largest difference from ours':>30}")
    for name, distance in distances.items():
        print(f"{name:<40}{distance:>30.1e}")
    rows = costs(2 if args.quick else 30)
    print(f"\n{'one step':<40}{'ms':>10}{'x Adam':>10}{'flops x Adam':>15}")
    for name, row in rows.items():
        print(
            f"{name:<40}{row['milliseconds']:>10.3f}{row['times_adam']:>10.2f}"
            f"{row['flops_times_adam']:>15.2f}"
        )
    if args.json:
        about = {
            "jax": jax.__version__,
            "optax": optax.__version__,
            "device": str(jax.devices()[0]),
            "machine": platform.machine(),
        }
        result = {**about, "steps": rows, "trajectory_distance": distances}
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
