"""Fit on eight devices and on one, and count what the compiled statistics gather."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxsci.curvature import fit_kronecker, kronecker_statistics


def model(p, x):
    return (p["v"] @ jnp.tanh(x @ p["w"] + p["b"]) + p["c"]) * p["scale"]


def statistics(p, x):
    return kronecker_statistics(model, "softmax", p, x, labels="exact")


def main():
    rng = np.random.default_rng(0)
    shapes = {"w": (3, 4), "b": (4,), "v": (3, 4), "c": (3,), "scale": (3,)}
    params = {k: jnp.asarray(rng.normal(size=n), jnp.float32) for k, n in shapes.items()}
    x = jnp.asarray(rng.normal(size=(32, 3)), jnp.float32)
    want = fit_kronecker(model, "softmax", params, (x, None)).multiply(params)
    report = {}
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
            placed = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
            text: Any = jax.jit(statistics).lower(placed, spread).compile().as_text()
            got = fit_kronecker(model, "softmax", placed, (spread, None), microbatch=2)
            got = got.multiply(placed)
        errors = jax.tree.map(
            lambda a, b: float(np.max(np.abs(a - b))), *jax.device_get((got, want))
        )
        report[kind.name] = {
            "error": max(jax.tree.leaves(errors)),
            "gathers": sum(text.count(f"{c}(") for c in ("all-gather", "all-to-all")),
        }
    print(json.dumps(report))


main()
