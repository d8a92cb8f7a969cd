"""Sharded grids on simulated devices; prints one line of JSON (see test_decomposition.py).

With the argument "step" only one step of a flow, cut in slabs, is compared and compiled.
"""

import functools
import itertools
import json
import sys

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

jax.config.update("jax_enable_x64", True)

from jaxsci import integrate, pde, spectral
from jaxsci.spectral import FourierGrid

OPERATIONS = ("all-gather", "all-to-all", "all-reduce", "collective-permute")
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
TWO_PI = 2 * np.pi


def mesh_of(sizes, names, kind):
    devices = jax.devices()[: np.prod(sizes)]
    return jax.make_mesh(sizes, names, axis_types=(KINDS[kind],) * len(sizes), devices=devices)


def run(function, *arguments):
    """The value of a compiled function, and how often its program communicates."""
    compiled = jax.jit(function).lower(*arguments).compile()
    text = compiled.as_text()
    counts = {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in OPERATIONS}
    return compiled(*arguments), counts


def error(a, b):
    """Largest difference over largest value, of equally shaped trees."""
    a, b = jax.tree.map(np.asarray, (a, b))
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert all(x.shape == y.shape for x, y in pairs), [(x.shape, y.shape) for x, y in pairs]
    return max(float(np.max(np.abs(x - y)) / (1e-300 + np.max(np.abs(y)))) for x, y in pairs)


def normal(shape, *, complex_=False):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if complex_ else x


def stored(grid, uh):
    """The modes of coefficients, without padding."""
    return np.asarray(uh)[..., : grid.num_stored]


def padding(grid, uh):
    return float(np.sum(np.abs(np.asarray(uh)[..., grid.num_stored :])))


def transform(grid, real_input, plain):
    """Value, padding, way back and gradient of the transform of a sharded grid."""
    u = jax.device_put(real_input, grid.sharding("physical", None))

    def energy(grid, u):
        uh = grid.fft(u)
        return grid.norm(uh * uh) ** 2

    there, there_hlo = run(grid.fft, u)
    back, back_hlo = run(grid.ifft, there)
    gradient, gradient_hlo = run(jax.grad(functools.partial(energy, grid)), u)
    axes = tuple(range(-grid.ndim, 0))
    numpy_fft = np.fft.rfftn if grid.real else np.fft.fftn
    return {
        "value": error(stored(grid, there), numpy_fft(real_input, axes=axes)),
        "padding": padding(grid, there),
        "back": error(back, real_input),
        "grad": error(gradient, jax.jit(jax.grad(functools.partial(energy, plain)))(u)),
        "cut": there.sharding.is_equivalent_to(grid.sharding("spectral", None), there.ndim),
        "cut_back": back.sharding.is_equivalent_to(grid.sharding("physical", None), back.ndim),
        "hlo": there_hlo,
        "back_hlo": back_hlo,
        "grad_hlo": gradient_hlo,
    }


def transforms():
    cases = {
        "slab of even sizes": ((16, 24), (8,), "s", True),
        "slab of an odd last size": ((16, 9), (4,), "s", True),
        "slab on three devices": ((9, 16), (3,), "s", True),
        "slab on two devices": ((6, 10), (2,), "s", True),
        "slab of complex fields": ((16, 10), (8,), "s", False),
        "slab in three dimensions": ((8, 5, 12), (8,), "s", True),
        "pencils": ((8, 8, 10), (2, 4), "st", True),
        "pencils of odd last size": ((4, 12, 7), (4, 2), "st", True),
        "pencils of complex fields": ((4, 4, 6), (2, 2), "st", False),
        "batch and slab": ((8, 8), (2, 4), "bs", True),
    }
    out = {}
    for name, (shape, sizes, names, real) in cases.items():
        for kind in KINDS:
            plain = FourierGrid(shape, (TWO_PI,) * len(shape), real)
            mesh = mesh_of(sizes, tuple(names), kind)
            grid = plain.sharded(mesh, [n for n in names if n != "b"])
            out[f"{name}/{kind}"] = transform(grid, normal((2, *shape), complex_=not real), plain)
    return out


def flow_on(grid, **options):
    return pde.NavierStokes2D(grid, viscosity=1e-2, drag=0.1, forcing=pde.kolmogorov(2), **options)


def rolled(flow, num_steps, wh):
    return integrate.rollout(
        integrate.ETDRK4(),
        flow.term(),
        wh,
        dt=0.01,
        num_steps=num_steps,
        checkpoint="sqrt",
    )[-1]


def end_norm(flow, num_steps, wh):
    return flow.grid.norm(rolled(flow, num_steps, wh)) ** 2


def step():
    """One step of a two-dimensional flow in slabs, and the gradient through it."""
    plain = FourierGrid((16, 16), (TWO_PI, TWO_PI))
    grid = plain.sharded(mesh_of((8,), ("s",), "auto"), "s")
    w = normal((1, 16, 16))
    wh, wh_plain = jax.jit(grid.fft)(w), plain.fft(jnp.asarray(w))
    flow, flow_plain = flow_on(grid), flow_on(plain)
    value, hlo = run(functools.partial(rolled, flow, 1), wh)
    gradient, grad_hlo = run(jax.grad(functools.partial(end_norm, flow, 1)), wh)
    expected = jax.jit(functools.partial(rolled, flow_plain, 1))(wh_plain)
    expected_grad = jax.jit(jax.grad(functools.partial(end_norm, flow_plain, 1)))(wh_plain)
    return {
        "value": error(stored(grid, value), expected),
        "grad": error(stored(grid, gradient), expected_grad),
        "padding": padding(grid, value) + padding(grid, gradient),
        "cut": value.sharding.is_equivalent_to(grid.sharding("spectral", None), 3),
        "hlo": hlo,
        "grad_hlo": grad_hlo,
    }


def flows():
    out = {}
    plain = FourierGrid((16, 16), (TWO_PI, TWO_PI))
    w = normal((4, 1, 16, 16))
    wh_plain = plain.fft(jnp.asarray(w))
    roll_plain = jax.jit(jax.vmap(functools.partial(rolled, flow_on(plain), 4)))(wh_plain)
    grad_plain = jax.jit(jax.vmap(jax.grad(functools.partial(end_norm, flow_on(plain), 4))))(
        wh_plain
    )
    solved = lambda grid, wh: (
        diffrax.diffeqsolve(
            flow_on(grid).term(),
            integrate.ETDRK4(),
            0.0,
            0.04,
            0.01,
            wh,
            stepsize_controller=diffrax.ConstantStepSize(),
            throw=False,
        ).ys
    )
    for kind in KINDS:
        mesh = mesh_of((2, 4), ("b", "s"), kind)
        grid = plain.sharded(mesh, "s")
        flow = flow_on(grid)
        batch = jax.device_put(w, grid.sharding("physical", "b", None))
        wh, _ = run(grid.fft, batch)
        value, hlo = run(jax.vmap(functools.partial(rolled, flow, 4)), wh)
        gradient, grad_hlo = run(jax.vmap(jax.grad(functools.partial(end_norm, flow, 4))), wh)
        out[f"batch and slab/{kind}"] = {
            "value": error(stored(grid, value), roll_plain),
            "grad": error(stored(grid, gradient), grad_plain),
            "padding": padding(grid, value) + padding(grid, gradient),
            "cut": value.sharding.is_equivalent_to(grid.sharding("spectral", "b", None), 4),
            "hlo": hlo,
            "grad_hlo": grad_hlo,
        }
        if kind == "explicit":
            # The buffers of saved states of diffrax do not take explicitly sharded arrays.
            continue
        one = jax.device_put(np.asarray(wh)[0], grid.sharding("spectral", None))
        value, hlo = run(functools.partial(solved, grid), one)
        out[f"diffeqsolve/{kind}"] = {
            "value": error(
                stored(grid, value), jax.jit(functools.partial(solved, plain))(wh_plain[0])
            ),
            "padding": padding(grid, value),
            "hlo": hlo,
        }
        for name, steps in (("dt", {"dt": 0.01}), ("rtol", {"rtol": 1e-5, "atol": 1e-7})):
            ts = jnp.linspace(0, 0.05, 3)
            at = lambda grid, u, ts=ts, steps=steps: pde.simulate(flow_on(grid), u, ts, **steps).ys
            u0 = jax.device_put(w[0], grid.sharding("physical", None))
            value = at(grid, u0)
            out[f"simulate with {name}/{kind}"] = {
                "value": error(value, at(plain, jnp.asarray(w[0]))),
                "hlo": run(functools.partial(at, grid), u0)[1],
            }
    return out


def pencils():
    """Burgers' equation in three dimensions."""
    out = {}
    plain = FourierGrid((8, 8, 8), (TWO_PI,) * 3)
    u = 0.1 * normal((3, 8, 8, 8))

    def end(grid, viscosity, uh):
        equation = pde.Burgers(grid, viscosity)
        return integrate.rollout(
            integrate.ETDRK2(), equation.term(), uh, dt=0.01, num_steps=2, checkpoint="step"
        )[-1]

    loss = lambda grid, viscosity, uh: grid.norm(end(grid, viscosity, uh)) ** 2
    nu = jnp.asarray(0.05)
    uh_plain = plain.fft(jnp.asarray(u))
    expected = jax.jit(functools.partial(end, plain))(nu, uh_plain)
    expected_grad = jax.jit(jax.grad(functools.partial(loss, plain), (0, 1)))(nu, uh_plain)
    for kind in KINDS:
        grid = plain.sharded(mesh_of((2, 4), ("s", "t"), kind), ("s", "t"))
        uh = jax.jit(grid.fft)(jax.device_put(u, grid.sharding("physical", None)))
        value, hlo = run(functools.partial(end, grid), nu, uh)
        gradient, grad_hlo = run(jax.grad(functools.partial(loss, grid), (0, 1)), nu, uh)
        out[kind] = {
            "value": error(stored(grid, value), expected),
            "grad": error((gradient[0], stored(grid, gradient[1])), expected_grad),
            "padding": padding(grid, value) + padding(grid, gradient[1]),
            "hlo": hlo,
            "grad_hlo": grad_hlo,
        }
    return out


def quantities(grid, uh):
    """What is computed from the coefficients of a two-component field."""
    return {
        "mean": grid.mean(uh),
        "norm": grid.norm(uh),
        "inner": grid.inner(uh, grid.lap_inv(uh)),
        "sobolev": spectral.sobolev_norm(grid, uh, -1.0),
        "spectrum": spectral.energy_spectrum(grid, uh)[1],
        "transfer": spectral.energy_transfer(grid, uh, grid.lap(uh))[1:],
        "dissipation": spectral.dissipation(grid, uh, 0.1),
        "divergence": grid.norm(grid.div(uh)),
        "curl": grid.norm(grid.curl(uh)),
        "leray": grid.norm(grid.leray(uh)),
        "smooth": grid.norm(grid.dealias(uh, 3, "smooth")),
        "pressure": grid.norm(spectral.pressure(grid, uh)),
        "gradient": grid.norm(grid.grad(uh)),
        "project": grid.norm(grid.project_real(uh)),
        "field": grid.ifft(grid.derivative(uh, 1, 3)),
    }


def diagnostics():
    out = {}
    for kind, (shape, sizes, names) in itertools.product(
        KINDS, (((16, 12), (8,), "s"), ((8, 8, 6), (2, 4), "st"))
    ):
        plain = FourierGrid(shape, (TWO_PI, 3.0, 2.0)[: len(shape)])
        grid = plain.sharded(mesh_of(sizes, tuple(names), kind), tuple(names))
        u = normal((len(shape), *shape))
        uh = jax.jit(grid.fft)(jax.device_put(u, grid.sharding("physical", None)))
        value, hlo = run(functools.partial(quantities, grid), uh)
        expected = jax.jit(functools.partial(quantities, plain))(plain.fft(jnp.asarray(u)))
        errors = {name: error(value[name], expected[name]) for name in expected}
        out[f"{len(shape)}d/{kind}"] = {"errors": errors, "hlo": hlo}
    return out


def fields():
    out = {}
    key = jax.random.key(0)
    plain = FourierGrid((16, 16), (1.0, 1.0))
    for kind in KINDS:
        grid = plain.sharded(mesh_of((8,), ("s",), kind), "s")
        for name, draw in {
            "gaussian": lambda g: spectral.gaussian_random_field(key, g),
            "operator learning": lambda g: spectral.operator_learning_field(key, g),
            "series": lambda g: spectral.truncated_fourier_series(key, g, 4),
            "blobs": lambda g: g.ifft(g.fft(spectral.gaussian_blobs(key, g))),
            "turbulence": lambda g: spectral.decaying_turbulence(key, g, 20.0),
        }.items():
            with jax.set_mesh(grid.decomposition.mesh):
                value = jax.jit(functools.partial(draw, grid))()
            out[f"{name}/{kind}"] = {
                "value": error(value, draw(plain)),
                "cut": value.sharding.is_equivalent_to(
                    grid.sharding("physical", *(None,) * (value.ndim - 2)), value.ndim
                ),
            }
    return out


def resizes():
    out = {}
    cases = [
        ((8, 8), (16, 12), (4,), "s"),
        ((16, 12), (8, 8), (4,), "s"),
        ((8, 9), (12, 15), (4,), "s"),
        ((8, 8), (8, 12), (4,), "s"),
        ((4, 4, 6), (8, 8, 8), (2, 2), "st"),
        ((8, 8, 8), (4, 4, 6), (2, 2), "st"),
    ]
    for kind, (old, new, sizes, names) in itertools.product(KINDS, cases):
        plain = FourierGrid(old, (1.0,) * len(old))
        mesh = mesh_of(sizes, tuple(names), kind)
        grid = plain.sharded(mesh, tuple(names))
        uh = jax.jit(plain.fft)(jnp.asarray(normal((2, *old))))
        expected = spectral.resize(uh, plain, plain.with_shape(new))
        target = grid.with_shape(new)
        cut = jax.jit(grid.fft)(jax.device_put(normal((2, *old)), grid.sharding("physical", None)))
        value, hlo = run(lambda uh, g=grid, t=target: spectral.resize(uh, g, t), cut)
        out[f"{old} to {new}/{kind}"] = {
            "value": error(stored(target, value), expected),
            "padding": padding(target, value),
            "hlo": hlo,
        }
        whole = spectral.resize(cut, grid, plain)
        again = spectral.resize(whole, plain, grid)
        out[f"{old} and {new} whole and cut/{kind}"] = {
            "value": max(error(whole, uh), error(again, cut)),
            "padding": padding(grid, again),
        }
    return out


if sys.argv[1:] == ["step"]:
    print(json.dumps(step()))
else:
    parts = (transforms, flows, pencils, diagnostics, fields, resizes)
    wanted = sys.argv[1:] or [part.__name__ for part in parts]
    print(json.dumps({part.__name__: part() for part in parts if part.__name__ in wanted}))
