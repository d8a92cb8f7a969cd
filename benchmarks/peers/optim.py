"""The cost of a step of every transform of `jaxsci.optim`, beside optax and PyTorch.

    python benchmarks/peers/optim.py [--quick] [--json PATH] [--network NAME]

Float32, softmax cross-entropy, whole training steps (loss, gradient, update) of three networks:
an MLP 64-512-512-10 with batch 512, whose cost is its matrix products; a CNN of two 3 x 3
convolutions on 16 x 16 images with batch 128; a transformer of two blocks, width 64, on 16
sequences of 32 tokens. The same networks are built in PyTorch with all threads. Each method runs
blocks of ten steps, a whole period of the lazy ones; the blocks of all methods take turns, and the
fastest of each counts, so that a busy machine disturbs them alike. `python-somax`, `torch`,
`pytorch_optimizer` and `torch_optimizer` join where they are installed.

Trajectories: five steps on a function with a diagonal Hessian, where every probe is exact, against
the PyTorch implementations.

Bars, on the MLP: AdaHessian at most 3.3 times Adam at interval 1 and 1.5 times at interval 10; not
slower than the PyTorch implementation.
"""

import argparse
import importlib.util
import itertools
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[1]))
from _timing import write_json

from jaxsci.curvature import (
    capture_layers,
    CompositeObjective,
    GaussNewtonDiagonal,
    LikelihoodObjective,
)
from jaxsci.optim import adahessian, adan, BlockAxes, ekfac, kfac, mfac

BLOCK = 10  # a whole period of the lazy methods
LAZY: dict[str, Any] = {"update_interval": 10, "refresh_warmup": 0}
WINDOW = 32
IMAGE, CHANNELS = 16, (8, 16)
WIDTH, HEADS, TOKENS, VOCABULARY, DEPTH = 64, 4, 32, 64, 2


class Problem(NamedTuple):
    params: Any
    model_fn: Any  # (params, x) -> logits of one example
    x: jax.Array
    y: jax.Array
    torch_model: Any  # builds the same network in PyTorch


def has(name):
    return importlib.util.find_spec(name) is not None


def weights(rng, *shape, fan_in):
    return jnp.asarray(rng.normal(size=shape) / fan_in**0.5, jnp.float32)


def dense(rng, m, n):
    return {"w": weights(rng, m, n, fan_in=m), "b": jnp.zeros(n, jnp.float32)}


def apply_dense(p, x):
    return x @ p["w"] + p["b"]


def mlp():
    rng, sizes, batch = np.random.default_rng(0), (64, 512, 512, 10), 512
    params = [dense(rng, m, n) for m, n in itertools.pairwise(sizes)]

    def model_fn(params, x):
        *hidden, last = params
        for layer in hidden:
            x = jnp.tanh(apply_dense(layer, x))
        return apply_dense(last, x)

    def torch_model(torch):
        layers = []
        for m, n in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(m, n), torch.nn.Tanh()]
        return torch.nn.Sequential(*layers[:-1])

    x = jnp.asarray(rng.normal(size=(batch, sizes[0])), jnp.float32)
    return Problem(params, model_fn, x, jnp.asarray(rng.integers(10, size=batch)), torch_model)


def cnn():
    rng, batch = np.random.default_rng(0), 128
    kernels = [
        {"w": weights(rng, o, i, 3, 3, fan_in=9 * i), "b": jnp.zeros(o, jnp.float32)}
        for i, o in itertools.pairwise((1, *CHANNELS))
    ]
    params = {"convolutions": kernels, "last": dense(rng, CHANNELS[-1] * (IMAGE // 4) ** 2, 10)}

    def model_fn(params, x):
        for layer in params["convolutions"]:
            x = jax.lax.conv_general_dilated(x[None], layer["w"], (2, 2), "SAME")[0]
            x = jnp.tanh(x + layer["b"][:, None, None])
        return apply_dense(params["last"], x.ravel())

    def torch_model(torch):
        layers = []
        for i, o in itertools.pairwise((1, *CHANNELS)):
            layers += [torch.nn.Conv2d(i, o, 3, stride=2, padding=1), torch.nn.Tanh()]
        size = CHANNELS[-1] * (IMAGE // 4) ** 2
        return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(size, 10))

    x = jnp.asarray(rng.normal(size=(batch, 1, IMAGE, IMAGE)), jnp.float32)
    return Problem(params, model_fn, x, jnp.asarray(rng.integers(10, size=batch)), torch_model)


def normalised(x):
    x = x - jnp.mean(x, -1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)


def transformer():
    rng, batch = np.random.default_rng(0), 16
    block = lambda: {
        "norms": jnp.ones((2, WIDTH), jnp.float32),
        "qkv": dense(rng, WIDTH, 3 * WIDTH),
        "out": dense(rng, WIDTH, WIDTH),
        "up": dense(rng, WIDTH, 4 * WIDTH),
        "down": dense(rng, 4 * WIDTH, WIDTH),
    }
    params = {
        "tokens": weights(rng, VOCABULARY, WIDTH, fan_in=WIDTH),
        "positions": weights(rng, TOKENS, WIDTH, fan_in=WIDTH),
        "blocks": [block() for _ in range(DEPTH)],
        "head": dense(rng, WIDTH, VOCABULARY),
    }
    causal = np.tril(np.ones((TOKENS, TOKENS), bool))

    def attention(p, x):
        q, k, v = (y.reshape(TOKENS, HEADS, -1) for y in jnp.split(apply_dense(p["qkv"], x), 3, -1))
        scores = jnp.einsum("qhd,khd->hqk", q, k) / (WIDTH // HEADS) ** 0.5
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(jnp.where(causal, scores, -jnp.inf)), v)
        return apply_dense(p["out"], mixed.reshape(TOKENS, WIDTH))

    def model_fn(params, x):
        h = params["tokens"][x] + params["positions"]
        for p in params["blocks"]:
            h = h + attention(p, normalised(h) * p["norms"][0])
            u = jax.nn.gelu(apply_dense(p["up"], normalised(h) * p["norms"][1]))
            h = h + apply_dense(p["down"], u)
        return apply_dense(params["head"], normalised(h))

    def torch_model(torch):
        nn = torch.nn

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
                self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
                self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

            def forward(self, h):
                y = self.qkv(self.norms[0](h)).unflatten(-1, (3, HEADS, -1))
                q, k, v = (y[..., i, :, :].transpose(1, 2) for i in range(3))
                # The fused attention has no second derivative.
                scores = q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
                scores = scores.masked_fill(~torch.as_tensor(causal), -torch.inf)
                mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
                h = h + self.out(mixed)
                return h + self.down(nn.functional.gelu(self.up(self.norms[1](h))))

        class Transformer(nn.Module):
            def __init__(self):
                super().__init__()
                self.tokens = nn.Embedding(VOCABULARY, WIDTH)
                self.positions = nn.Parameter(torch.randn(TOKENS, WIDTH) / WIDTH**0.5)
                self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
                self.head = nn.Linear(WIDTH, VOCABULARY)

            def forward(self, x):
                h = self.blocks(self.tokens(x) + self.positions)
                h = nn.functional.layer_norm(h, (WIDTH,))
                return self.head(h).transpose(1, 2)

        return Transformer()

    x = rng.integers(VOCABULARY, size=(batch, TOKENS + 1))
    return Problem(params, model_fn, jnp.asarray(x[:, :-1]), jnp.asarray(x[:, 1:]), torch_model)


NETWORKS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}


def likelihood_objective(problem, x, y):
    return LikelihoodObjective(problem.model_fn, "softmax", x, y)


def composite_objective(problem, x, y):
    def mean_loss(outputs):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()

    return CompositeObjective(lambda p: jax.vmap(problem.model_fn, (None, 0))(p, x), mean_loss)


def optax_step(problem, tx, objective=likelihood_objective):
    tx = optax.with_extra_args_support(tx)

    def step(carry, x, y):
        params, state = carry
        obj_fn = objective(problem, x, y)
        value, grads = jax.value_and_grad(obj_fn)(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, obj_fn=obj_fn)
        return optax.apply_updates(params, updates), state

    return step, (problem.params, tx.init(problem.params))


def somax_step(problem):
    import somax

    method = somax.adahessian(
        loss_fn=lambda p, batch: likelihood_objective(problem, batch["x"], batch["y"])(p),
        learning_rate=1e-3,
        eps=1e-4,
    )

    def step(carry, x, y):
        params, state = carry
        key = jax.random.fold_in(jax.random.PRNGKey(0), state.step)
        params, state, _ = method.step(params, {"x": x, "y": y}, state, key)
        return params, state

    return step, (problem.params, method.init(problem.params))


def jax_methods(problem):
    layers = capture_layers(problem.model_fn, problem.params, problem.x[0])
    row = lambda tx, **options: optax_step(problem, tx, **options)
    sophia = optax.contrib.sophia
    rows = {
        "optax.adam": row(optax.adam(1e-3)),
        "optax.contrib.sophia, interval 1": row(sophia(1e-3, update_interval=1)),
        "optax.contrib.sophia, interval 10": row(sophia(1e-3, update_interval=10)),
        "adan": row(adan(1e-3)),
        "adahessian, interval 1": row(adahessian(1e-3)),
        "adahessian, interval 10": row(adahessian(1e-3, **LAZY)),
        "adahessian, fan-in": row(adahessian(1e-3, block_axes=BlockAxes.flax_fan_in)),
        "adahessian, Gauss-Newton": row(
            adahessian(1e-3, estimator=GaussNewtonDiagonal()), objective=composite_objective
        ),
        f"mfac, window {WINDOW}": row(mfac(1e-3, capacity=WINDOW, damping=1e-3)),
    }
    for name, method in (("kfac", kfac), ("ekfac", ekfac)):
        for factors in (1, 10):
            rows[f"{name}, factors {factors}, bases 10"] = row(
                method(1e-3, layers, factor_interval=factors, refresh_warmup=0)
            )
    if has("somax"):
        rows["python-somax adahessian"] = somax_step(problem)
    return rows


def jax_blocks(problem):
    """Name -> a function that runs a block, and its floating-point operations a step."""
    blocks, flops = {}, {}
    for name, (step, carry) in jax_methods(problem).items():
        compiled = jax.jit(step).lower(carry, problem.x, problem.y).compile()
        flops[name] = (compiled.cost_analysis() or {}).get("flops")

        def block(compiled=compiled, carry=carry):
            for _ in range(BLOCK):
                carry = compiled(carry, problem.x, problem.y)
            jax.block_until_ready(carry)

        blocks[name] = block
    return blocks, flops


def torch_blocks(problem):
    if not has("torch"):
        return {}
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    makers = {"torch Adam": (lambda p: torch.optim.Adam(p, lr=1e-3), False)}
    if has("pytorch_optimizer"):
        import pytorch_optimizer

        adahessian_ = pytorch_optimizer.AdaHessian
        makers["pytorch_optimizer Adan"] = (lambda p: pytorch_optimizer.Adan(p, lr=1e-3), False)
        makers["pytorch_optimizer AdaHessian"] = (lambda p: adahessian_(p, lr=1e-3), True)
    if has("torch_optimizer"):
        import torch_optimizer

        makers["torch_optimizer Adahessian"] = (
            lambda p: torch_optimizer.Adahessian(p, lr=1e-3),
            True,
        )
    x, y = (torch.tensor(np.asarray(a)) for a in (problem.x, problem.y))
    y = y.long()
    x = x.long() if x.dtype in (torch.int32, torch.int64) else x
    blocks = {}
    for name, (make, second_order) in makers.items():
        torch.manual_seed(0)
        model = problem.torch_model(torch)
        optimizer = make(list(model.parameters()))

        def block(model=model, optimizer=optimizer, second_order=second_order):
            for _ in range(BLOCK):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x), y)
                loss.backward(create_graph=second_order)
                optimizer.step()

        blocks[name] = block
    return blocks


def costs(problem, rounds):
    blocks, flops = jax_blocks(problem)
    blocks |= torch_blocks(problem)
    best = dict.fromkeys(blocks, np.inf)
    for block in blocks.values():
        block()
    for _ in range(rounds):
        for name, block in blocks.items():
            start = time.perf_counter()
            block()
            best[name] = min(best[name], (time.perf_counter() - start) / BLOCK)
    rows = {}
    for name, seconds in best.items():
        is_torch = "torch" in name
        adam = "torch Adam" if is_torch else "optax.adam"
        rows[name] = {
            "milliseconds": 1e3 * seconds,
            "times_adam": seconds / best[adam],
            # XLA counts both branches of a lazy step.
            "flops_times_adam": None if is_torch else flops[name] / flops[adam],
        }
    return rows


H, C, X0 = (1.0, 10.0, 100.0, -5.0), (0.5, 0.0, -0.1, 0.2), (1.0, -2.0, 0.3, 0.7)
ADAHESSIAN = (0.6954218693058516, -0.7312245965523209, 0.10959749461865227, 1.5589084719120496)


def our_trajectory(make):
    with jax.enable_x64(True):
        h, c = jnp.asarray(H), jnp.asarray(C)
        f = lambda x: jnp.sum(0.5 * h * x**2 + c * x**4)
        tx = make()
        x = jnp.asarray(X0)
        state = tx.init(x)
        for _ in range(5):
            updates, state = tx.update(jax.grad(f)(x), state, x, obj_fn=f)
            x = optax.apply_updates(x, updates)
        return np.asarray(x)


def torch_trajectory(make, second_order):
    import torch

    h, c, x = (torch.tensor(v, dtype=torch.float64) for v in (H, C, X0))
    x.requires_grad_()
    optimizer = make([x])
    for _ in range(5):
        optimizer.zero_grad()
        torch.sum(0.5 * h * x**2 + c * x**4).backward(create_graph=second_order)
        optimizer.step()
    return x.detach().numpy()


def trajectories():
    """Name -> the largest difference from ours after five steps."""
    second, first = (
        our_trajectory(adahessian),
        our_trajectory(lambda: adan(1e-2, weight_decay=0.02)),
    )
    pairs = {"AdaHessian, the paper's reference (recorded)": (second, np.asarray(ADAHESSIAN))}
    paper: dict[str, Any] = {"lr": 0.15, "eps": 1e-4, "hessian_power": 1.0}
    if has("torch") and has("torch_optimizer"):
        import torch_optimizer

        pairs["torch_optimizer Adahessian"] = (
            second,
            torch_trajectory(lambda p: torch_optimizer.Adahessian(p, **paper), True),
        )
    if has("torch") and has("pytorch_optimizer"):
        import pytorch_optimizer

        pairs["pytorch_optimizer AdaHessian"] = (
            second,
            torch_trajectory(lambda p: pytorch_optimizer.AdaHessian(p, **paper), True),
        )
        pairs["pytorch_optimizer Adan"] = (
            first,
            torch_trajectory(
                lambda p: pytorch_optimizer.Adan(p, lr=1e-2, weight_decay=0.02), False
            ),
        )
    return {name: float(np.max(np.abs(ours - theirs))) for name, (ours, theirs) in pairs.items()}


def verdicts(rows):
    out = {
        "adahessian, interval 1: at most 3.3 times Adam": rows["adahessian, interval 1"][
            "times_adam"
        ]
        <= 3.3,
        "adahessian, interval 10: at most 1.5 times Adam": rows["adahessian, interval 10"][
            "times_adam"
        ]
        <= 1.5,
    }
    for ours, theirs in (
        ("adahessian, interval 1", "pytorch_optimizer AdaHessian"),
        ("adan", "pytorch_optimizer Adan"),
    ):
        if theirs in rows:
            faster = rows[ours]["milliseconds"] <= rows[theirs]["milliseconds"]
            out[f"{ours}: not slower than {theirs}"] = faster
    return out


def main():
    parser = argparse.ArgumentParser(description="The cost of an optimizer step beside its peers.")
    parser.add_argument("--quick", action="store_true", help="two rounds instead of twenty")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only these")
    args = parser.parse_args()

    results: dict[str, Any] = {
        "jax": jax.__version__,
        "optax": optax.__version__,
        "device": str(jax.devices()[0]),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "trajectory_distance": trajectories(),
        "steps": {},
    }
    print(f"{'trajectory, five steps':<46}{'largest difference from ours':>30}")
    for name, distance in results["trajectory_distance"].items():
        print(f"{name:<46}{distance:>30.1e}")
    for network in args.network or NETWORKS:
        rows = results["steps"][network] = costs(NETWORKS[network](), 2 if args.quick else 20)
        print(f"\n{f'one step, {network}':<38}{'ms':>10}{'x Adam':>10}{'flops x Adam':>15}")
        for name, row in rows.items():
            flops = row["flops_times_adam"]
            shown = f"{flops:>15.2f}" if flops else ""
            print(
                f"{name:<38}{row['milliseconds']:>10.3f}{row['times_adam']:>10.2f}{shown}",
                flush=True,
            )
    if not args.quick and "mlp" in results["steps"]:
        results["verdicts"] = verdicts(results["steps"]["mlp"])
        for claim, holds in results["verdicts"].items():
            print(f"{claim}: {'yes' if holds else 'NO'}")
    write_json(args.json, results)


if __name__ == "__main__":
    main()
