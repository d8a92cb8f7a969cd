"""What a sharded flow communicates: bytes a step in the compiled program, against the least.

    python benchmarks/scaling/spectral.py [output.json]

The least: a transform of n coefficients turns every axis at least once, an axis that is cut over p
devices cannot be turned, and moving the cut to another axis makes each device send all but its own
part of what it holds, (p - 1)/p of n/devices complex numbers. One exchange for each cut axis and
transform, of the modes without padding. A step of ETDRK4 evaluates N four times; N transforms as
many fields as the table says. The count is that of the loop body of a rollout of several steps.

Starts itself once more with eight simulated devices if there is one device only; then no times are
given, since simulated devices share one processor.
"""

import json
import os
import re
import subprocess
import sys
import time

import jax
import numpy as np

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid

BYTES = {"f32": 4, "f64": 8, "c64": 8, "c128": 16}
EXCHANGES = "all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter"
NUM_STEPS = 4


def sent_bytes(text, loops_only=True):
    """Bytes that one device sends in the loop body, by operation.

    The shape of an all-to-all counts the part that stays too: it is scaled by (p - 1)/p.
    """
    total, inside = {}, not loops_only
    for line in text.splitlines():
        if line and not line[0].isspace():
            inside = not loops_only or not line.startswith("ENTRY")
        match = re.match(rf"\s*(?:ROOT )?\S+ = (.*?) ({EXCHANGES})(?:-start)?\(", line)
        if not match or not inside:
            continue
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
        size = sum(
            BYTES.get(kind, 4) * int(np.prod([int(n) for n in dims.split(",") if n]))
            for kind, dims in shapes
        )
        group = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
        iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
        # An all-to-all is written with one shape a device, or with one for all.
        p = len(group[1].split(",")) if group else int(iota[1]) if iota else len(shapes)
        scale = (p - 1) / p if match[2] == "all-to-all" else 1
        total[match[2]] = total.get(match[2], 0) + size * scale
    return total


def navier_stokes(grid):
    return pde.NavierStokes2D(grid, viscosity=1e-3), 4, 1


def burgers(grid):
    # The velocity, its gradient in each direction, and the products.
    return pde.Burgers(grid, 1e-2), 3 + 9 + 3, 3


def case(name, shape, sizes, names, batch, equation_of):
    mesh = jax.make_mesh(
        sizes,
        names,
        axis_types=(jax.sharding.AxisType.Auto,) * len(names),
        devices=jax.devices()[: np.prod(sizes)],
    )
    plain = FourierGrid(shape, (2 * np.pi,) * len(shape))
    cuts = tuple(n for n in names if n != "batch")
    grid = plain.sharded(mesh, cuts) if cuts else plain
    equation, transforms, channels = equation_of(grid)
    lead = ("batch", None) if "batch" in names else (None,)
    x = np.random.default_rng(0).standard_normal((*((batch,) if batch else ()), channels, *shape))
    x = x.astype(np.float32)
    if cuts:
        x = jax.device_put(x, grid.sharding("physical", *lead))
    else:
        spec = jax.sharding.PartitionSpec(*lead)
        x = jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))
    uh = jax.jit(grid.fft)(x)

    def flow(uh):
        return integrate.rollout(
            integrate.ETDRK4(),
            equation.term(),
            uh,
            dt=1e-3,
            num_steps=NUM_STEPS,
            save_every=NUM_STEPS,
        )

    run = jax.jit(jax.vmap(flow) if batch else flow).lower(uh).compile()
    sent = sent_bytes(run.as_text())
    least = 0.0
    for cut in cuts:
        p = mesh.shape[cut]
        local = 8 * int(np.prod(plain.spectral_shape)) * max(batch, 1) / int(np.prod(sizes))
        least += 4 * transforms * local * (p - 1) / p
    row = {"case": name, "shape": shape, "devices": dict(zip(names, sizes)), "batch": batch}
    row |= {"sent": sent, "total": sum(sent.values()), "least": least}
    row["padding"] = grid.spectral_shape[-1] / plain.spectral_shape[-1]
    if jax.devices()[0].platform != "cpu":
        jax.block_until_ready(run(uh))
        start = time.perf_counter()
        jax.block_until_ready(run(uh))
        row["seconds a step"] = (time.perf_counter() - start) / NUM_STEPS
    return row


def rows():
    counts = [p for p in (2, 4, 8) if p <= jax.device_count()]
    for n in (64, 256):
        for p in counts:
            yield case("2-D flow, slabs", (n, n), (p,), ("x",), 0, navier_stokes)
    for p in counts:
        yield case("2-D flow, batch", (64, 64), (p,), ("batch",), 8, navier_stokes)
    for p in counts[1:]:
        sizes = (2, p // 2)
        yield case("2-D flow, both", (64, 64), sizes, ("batch", "x"), 8, navier_stokes)
    for p in counts[1:]:
        yield case("3-D Burgers, pencils", (32,) * 3, (2, p // 2), ("x", "y"), 0, burgers)


def main(output=None):
    if jax.device_count() == 1:
        flags = "--xla_force_host_platform_device_count=8"
        env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=env, check=False).returncode)
    print(f"{jax.device_count()} devices: {jax.devices()[0].device_kind}")
    if jax.devices()[0].platform == "cpu":
        print("Simulated devices: bytes only, no times.")
    print(f"{'case':22} {'grid':>8} {'devices':>22} {'sent/step':>10} {'least':>10} ratio padding")
    table = []
    for row in rows():
        table.append(row)
        ratio = row["total"] / row["least"] if row["least"] else float("nan")
        print(
            f"{row['case']:22} {'x'.join(map(str, row['shape'])):>8} {row['devices']!s:>22} "
            f"{row['total']:10.0f} {row['least']:10.0f} {ratio:5.2f} {row['padding']:.2f} "
            f"{','.join(row['sent'])} {row.get('seconds a step', '')}"
        )
    if output:
        with open(output, "w") as file:
            json.dump(table, file, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
