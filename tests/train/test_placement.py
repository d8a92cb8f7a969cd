import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from jaxsci import train
kind = getattr(jax.sharding.AxisType, sys.argv[1])
mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
jax.set_mesh(mesh)
split = jax.NamedSharding(mesh, jax.P("x"))
x = np.random.default_rng(0).normal(size=(64, 3)); y = np.sin(x).sum(1)
params = {"a": jnp.ones((3, 5)), "b": jnp.ones(5) / 5}
def loss(p, batch, key):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ p["a"]) @ p["b"] - y) ** 2)
def run(place, microbatch):
    batches = lambda step, key: place((x, y))
    result = train.fit(loss, params, batches, tx, key=jax.random.key(0), num_steps=6, ema=0.5,
                       microbatch=microbatch)
    return result.model, result.ema, result.metrics
tx = optax.adam(1e-2)
for microbatch in (1, 2):
    one = run(lambda batch: batch, microbatch)
    eight = run(lambda batch: jax.device_put(batch, split), microbatch)
    for leaf in jax.tree.leaves(eight[:2]):
        assert leaf.sharding.is_fully_replicated and len(leaf.sharding.device_set) == 8
    for u, v in zip(jax.tree.leaves(one), jax.tree.leaves(eight)):
        np.testing.assert_allclose(u, v, rtol=1e-12)
"""


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_a_batch_split_over_eight_devices_gives_the_same_run_with_one_reduction(kind, tmp_path):
    flags = (
        "--xla_force_host_platform_device_count=8 --xla_dump_hlo_as_text "
        f"--xla_dump_to={tmp_path} --xla_dump_hlo_module_re=.*update.*"
    )
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    env["JAX_ENABLE_X64"] = "true"
    run = subprocess.run(
        [sys.executable, "-c", _SHARDED, kind], env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    programs = [p.read_text() for p in tmp_path.glob("*update*after_optimizations.txt")]
    # One device and eight, without and with microbatches: nothing compiles twice.
    assert len(programs) == 4
    counts = sorted(
        (
            len(re.findall(r"= .* all-reduce(?:-start)?\(", p)),
            "all-gather(" in p,
            "all-to-all(" in p,
        )
        for p in programs
    )
    assert [count[0] for count in counts[:2]] == [0, 0]
    assert all(1 <= count <= 2 for count, *_ in counts[2:]), counts
    assert not any(gather or shuffle for _, gather, shuffle in counts), counts
