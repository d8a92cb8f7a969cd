"""Transforms on eight simulated devices; prints one line of JSON (see test_fft.py)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

jax.config.update("jax_enable_x64", True)

from jaxsci import integrate, pde, spectral

SHAPE = (16, 24)
HALF = (16, 13)
OPERATIONS = ("all-gather", "all-to-all", "all-reduce", "collective-permute")


def error(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def run(function, x):
    """The value of a compiled function, and how often its program communicates."""
    compiled = jax.jit(function).lower(x).compile()
    text = compiled.as_text()
    counts = {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in OPERATIONS}
    return compiled(x), counts


def normal(shape, *, complex_, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if complex_ else x


def transform(kind):
    return {
        "fft": (lambda x: spectral.fftn(x, 2), lambda x: np.fft.fftn(x, axes=(-2, -1)), SHAPE),
        "ifft": (lambda x: spectral.ifftn(x, 2), lambda x: np.fft.ifftn(x, axes=(-2, -1)), SHAPE),
        "rfft": (lambda x: spectral.rfftn(x, 2), lambda x: np.fft.rfftn(x, axes=(-2, -1)), SHAPE),
        "irfft": (
            lambda x: spectral.irfftn(x, SHAPE),
            lambda x: np.fft.irfftn(x, s=SHAPE, axes=(-2, -1)),
            HALF,
        ),
    }[kind]


def main():
    out = {}
    for name, axis_type in (("auto", AxisType.Auto), ("explicit", AxisType.Explicit)):
        mesh = jax.make_mesh((2, 4), ("b", "s"), axis_types=(axis_type,) * 2)
        flat = jax.make_mesh((8,), ("b",), axis_types=(axis_type,))
        slab = jax.make_mesh((8,), ("s",), axis_types=(axis_type,))
        specs = {
            "batch": (flat, P("b")),
            "slab": (slab, P(None, None, "s", None)),
            "batch and slab": (mesh, P("b", None, "s", None)),
        }
        for layout, (used, spec) in specs.items():
            for kind in ("fft", "ifft", "rfft", "irfft"):
                ours, reference, shape = transform(kind)
                x = normal((8, 2, *shape), complex_=kind != "rfft")
                loss = lambda x, ours=ours: jnp.sum(jnp.abs(ours(x)) ** 4)
                expected_grad = jax.grad(loss)(jnp.asarray(x))
                sharded = jax.device_put(x, NamedSharding(used, spec))
                # Under vmap the mapped axis may not be sharded on an Explicit mesh: map the other.
                mapped = jax.vmap(ours, in_axes=1, out_axes=1)
                with jax.set_mesh(used):
                    value, value_hlo = run(ours, sharded)
                    gradient, grad_hlo = run(jax.grad(loss), sharded)
                    vmapped, vmap_hlo = run(mapped, sharded)
                out[f"{name}/{layout}/{kind}"] = {
                    "value": error(value, reference(x)),
                    "grad": error(gradient, expected_grad),
                    "vmap": error(vmapped, reference(x)),
                    "value_hlo": value_hlo,
                    "grad_hlo": grad_hlo,
                    "vmap_hlo": vmap_hlo,
                }

    slab = jax.make_mesh((8,), ("s",), axis_types=(AxisType.Auto,))
    flat = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,))

    def on_slabs(shape, spec):
        x = normal(shape, complex_=False)
        d = len(spec)
        f = lambda x: spectral.rfftn(x, d)
        sharded = jax.device_put(x, NamedSharding(slab, P(*spec)))
        expected = np.fft.rfftn(x, axes=tuple(range(-d, 0)))
        value, hlo = run(f, sharded)
        return {"value": error(value, expected), "hlo": hlo}

    out["3d"] = on_slabs((8, 6, 10), ("s", None, None))
    out["odd"] = on_slabs((16, 9), ("s", None))
    out["1d"] = on_slabs((32,), ("s",))

    x = normal((8, *SHAPE), complex_=False)
    sharded = jax.device_put(x, NamedSharding(flat, P("b")))
    mapped = jax.shard_map(
        lambda x: spectral.rfftn(x, 2), mesh=flat, in_specs=P("b"), out_specs=P("b")
    )
    loss = lambda f: lambda x: jnp.sum(jnp.abs(f(x)) ** 4)
    value, hlo = run(mapped, sharded)
    gradient, _ = run(jax.grad(loss(mapped)), sharded)
    local = loss(lambda x: spectral.rfftn(x, 2))
    out["shard_map"] = {
        "value": error(value, np.fft.rfftn(x, axes=(1, 2))),
        "grad": error(gradient, jax.grad(local)(jnp.asarray(x))),
        "hlo": hlo,
    }

    grid = spectral.FourierGrid((16, 16), (2 * np.pi, 2 * np.pi))
    term = pde.navier_stokes_2d(grid, viscosity=1e-2, forcing=pde.kolmogorov(2))

    def flow(wh):
        return integrate.rollout(
            integrate.ETDRK4(), term, wh, dt=0.01, num_steps=4, save_every=2, checkpoint="sqrt"
        )

    def norm_of_end(wh):
        return jnp.sum(jnp.abs(flow(wh)[-1]) ** 2)

    wh = grid.fft(jnp.asarray(normal((8, 1, 16, 16), complex_=False)))
    sharded = jax.device_put(wh, NamedSharding(flat, P("b")))
    value, hlo = run(flow, sharded)
    gradient, grad_hlo = run(jax.grad(norm_of_end), sharded)
    out["rollout"] = {
        "value": error(value, jax.jit(flow)(wh)),
        "grad": error(gradient, jax.jit(jax.grad(norm_of_end))(wh)),
        "hlo": hlo,
        "grad_hlo": grad_hlo,
    }
    print(json.dumps(out))


main()
