"""Layers of sharded parameters and data, on eight devices: numbers and communication as JSON."""

import json
import re

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from jaxsci.curvature import capture_layers

jax.config.update("jax_enable_x64", True)


def fn(p, x):
    return jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"]


def gradients(sites, params, xs):
    def of_example(x):
        outputs, inputs, pullback = sites.vjp(params, x)
        deltas, rest = pullback(outputs)
        return sites.from_matrices(sites.gradients(inputs, deltas), rest)

    return jax.tree.map(lambda g: g.sum(0), jax.vmap(of_example)(xs))


def reference(params, xs):
    loss = lambda p, x: jnp.sum(fn(p, x) ** 2) / 2
    return jax.tree.map(lambda g: g.sum(0), jax.vmap(jax.grad(loss), (None, 0))(params, xs))


def gathered(compiled):
    """The entries of all results of all-gathers."""
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", compiled.as_text())
    return sum(int(jnp.prod(jnp.array([int(n) for n in s.split(",") if n]))) for s in shapes)


def main():
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    key = jax.random.key(0)
    params = {
        "w1": jax.random.normal(key, (16, 32)),
        "b1": jnp.ones(32),
        "w2": jax.random.normal(key, (32, 8)),
    }
    specs = {"w1": P(None, "model"), "b1": P("model"), "w2": P("model", None)}
    put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
    sharded = jax.tree.map(put, params, specs)
    xs = put(jax.random.normal(jax.random.key(1), (8, 16)), P("data"))
    sites = capture_layers(fn, sharded, xs[0])
    ours = jax.jit(lambda p, xs: gradients(sites, p, xs)).lower(sharded, xs).compile()
    theirs = jax.jit(reference).lower(sharded, xs).compile()
    pairs = jax.tree.map(
        lambda a, b: float(jnp.max(jnp.abs(a - b))), ours(sharded, xs), theirs(sharded, xs)
    )
    print(
        json.dumps(
            {
                "blocks": len(sites.blocks),
                "error": max(jax.tree.leaves(pairs)),
                "gathered": [gathered(ours), gathered(theirs)],
            }
        )
    )


if __name__ == "__main__":
    main()
