"""Tangent kernels beside neural-tangents 0.6.5 and beside a direct contraction of Jacobians.

    python benchmarks/peers/ntk.py [--peer-python PATH] [--quick] [--json PATH]

neural-tangents (last release February 2024) does not import on current JAX. Give it an environment
of its own, and its interpreter here as --peer-python:

    python3.11 -m venv ntbench
    ntbench/bin/pip install jax==0.4.24 jaxlib==0.4.23 "numpy<2" "scipy<1.13" frozendict
    ntbench/bin/pip install --no-deps neural-tangents==0.6.5

This file runs itself there (with --as-peer) and compares: limiting kernels of perceptrons and of a
convolutional network with global average pooling, closed-form training on the mean square error,
and empirical kernels of a perceptron. Two numbers must agree to 1e-6; both are timed compiled.
Without --peer-python the second comparison is left: `jax.jacrev`, contracted.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ACTIVATIONS = ("relu", "erf")
DEPTH = 4


def problem(quick):
    """The same numbers for both, from NumPy."""
    rng = np.random.default_rng(0)
    n, width, side = (12, 32, 4) if quick else (200, 256, 8)
    x = rng.normal(size=(n, 64))
    images = rng.normal(size=(6 if quick else 12, 3, side, side))
    sizes = (64, width, width, 10)
    weights = [(rng.normal(size=(i, o)), rng.normal(size=o)) for i, o in itertools.pairwise(sizes)]
    return x, images, weights, x[: 4 if quick else 32]


def network(params, x):
    for i, (w, b) in enumerate(params):
        if i:
            x = jnp.maximum(x, 0)
        x = x @ w / w.shape[0] ** 0.5 + 0.1 * b
    return x


def timed(fn, *args, repeats=5):
    """Value and smallest time of a compiled function."""
    compiled = jax.jit(fn).lower(*args).compile()
    value, best = jax.block_until_ready(compiled(*args)), float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        best = min(best, time.perf_counter() - start)
    return jax.tree_util.tree_map(np.asarray, value), best


def ours(quick):
    from jaxsci.curvature import ntk

    x, images, weights, few = problem(quick)
    rows = {}
    for name in ACTIVATIONS:
        fn = lambda x, name=name: ntk.mlp_kernels(x, None, DEPTH, name).ntk
        rows[f"limit, {name}"] = timed(fn, x)
    conv = ntk.serial(
        ntk.conv2d(3),
        ntk.activation("relu"),
        ntk.conv2d(3),
        ntk.activation("relu"),
        ntk.global_average_pool(),
        ntk.dense(),
    )
    rows["limit, convolutions"] = timed(lambda v: ntk.kernels(conv, v).ntk, images)
    kernel, y = rows["limit, relu"][0], np.sin(np.arange(len(x)))[:, None]
    predict = ntk.gradient_descent_mse(kernel, y, "mean")
    rows["training"] = timed(lambda t: predict(t, 0.0), 100.0)
    for method in ("structured", "vp", "jacobian"):
        fn = lambda p, v, m=method: ntk.empirical_ntk(network, p, v, method=m)
        rows[f"empirical, {method}"] = timed(fn, weights, few)

    def direct(params, v):
        jacobian = jax.vmap(jax.jacrev(network), (None, 0))(params, v)
        pairs = [j.reshape(*j.shape[:2], -1) for j in jax.tree.leaves(jacobian)]
        return sum(jnp.einsum("nip,mjp->nmij", j, j) for j in pairs)

    rows["empirical, jacrev contracted"] = timed(direct, weights, few)
    return rows


def peer(quick):
    # Its experimental subpackage needs TensorFlow, and nothing here needs it.
    import types

    sys.modules["neural_tangents.experimental"] = types.ModuleType("experimental")
    import neural_tangents as nt
    from neural_tangents import stax

    x, images, weights, few = problem(quick)
    rows = {}
    layers = {"relu": stax.Relu, "erf": stax.Erf}
    dense = lambda n: stax.Dense(n, W_std=1.0, b_std=0.1)
    for name in ACTIVATIONS:
        parts = [dense(8)]
        for _ in range(DEPTH - 1):
            parts += [layers[name](), dense(8)]
        kernel_fn = stax.serial(*parts)[2]
        rows[f"limit, {name}"] = timed(lambda v, k=kernel_fn: k(v, None, "ntk"), x)
    conv = lambda: stax.Conv(8, (3, 3), padding="SAME", W_std=1.0, b_std=0.1)
    pooled = (conv(), stax.Relu(), conv(), stax.Relu(), stax.GlobalAvgPool(), dense(1))
    kernel_fn = stax.serial(*pooled)[2]
    channels_last = np.moveaxis(images, 1, -1)
    rows["limit, convolutions"] = timed(lambda v: kernel_fn(v, None, "ntk"), channels_last)
    kernel, y = rows["limit, relu"][0], np.sin(np.arange(len(x)))[:, None]
    predict = nt.predict.gradient_descent_mse(kernel, y)
    rows["training"] = timed(lambda t: predict(t, 0.0, None), 100.0)
    apply = lambda p, v: network(p, v)
    ways = nt.NtkImplementation
    for name, way in (
        ("structured", ways.STRUCTURED_DERIVATIVES),
        ("vp", ways.NTK_VECTOR_PRODUCTS),
        ("jacobian", ways.JACOBIAN_CONTRACTION),
    ):
        fn = nt.empirical_ntk_fn(apply, trace_axes=(), vmap_axes=0, implementation=way)
        rows[f"empirical, {name}"] = timed(lambda p, v, f=fn: f(v, None, p), weights, few)
    return rows


def main():
    parser = argparse.ArgumentParser(description="Tangent kernels beside neural-tangents.")
    parser.add_argument("--peer-python", help="interpreter that can import neural-tangents")
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if args.as_peer:
        rows = peer(args.quick)
        values = {name: value for name, (value, _) in rows.items()}
        seconds = {f"seconds of {name}": s for name, (_, s) in rows.items()}
        np.savez(args.as_peer, **values, **seconds)
        return

    rows = ours(args.quick)
    theirs = {}
    if args.peer_python:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "peer.npz"
            command = [args.peer_python, __file__, "--as-peer", str(file)]
            subprocess.run(command + ["--quick"] * args.quick, check=True)
            with np.load(file) as loaded:
                theirs = {name: loaded[name] for name in loaded.files}
    results = {}
    print(f"{'':<32}{'jaxsci':>12}{'peer':>12}{'difference':>12}")
    for name, (value, seconds) in rows.items():
        result = {"milliseconds": 1e3 * seconds}
        line = f"{name:<32}{1e3 * seconds:>9.2f} ms"
        if name in theirs:
            other = theirs[name]
            result["peer_milliseconds"] = 1e3 * float(theirs[f"seconds of {name}"])
            result["difference"] = float(np.abs(value - other).max() / np.abs(other).max())
            line += f"{result['peer_milliseconds']:>9.2f} ms{result['difference']:>12.0e}"
        results[name] = result
        print(line, flush=True)
    agree = all(r.get("difference", 0.0) < 1e-6 for r in results.values())
    if theirs:
        print(f"every number agrees to 1e-6: {'yes' if agree else 'NO'}")
    if args.json:
        about = {"jax": jax.__version__, "quick": args.quick}
        args.json.write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
