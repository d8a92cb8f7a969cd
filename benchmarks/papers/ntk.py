"""Neural tangent kernels (arXiv:1806.07572), scaled down: on a CPU in a few minutes.

    python benchmarks/papers/ntk.py [--quick] [--json PATH] [--only PART]

1. concentration: relative rms distance of the empirical kernel of a three-layer network, 8 points
   on the circle, from its infinite-width limit, by width, 8 seeds. It must fall as width^(-1/2).
2. circle: four points on the circle, training by gradient descent (erf, three layers, time 1000).
   Quantiles of trained networks over initialisations against those of the limiting Gaussian
   process, on a grid of angles. At width 1000 median and bands must lie within 10 % of the range.
3. spectrum: 500 digits, ReLU, three layers. The error of trained networks of width 1024 along the
   leading eigenvectors of the limiting kernel must decay at the rates of the eigenvalues: ratios of
   the logarithmic slopes, averaged over 4 seeds, within 15 %. The second and third eigenvalue
   nearly coincide, so a single network mixes their vectors. (scikit-learn's digits, 8 by 8, in the
   place of MNIST.)
4. speed: the empirical kernel of an MLP 64-w-w-10, 32 points, all 10 by 10 outputs: structured,
   vector products and Jacobian contraction, time and temporary memory. At w = 512 the structured
   one must be 50 times faster than Jacobian contraction, on a twentieth of the memory.
"""

import argparse
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsci.curvature import ntk

sys.path.insert(0, str(Path(__file__).parents[1]))
from _timing import compile_timed, interleaved_minima, write_json

B_STD = 0.1


def init(key, sizes, dtype=None):
    """Standard normal weights and biases, as the tangent parametrisation has them."""
    keys = jax.random.split(key, 2 * (len(sizes) - 1))
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    return [
        (jax.random.normal(keys[2 * i], s, dtype), jax.random.normal(keys[2 * i + 1], s[:1], dtype))
        for i, s in enumerate(shapes)
    ]


def network(sigma, params, x):
    for i, (w, b) in enumerate(params):
        if i:
            x = sigma(x)
        x = w @ x / w.shape[1] ** 0.5 + B_STD * b
    return x


def circle(angles):
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)


def concentration(quick):
    x = circle(jnp.linspace(0, 2 * jnp.pi, 8, endpoint=False))
    widths, seeds = ((16, 64), 2) if quick else ((64, 256, 1024), 8)
    rows: dict[str, Any] = {}
    for name, sigma in (("erf", jax.scipy.special.erf), ("relu", jax.nn.relu)):
        limit = ntk.mlp_kernels(x, depth=3, activation=name).ntk
        errors = []
        for width in widths:
            kernel = jax.jit(
                lambda key, w=width, s=sigma: ntk.empirical_ntk(
                    partial(network, s), init(key, (2, w, w, 1)), x, outputs="trace"
                )
            )
            draws = np.stack([kernel(k) for k in jax.random.split(jax.random.key(0), seeds)])
            errors.append(float(np.sqrt(np.mean((draws - limit) ** 2) / np.mean(limit**2))))
        slope = float(np.polyfit(np.log(widths), np.log(errors), 1)[0])
        rows[name] = {"widths": widths, "relative_rms": errors, "slope": slope}
        numbers = "  ".join(f"{w}: {e:.3f}" for w, e in zip(widths, errors, strict=True))
        print(f"concentration  {name:<6}{numbers}   slope {slope:+.2f}", flush=True)
    holds = all(abs(row["slope"] + 0.5) < 0.2 for row in rows.values())
    return rows, {"the kernel concentrates as width^(-1/2)": holds}


def circle_regression(quick):
    x = circle(jnp.asarray([0.3, 1.4, 2.7, 4.6]))
    y = jnp.asarray([0.8, -0.6, 0.5, -0.3])
    grid = circle(jnp.linspace(0, 2 * jnp.pi, 40, endpoint=False))
    until, rate = (50.0, 0.5) if quick else (1000.0, 0.5)
    kernels = partial(ntk.mlp_kernels, depth=3, activation="erf")
    k_ss = kernels(grid).nngp
    predicted = ntk.ensemble(kernels(x), y, kernels(grid, x), k_ss)(until)
    spread = 1.2816 * jnp.sqrt(jnp.diag(predicted.covariance))
    bands = jnp.stack([predicted.mean - spread, predicted.mean, predicted.mean + spread])
    scale = float(bands.max() - bands.min())

    rows: dict[str, Any] = {}
    for width, seeds in ((50, 4), (100, 4)) if quick else ((50, 50), (1000, 24)):

        @jax.jit
        def train(key, width=width):
            params = init(key, (2, width, width, 1), jnp.float32)
            apply = jax.vmap(partial(network, jax.scipy.special.erf), (None, 0))
            points, targets = x.astype(jnp.float32), y.astype(jnp.float32)
            loss = lambda p: 0.5 * jnp.sum((apply(p, points)[:, 0] - targets) ** 2)

            def step(p, _):
                return jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(loss)(p)), None

            trained = jax.lax.scan(step, params, None, length=round(until / rate))[0]
            return apply(trained, grid.astype(jnp.float32))[:, 0]

        start = time.perf_counter()
        outputs = np.stack([train(k) for k in jax.random.split(jax.random.key(1), seeds)])
        quantiles = np.quantile(outputs, [0.1, 0.5, 0.9], axis=0)
        distances = np.mean(np.abs(quantiles - bands), axis=1) / scale
        inside = float(np.mean((outputs > bands[0]) & (outputs < bands[2])))
        rows[str(width)] = {
            "inits": seeds,
            "mean_distance_of_quantiles": distances.tolist(),
            "fraction_inside_the_80_percent_band": inside,
            "seconds": time.perf_counter() - start,
        }
        print(
            f"circle         width {width:<5} {seeds} inits: 10/50/90 % quantiles off by "
            + " ".join(f"{d:.3f}" for d in distances)
            + f" of the range; inside the band {inside:.2f}",
            flush=True,
        )
    widest = next(reversed(rows.values()))
    holds = max(widest["mean_distance_of_quantiles"]) < 0.1
    return rows, {"bands of wide networks match the limit within 10 %": holds}


def spectrum(quick):
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    count, width, steps, seeds = (60, 64, 20, 2) if quick else (500, 1024, 300, 4)
    x = np.asarray(data.data[:count] / 16, float)
    x = x / np.linalg.norm(x, axis=1, keepdims=True) * np.sqrt(x.shape[1])
    kernel = ntk.mlp_kernels(x, depth=3, activation="relu", b_std=B_STD).ntk
    w, v = np.linalg.eigh(kernel)
    leading = v[:, -1:-4:-1]
    # A target of equal parts of the three leading components.
    y = jnp.asarray(leading.sum(1) * np.sqrt(count / 3), jnp.float32)
    inputs = jnp.asarray(x, jnp.float32)
    rate = float(0.2 / w[-1])
    apply = jax.vmap(partial(network, jax.nn.relu), (None, 0))

    @jax.jit
    def train(key):
        start = init(key, (x.shape[1], width, width, 1), jnp.float32)
        # The output at the start is taken off, so that the error is that of the target alone.
        f0 = apply(start, inputs)[:, 0]
        residual = lambda p: apply(p, inputs)[:, 0] - f0 - y

        def step(p, _):
            r, pull = jax.vjp(residual, p)
            (g,) = pull(r)
            return jax.tree.map(lambda a, b: a - rate * b, p, g), r @ leading.astype(jnp.float32)

        return jax.lax.scan(step, start, None, length=steps)[1]

    start = time.perf_counter()
    each = []
    for key in jax.random.split(jax.random.key(2), seeds):
        errors, fits = np.abs(np.asarray(train(key))), []
        for i in range(3):
            decay = errors[:, i] / errors[0, i]
            # Until a tenth is left: further down the other modes leak in.
            stop = max(int(np.argmax(decay < 0.1)) or len(decay), 3)
            fits.append(np.polyfit(np.arange(stop), np.log(decay[:stop]), 1)[0])
        each.append(fits)
    slopes = np.mean(each, axis=0)
    predicted = np.log1p(-rate * w[-1:-4:-1])
    ratio = predicted / predicted[0]
    deviation = float(np.max(np.abs(slopes / slopes[0] / ratio - 1)))
    of_each = [float(np.max(np.abs(np.asarray(s) / s[0] / ratio - 1))) for s in each]
    row = {
        "eigenvalues": w[-1:-4:-1].tolist(),
        "slopes": slopes.tolist(),
        "predicted_slopes": predicted.tolist(),
        "largest_deviation_of_ratios": deviation,
        "largest_deviation_of_each_seed": of_each,
        "seconds": time.perf_counter() - start,
    }
    print(
        "spectrum       slopes measured "
        + " ".join(f"{s:.4f}" for s in slopes)
        + "  predicted "
        + " ".join(f"{s:.4f}" for s in predicted)
        + f"  ratios off by {deviation:.1%} (single seeds: "
        + " ".join(f"{d:.1%}" for d in of_each)
        + ")",
        flush=True,
    )
    return row, {"slopes follow the eigenvalues within 15 %": deviation < 0.15}


def speed(quick):
    rows: dict[str, Any] = {}
    x = jax.random.normal(jax.random.key(3), (32, 64), jnp.float32)
    for width in (32,) if quick else (128, 512):
        params = init(jax.random.key(4), (64, width, width, 10), jnp.float32)
        apply = partial(network, jax.nn.relu)
        contenders, memory, compile_seconds, values = {}, {}, {}, {}
        for method in ("structured", "vp", "jacobian"):
            fn = partial(ntk.empirical_ntk, apply, method=method)
            compiled, compile_seconds[method] = compile_timed(fn, params, x)
            memory[method] = compiled.memory_analysis().temp_size_in_bytes / 2**20
            contenders[method] = (compiled, (params, x))
            values[method] = np.asarray(compiled(params, x))
        seconds = interleaved_minima(contenders, 3 if quick else 10)
        for method, kernel in values.items():
            error = np.abs(kernel - values["jacobian"]).max() / np.abs(values["jacobian"]).max()
            rows[f"{width} {method}"] = {
                "milliseconds": 1e3 * seconds[method],
                "temporary_MiB": memory[method],
                "compile_seconds": compile_seconds[method],
                "difference_from_jacobian": float(error),
            }
            print(
                f"speed          w={width:<5}{method:<12}{1e3 * seconds[method]:9.2f} ms"
                f"{memory[method]:9.1f} MiB   differs by {error:.0e}",
                flush=True,
            )
        faster = seconds["jacobian"] / seconds["structured"]
        smaller = memory["jacobian"] / memory["structured"]
        rows[f"{width} ratios"] = {"time": faster, "memory": smaller}
        print(
            f"speed          w={width:<5}structured: {faster:.0f}x faster, {smaller:.0f}x smaller"
        )
    verdicts = {"structured at least 50x faster and 20x smaller": faster >= 50 and smaller >= 20}
    return rows, verdicts


PARTS = {
    "concentration": concentration,
    "circle": circle_regression,
    "spectrum": spectrum,
    "speed": speed,
}


def main():
    parser = argparse.ArgumentParser(description="Neural tangent kernels against their theory.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no verdict")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    # Limiting kernels and their eigenvectors want float64; networks take the type they are given.
    jax.config.update("jax_enable_x64", True)
    results, verdicts = {}, {}
    for name in [args.only] if args.only else PARTS:
        results[name], holds = PARTS[name](args.quick)
        verdicts |= holds
    if not args.quick:
        for claim, holds in verdicts.items():
            print(f"{claim}: {'yes' if holds else 'NO'}")
    about = {"jax": jax.__version__, "machine": platform.machine(), "quick": args.quick}
    write_json(args.json, {"about": about, "results": results, "verdicts": verdicts})


if __name__ == "__main__":
    main()
