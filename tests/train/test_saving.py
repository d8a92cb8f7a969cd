import json
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import train


@pytest.fixture
def model():
    return {
        "mlp": eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0)),
        "bfloat16": jnp.arange(5, dtype=jnp.bfloat16) / 3,
        "float8": jnp.array([0.5, -1.0], jnp.float8_e4m3fn),
        "complex": jnp.array(1 + 2j),
        "bool": jnp.array([True, False]),
        "empty": jnp.zeros((0, 3)),
        "key": jax.random.split(jax.random.key(5), 2),
        "rbg": jax.random.key(6, impl="rbg"),
        "numpy": np.arange(3, dtype=np.int64),
        "fixed": train.NonTrainable(jnp.ones(2)),
        "name": "text",
        "function": jnp.sin,
    }


def _bits(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return x.dtype, x.shape, np.asarray(jax.random.key_data(x) if is_key else x).tobytes()


def _zeroed(model):
    def zero(x):
        if not hasattr(x, "dtype"):
            return x
        if isinstance(x, np.ndarray):
            return np.zeros_like(x)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            zeros = jnp.zeros_like(jax.random.key_data(x))
            return jax.random.wrap_key_data(zeros, impl=jax.random.key_impl(x))
        return jnp.zeros_like(x)

    return jax.tree.map(zero, model)


def _check_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        if hasattr(x, "dtype"):
            assert type(x) is type(y)
            assert _bits(x) == _bits(y)
        else:
            assert x is y


def test_a_loaded_model_is_bitwise_the_saved_one(model, tmp_path):
    train.save(tmp_path / "model.npz", model)
    _check_same(train.load(tmp_path / "model.npz", _zeroed(model)), model)


def test_a_model_loads_into_its_shapes(model, tmp_path):
    train.save(tmp_path / "model", model)
    assert os.listdir(tmp_path) == ["model"]
    del model["numpy"]
    train.save(tmp_path / "model", model)
    like = eqx.filter_eval_shape(lambda: model)
    _check_same(train.load(tmp_path / "model", like), model)


def test_the_file_needs_no_pickle_and_names_paths_as_json(model, tmp_path):
    train.save(tmp_path / "model.npz", model)
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        metadata = json.loads(file["metadata"].tobytes())
        assert all(file[name].dtype.kind in "biufc" for name in file.files)
    by_path = {entry["path"]: entry for entry in metadata["leaves"]}
    assert by_path["['bfloat16']"] == {"path": "['bfloat16']", "shape": [5], "dtype": "bfloat16"}
    assert "['mlp'].layers[0].weight" in by_path


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    train.save(tmp_path / "model", jnp.ones(2))
    monkeypatch.setattr(np, "savez", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        train.save(tmp_path / "model", jnp.zeros(2))
    assert os.listdir(tmp_path) == ["model"]
    np.testing.assert_array_equal(train.load(tmp_path / "model", jnp.zeros(2)), np.ones(2))


def test_saving_and_loading_need_no_orbax(tmp_path):
    code = (
        "import sys; sys.modules['orbax'] = sys.modules['orbax.checkpoint'] = None\n"
        "import jax.numpy as jnp\n"
        "from jaxsci import train\n"
        f"train.save({str(tmp_path / 'm')!r}, jnp.arange(3))\n"
        f"assert train.load({str(tmp_path / 'm')!r}, jnp.zeros(3, int)).tolist() == [0, 1, 2]\n"
        "try:\n"
        "    train.fit(lambda m, b, k: m, jnp.ones(()), lambda s, k: 0, None,\n"
        "              key=0, num_steps=0, checkpoint=train.Checkpoint('x', 1))\n"
        "except Exception as error:\n"
        "    assert not isinstance(error, ImportError), error\n"
        "import jax, optax\n"
        "try:\n"
        "    train.fit(lambda m, b, k: m, jnp.ones(()), lambda s, k: 0, optax.sgd(1.0),\n"
        "              key=jax.random.key(0), num_steps=0, checkpoint=train.Checkpoint('x', 1))\n"
        "except ImportError as error:\n"
        "    assert 'pip install jaxsci[train]' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.bad_input
def test_a_model_that_differs_is_refused_with_the_first_path(model, tmp_path):
    path = tmp_path / "model"
    train.save(path, {"a": jnp.ones(2), "b": jnp.ones(3)})
    for like, message in (
        ({"a": jnp.ones(3), "b": jnp.ones(2)}, r"at \['a'\]: its shape is \[2\], expected \[3\]"),
        ({"a": jnp.ones(2), "b": jnp.ones(3, int)}, r"at \['b'\]: its dtype is float"),
        ({"a": jnp.ones(2), "c": jnp.ones(3)}, r"holds \['b'\] where \['c'\] is expected"),
        ({"a": jnp.ones(2)}, r"holds \['b'\] where nothing more is expected"),
        ({"a": jnp.ones(2), "b": jnp.ones(3), "c": 1, "d": jnp.ones(1)}, "holds nothing more"),
    ):
        with pytest.raises(ValueError, match=message):
            train.load(path, like)
    np.savez(tmp_path / "other.npz", x=np.ones(2))
    np.save(tmp_path / "other.npy", np.ones(2))
    for name in ("other.npz", "other.npy"):
        with pytest.raises(ValueError, match="must be a file written by `save`"):
            train.load(tmp_path / name, {})
    with pytest.raises(TypeError, match="`model` must have numeric arrays"):
        train.save(path, {"a": np.array([None])})
