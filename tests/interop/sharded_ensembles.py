"""Ensembles on eight simulated devices; prints one line of JSON (see test_sharded_vmap.py)."""

import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

jax.config.update("jax_enable_x64", True)

from jaxsci.interop import sharded_vmap

OPERATIONS = ("all-gather", "all-to-all", "all-reduce", "collective-permute")


class Oscillator(eqx.Module):
    """Van der Pol's equation, with a field that is not an array."""

    stiffness: jax.Array
    name: str

    def __call__(self, t, y, args):
        x, v = y
        return jnp.stack([v, self.stiffness * (1 - x**2) * v - x])


def solve(model, y0, *, end=1.0):
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(model),
        diffrax.Tsit5(),
        0.0,
        end,
        0.1,
        y0,
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-8),
    )
    return {"y": solution.ys[-1], "steps": solution.stats["num_steps"], "name": model.name}


def stepped(model, y0):
    """Twenty Euler steps."""
    step = lambda y, _: (y + 0.05 * model(0.0, y, None), None)
    return {"y": jax.lax.scan(step, y0, length=20)[0], "name": model.name}


def run(function, *arguments):
    compiled = jax.jit(function).lower(*arguments).compile()
    text = compiled.as_text()
    counts = {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in OPERATIONS}
    return compiled(*arguments), counts


def error(a, b):
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b))) / np.max(np.abs(np.asarray(b))))


def main():
    out = {}
    y0 = np.random.default_rng(0).standard_normal((16, 2))
    mu = jnp.linspace(0.1, 5.0, 16)
    shared = Oscillator(jnp.asarray(2.0), "shared")
    each = Oscillator(mu, "each")
    end = lambda mapped: lambda stiffness, y0: mapped(Oscillator(stiffness, ""), y0)["y"]
    energy = lambda mapped: lambda stiffness, y0: jnp.sum(end(mapped)(stiffness, y0) ** 2)
    plain = eqx.filter_vmap(lambda m, y: solve(m, y)["y"])(each, y0)
    steps = [int(solve(Oscillator(m, ""), jnp.asarray(y))["steps"]) for m, y in zip(mu[:2], y0[:2])]
    on_one = lambda stiffness, y0: jnp.sum(
        jax.vmap(lambda y: stepped(Oscillator(stiffness, ""), y)["y"])(y0) ** 2
    )
    one_grad = jax.jit(jax.grad(on_one, (0, 1)))(shared.stiffness, jnp.asarray(y0))
    for kind, axis_type in (("auto", AxisType.Auto), ("explicit", AxisType.Explicit)):
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(axis_type,))
        cut = jax.device_put(y0, NamedSharding(mesh, P("batch")))
        case = {}
        # A model for each sample, from the host; results that are not arrays come back.
        all_each = sharded_vmap(solve, mesh)(each, y0)
        case["value"] = error(all_each["y"], plain)
        case["steps"] = np.asarray(all_each["steps"])[:2].tolist() == steps
        case["name"] = all_each["name"]
        case["cut"] = all_each["y"].sharding.is_equivalent_to(cut.sharding, 2)
        # One model for all samples, as an argument, and held by the function.
        by_argument = sharded_vmap(solve, mesh, in_axes=(None, 0))
        held = sharded_vmap(lambda y: solve(shared, y)["y"], mesh)
        value, case["hlo"] = run(held, cut)
        case["held"] = error(value, by_argument(shared, cut)["y"])
        case["shorter"] = error(
            by_argument(shared, cut, end=jnp.asarray(0.5))["y"],
            jax.vmap(lambda y: solve(shared, y, end=0.5)["y"])(y0),
        )
        gradient, case["grad_hlo"] = run(
            jax.grad(energy(sharded_vmap(stepped, mesh, in_axes=(None, 0))), (0, 1)),
            shared.stiffness,
            cut,
        )
        case["grad"] = max(error(a, b) for a, b in zip(gradient, one_grad))
        # Batch axes other than the first.
        turned = sharded_vmap(lambda y: 2 * y, mesh, in_axes=1, out_axes=1)(y0.T)
        case["turned"] = error(turned, 2 * y0.T)
        negative = sharded_vmap(lambda y: 2 * y, mesh, in_axes=-1, out_axes=-1)(y0.T)
        case["negative"] = error(negative, 2 * y0.T)
        with jax.set_mesh(mesh):
            case["from the context"] = error(sharded_vmap(jnp.sin)(y0), np.sin(y0))
        try:
            sharded_vmap(jnp.sin, mesh)(y0[:12])
        except ValueError as e:
            case["uneven"] = str(e)
        two = jax.make_mesh((2, 4), ("batch", "model"), axis_types=(axis_type,) * 2)
        case["two axes"] = error(sharded_vmap(lambda y: jnp.sin(y), two)(y0), np.sin(y0))
        out[kind] = case
    print(json.dumps(out))


main()
