import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci import train

_ROOT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).with_name("resume_run.py")


def _start(code_or_script, *args, **environment):
    env = {**os.environ, "PYTHONPATH": str(_ROOT), "JAX_PLATFORMS": "cpu", **environment}
    env["JAX_ENABLE_X64"] = str(jnp.result_type(float) == jnp.float64)
    command = [sys.executable, *code_or_script, *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def _check_bitwise_equal(a, b):
    a, b = ((r.model, r.opt_state, r.ema, r.metrics) for r in (a, b))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        if eqx.is_array_like(x):
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x, y = jax.random.key_data(x), jax.random.key_data(y)
            x, y = np.asarray(x), np.asarray(y)
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


@pytest.fixture(scope="module")
def run():
    return runpy.run_path(str(_SCRIPT))["run"]


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("uninterrupted"))


def test_a_run_killed_three_times_and_resumed_is_bitwise_the_uninterrupted_one(
    run, uninterrupted, tmp_path, tmp_path_factory
):
    # Compilations take most of the time of these processes: they share them.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for moment, saved in (("before-saving", []), ("after-saving", [10]), ("while-saving", [10])):
        killed = _start([str(_SCRIPT)], tmp_path, moment, **cache)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        names = os.listdir(tmp_path)
        assert [int(name) for name in names if name.isdigit()] == saved
        assert any("tmp" in name for name in names) == (moment == "while-saving")

    result = run(tmp_path)
    _check_bitwise_equal(result, uninterrupted)
    assert result.step == 40
    assert result.metrics["step"].tolist() == list(range(1, 41))
    assert sorted(os.listdir(tmp_path)) == ["30", "40"]


class Model(eqx.Module):
    weight: jax.Array
    half: jax.Array
    table: train.NonTrainable
    empty: jax.Array
    name: str
    function: Any

    def __call__(self, x):
        return self.function(self.weight @ x) * self.half.astype(x.dtype) + self.table.value["b"]


def _model(width=3):
    return Model(
        jnp.linspace(-1, 1, width * 3).reshape(width, 3),
        jnp.ones(width, jnp.bfloat16),
        train.NonTrainable({"b": jnp.ones(width), "key": jax.random.key(3)}),
        jnp.zeros((0, 2)),
        "name",
        jnp.tanh,
    )


def _loss(model, batch, key):
    error = model(batch) - jax.random.normal(key, ())
    return jnp.mean(error**2), {"largest": jnp.abs(error), "count": jnp.int32(3)}


def _batches(step, key):
    return jax.random.normal(key, (3,)) + step


_TX = optax.chain(optax.add_noise(0.1, 0.55, key=jax.random.key(0)), optax.adam(1e-2))


def _fit(directory, num_steps=7, model=None, tx=_TX, every=3, seed=0, **kwargs):
    checkpoint = None if directory is None else train.Checkpoint(directory, every=every)
    return train.fit(
        _loss,
        _model() if model is None else model,
        _batches,
        tx,
        **{
            "key": jax.random.key(seed),
            "num_steps": num_steps,
            "ema": 0.5,
            "log_every": 2,
            "checkpoint": checkpoint,
            **kwargs,
        },
    )


@pytest.fixture(scope="module")
def whole():
    return _fit(None)


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_a_longer_run_continues_a_shorter_one_exactly(tmp_path, whole, steps_per_call):
    part = _fit(tmp_path, num_steps=4, steps_per_call=steps_per_call)
    assert part.step == 4
    # The restored key takes the place of the new one, and restored arrays that of the model's.
    other = eqx.tree_at(lambda m: m.table.value["b"], _model(), jnp.zeros(3))
    resumed = _fit(tmp_path, model=other, seed=1, steps_per_call=steps_per_call)
    if steps_per_call > 1:
        whole = _fit(None, steps_per_call=steps_per_call)
    _check_bitwise_equal(resumed, whole)
    assert sorted(os.listdir(tmp_path), key=int) == ["4", "6", "7"]


def test_a_finished_run_is_restored_without_a_step(tmp_path, whole):
    _fit(tmp_path)
    _check_bitwise_equal(_fit(tmp_path), whole)
    assert _fit(tmp_path, num_steps=2).step == 7


def test_a_checkpoint_holds_json_and_no_pickle(tmp_path):
    _fit(tmp_path, num_steps=3)
    metadata = json.loads((tmp_path / "3" / "metadata" / "metadata").read_text())
    x64 = jnp.result_type(float) == jnp.float64
    assert metadata["settings"] == {"microbatch": 1, "ema": 0.5, "x64": x64}
    assert metadata["versions"]["jax"] == jax.__version__
    paths = [leaf["path"] for leaf in metadata["leaves"]]
    assert ".params.weight" in paths
    assert ".frozen.table.value['key']" in paths
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pkl", ".pickle")]


def test_keep_none_keeps_all_and_keep_one_the_last(tmp_path):
    for keep, expected in ((None, ["2", "4", "5"]), (1, ["5"])):
        directory = tmp_path / str(keep)
        _fit(directory, num_steps=5, checkpoint=train.Checkpoint(directory, every=2, keep=keep))
        assert sorted(os.listdir(directory)) == expected


def test_an_exception_in_a_callback_leaves_whole_checkpoints(tmp_path, whole):
    def interrupt(state):
        if state.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path, callbacks=[interrupt])
    assert os.listdir(tmp_path) == ["3"]
    _check_bitwise_equal(_fit(tmp_path), whole)


def test_a_failed_run_saves_no_further_checkpoint(tmp_path):
    def loss(model, batch, key):
        return jnp.where(batch < 5, 1.0, jnp.nan) * jnp.sum(model**2)

    arguments = (loss, jnp.ones(2), lambda step, key: jnp.asarray(step), optax.sgd(0.1))
    checkpoint = train.Checkpoint(tmp_path, every=3)
    with pytest.raises(RuntimeError, match="after 5 updates"):
        train.fit(*arguments, key=jax.random.key(0), num_steps=20, checkpoint=checkpoint)
    assert os.listdir(tmp_path) == ["3"]


_SHARDED = """
import sys
import jax, jax.numpy as jnp, optax
from jaxsci import train
mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
split = jax.NamedSharding(mesh, jax.P("x"))
result = train.fit(
    lambda m, b, k: jnp.mean((b @ m["w"]) ** 2),
    {"w": jax.device_put(jnp.arange(16.0), split)},
    lambda step, key: jax.device_put(jax.random.normal(key, (8, 16)), split),
    optax.adam(1e-2), key=jax.random.key(0), num_steps=int(sys.argv[2]),
    checkpoint=train.Checkpoint(sys.argv[1], every=4),
)
for leaf in (result.model["w"], result.opt_state[0].mu["w"]):
    assert leaf.sharding.is_equivalent_to(split, 1), leaf.sharding
"""


def test_a_checkpoint_of_eight_devices_continues_on_eight_and_on_one(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    code = f"{_SHARDED}\nimport shutil; shutil.copytree(sys.argv[1], sys.argv[1] + '-copy')\n"
    # Runs to step 4, then resumes from the copy in the same process.
    code += _SHARDED.replace("sys.argv[1]", "sys.argv[1] + '-copy'").replace("sys.argv[2]", "8")
    done = _start(["-c", code], tmp_path / "run", 4, **flags)
    assert done.returncode == 0, done.stderr

    def one_device(directory, num_steps):
        return train.fit(
            lambda m, b, k: jnp.mean((b @ m["w"]) ** 2),
            {"w": jnp.arange(16.0)},
            lambda step, key: jax.random.normal(key, (8, 16)),
            optax.adam(1e-2),
            key=jax.random.key(0),
            num_steps=num_steps,
            checkpoint=None if directory is None else train.Checkpoint(directory, every=4),
        ).model["w"]

    expected = one_device(None, 8)
    for directory in ("run", "run-copy"):
        np.testing.assert_allclose(one_device(tmp_path / directory, 8), expected, rtol=1e-12)


@pytest.mark.bad_input
def test_another_structure_is_refused_with_the_first_path(tmp_path):
    _fit(tmp_path, num_steps=3)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"model": _model(4)}, r"at \.params\.weight: its shape is \[3, 3\], expected \[4, 3\]"),
        ({"ema": None}, r"holds \.ema\.weight where \.opt_state"),
        ({"tx": optax.sgd(0.1)}, r"holds \.opt_state\[0\].*where \.step is expected"),
    )
    for kwargs, message in cases:
        with pytest.raises(ValueError, match=message):
            _fit(tmp_path, **kwargs)


@pytest.mark.bad_input
def test_a_directory_with_checkpoints_is_not_overwritten(tmp_path):
    _fit(tmp_path, num_steps=3)
    with pytest.raises(ValueError, match=r"`resume=False`.*got one at step 3"):
        _fit(tmp_path, checkpoint=train.Checkpoint(tmp_path, every=3, resume=False))


@pytest.mark.bad_input
def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="`every` must be at least 1, got 0"):
        train.Checkpoint(tmp_path, every=0)
    with pytest.raises(ValueError, match="`keep` must be at least 1, got 0"):
        train.Checkpoint(tmp_path, every=1, keep=0)
