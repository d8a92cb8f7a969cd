"""The Hessian spectrum of one network by three libraries: same numbers, and what they cost.

    python benchmarks/peers/spectra.py [--quick] [--json PATH]

Tanh MLP 64-64-32-10 (6.6 thousand parameters) on random inputs, float32 on the CPU, the same
weights everywhere. Stochastic Lanczos quadrature with one probe of signs: `jaxsci.curvature`, and
the recipe of PyHessian in PyTorch (double backward, each vector orthogonalised against all before
it), from the same probe. The largest eigenvalue also by `curvlinops` with SciPy's `eigsh`, if
installed.

Times: the fastest of some runs that take turns, compilation apart.
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
import torch

from jaxsci.curvature import hessian_operator, lanczos

SIZES = (64, 64, 32, 10)
EXAMPLES = 1024


def problem():
    rng = np.random.default_rng(0)
    params = [
        {
            "w": (rng.normal(size=(m, n)) * (2 / m) ** 0.5).astype(np.float32),
            "b": np.zeros(n, np.float32),
        }
        for m, n in itertools.pairwise(SIZES)
    ]
    x = rng.normal(size=(EXAMPLES, SIZES[0])).astype(np.float32)
    return params, x, rng.integers(0, SIZES[-1], EXAMPLES)


def probe_of(params):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: rng.choice([-1.0, 1.0], p.shape).astype(np.float32), params)


def ours(params, x, y, steps):
    def loss(p, x, y):
        *hidden, last = p
        for layer in hidden:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        outputs = x @ last["w"] + last["b"]
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()

    def run(params, v, x, y):
        t = lanczos(hessian_operator(lambda p: loss(p, x, y), params), v, steps)
        return t.quadrature()

    args = jax.tree.map(jnp.asarray, (params, probe_of(params), x, y))
    start = time.perf_counter()
    compiled = jax.jit(run).lower(*args).compile()
    compile_s = time.perf_counter() - start
    gradient: Any = jax.jit(jax.grad(loss)).lower(args[0], *args[2:]).compile()

    def timed():
        return [np.asarray(a) for a in jax.block_until_ready(compiled(*args))]

    return timed, lambda: jax.block_until_ready(gradient(args[0], *args[2:])), compile_s


def torch_network(params):
    model = torch.nn.Sequential(
        *itertools.chain.from_iterable(
            (torch.nn.Linear(m, n), torch.nn.Tanh()) for m, n in itertools.pairwise(SIZES)
        )
    )[:-1]
    layers = [m for m in model if isinstance(m, torch.nn.Linear)]
    with torch.no_grad():
        for layer, p in zip(layers, params, strict=True):
            layer.weight.copy_(torch.tensor(p["w"].T))
            layer.bias.copy_(torch.tensor(p["b"]))
    return model


def pyhessian_recipe(params, x, y, steps):
    model = torch_network(params)
    weights = list(model.parameters())
    x, y = torch.tensor(x), torch.tensor(y)
    start = [
        torch.tensor(np.ascontiguousarray(a)) for p in probe_of(params) for a in (p["w"].T, p["b"])
    ]

    def inner(a, b):
        return sum(torch.sum(s * t) for s, t in zip(a, b, strict=True))

    def run():
        value = torch.nn.functional.cross_entropy(model(x), y)
        grads = torch.autograd.grad(value, weights, create_graph=True)
        product = lambda v: torch.autograd.grad(grads, weights, v, retain_graph=True)
        v = [a / inner(start, start) ** 0.5 for a in start]
        basis, alphas, betas = [v], [], []
        for step in range(steps):
            w = list(product(v))
            alphas.append(float(inner(w, v)))
            if step == steps - 1:
                break
            for q in basis:
                c = inner(w, q)
                w = [a - c * b for a, b in zip(w, q, strict=True)]
            beta = inner(w, w) ** 0.5
            betas.append(float(beta))
            v = [a / beta for a in w]
            basis.append(v)
        nodes, vectors = np.linalg.eigh(np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1))
        return nodes, vectors[0] ** 2

    return run


def curvlinops_top(params, x, y):
    if importlib.util.find_spec("curvlinops") is None:
        return None
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    model = torch_network(params)
    weights = list(model.parameters())
    data = [(torch.tensor(x), torch.tensor(y))]
    loss = torch.nn.CrossEntropyLoss()

    def run():
        op = HessianLinearOperator(model, loss, weights, data, check_deterministic=False)
        return float(eigsh(op.to_scipy(), 1, which="LA", tol=1e-4, return_eigenvectors=False)[0])

    return run


def smoothed(nodes, weights, grid, width):
    peaks = np.exp(-0.5 * ((grid[:, None] - nodes) / width) ** 2) / (width * (2 * np.pi) ** 0.5)
    return peaks @ weights


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    steps, repeats = (20, 3) if args.quick else (60, 10)
    params, x, y = problem()
    run, gradient, compile_s = ours(params, x, y, steps)
    peer, library = pyhessian_recipe(params, x, y, steps), curvlinops_top(params, x, y)
    contenders = {"jaxsci": run, "PyTorch, PyHessian's recipe": peer, "one gradient, jax": gradient}
    if library is not None:
        contenders["curvlinops, largest only"] = library
    answers = {name: f() for name, f in contenders.items()}
    seconds = dict.fromkeys(contenders, float("inf"))
    for _ in range(repeats):
        for name, f in contenders.items():
            start = time.perf_counter()
            f()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    (nodes, weights), (their_nodes, their_weights) = (
        answers["jaxsci"],
        answers["PyTorch, PyHessian's recipe"],
    )
    width = 0.01 * (nodes[-1] - nodes[0])
    grid = np.linspace(nodes[0] - 5 * width, nodes[-1] + 5 * width, 4000)
    difference = smoothed(nodes, weights, grid, width) - smoothed(
        their_nodes, their_weights, grid, width
    )
    results = {
        "machine": {"platform": platform.platform(), "device": str(jax.devices()[0])},
        "steps": steps,
        "largest": {"jaxsci": float(nodes[-1]), "PyTorch": float(their_nodes[-1])},
        "smallest": {"jaxsci": float(nodes[0]), "PyTorch": float(their_nodes[0])},
        "L1 distance of the densities": float(np.trapezoid(np.abs(difference), grid)),
        "seconds": seconds,
        "compile seconds": compile_s,
        "gradients a step": seconds["jaxsci"] / steps / seconds["one gradient, jax"],
    }
    if library is not None:
        results["largest"]["curvlinops"] = answers["curvlinops, largest only"]
    print(json.dumps(results, indent=2))
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
