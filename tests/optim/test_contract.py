"""What every transform of the room must do, one row a transform. Run as a script: the sharded part.

To join, add a `Row`.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxsci.optim import adahessian, adan, BlockAxes, mfac, scale_by_adahessian


class Row(NamedTuple):
    factory: Callable[..., Any]  # explicit keyword arguments
    kwargs: dict[str, Any]  # its arguments, with the numbers to be injected as hyper-parameters
    needs: tuple[str, ...]  # the extra arguments its `update` asks for
    copied: int = 0  # arrays of its state that are no part of a parameter: a copy on each device

    def make(self) -> Any:
        return self.factory(**self.kwargs)

    def make_descent(self) -> Any:
        scale = -0.1 if self.factory.__name__.startswith("scale_by") else 1.0
        return optax.chain(self.make(), optax.scale(scale))

    def extra(self, loss, params, *, masked=False):
        available = {"obj_fn": loss} | ({"full_params": params} if masked else {})
        return {k: v for k, v in available.items() if k in (*self.needs, "full_params")}


def mfac_of_four(learning_rate, damping, momentum, weight_decay):
    # The capacity is a shape, not a number to inject.
    return mfac(learning_rate, 4, damping, momentum, weight_decay)


ROWS = {
    "adahessian": Row(adahessian, {"learning_rate": 0.1}, ("obj_fn",)),
    "adahessian_options": Row(
        adahessian,
        {
            "learning_rate": 0.1,
            "weight_decay": 0.01,
            "hessian_power": 0.5,
            "update_interval": 2,
            "block_axes": BlockAxes.flax_fan_in,
            "refresh_warmup": 1,
        },
        ("obj_fn",),
    ),
    "scale_by_adahessian": Row(scale_by_adahessian, {"min_diag": 0.1}, ("obj_fn",)),
    "adan": Row(adan, {"learning_rate": 0.1, "weight_decay": 0.01}, ()),
    "adan_restarts": Row(
        adan,
        {"learning_rate": 0.1, "restart_radius": 0.3, "restart_every": 2, "state_dtype": None},
        (),
    ),
    "mfac": Row(
        mfac_of_four,
        {"learning_rate": 0.5, "damping": 2.0, "momentum": 0.5, "weight_decay": 0.01},
        (),
        copied=1,
    ),
}
X = np.random.default_rng(0).normal(size=(16, 3))
STEPS = 3
TIGHT = 4000 * float(jnp.finfo(jnp.result_type(float)).eps)


@pytest.fixture(params=ROWS, scope="module")
def row(request):
    return ROWS[request.param]


def make_params(dtype=jnp.float64):
    rng = np.random.default_rng(1)
    return {
        "w": jnp.asarray(0.5 * rng.normal(size=(3, 4)), dtype),
        "b": jnp.asarray(0.1 * rng.normal(size=4), dtype),
    }


def loss(p):
    y = jnp.tanh(jnp.asarray(X, p["w"].dtype) @ p["w"] + p["b"])
    return jnp.mean((jnp.sum(y, 1) - 0.5) ** 2)


def step_with(tx, row, loss=loss, masked=False):
    def step(p, state):
        extra = row.extra(loss, p, masked=masked)
        updates, state = tx.update(jax.grad(loss)(p), state, p, **extra)
        return optax.apply_updates(p, updates), state

    return step


def run(step, params, state, steps=STEPS):
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def trees_close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@pytest.fixture(scope="module")
def plain(row):
    """The transform, and its compiled run from the start: what the wrapped ones must equal."""
    tx: Any = row.make()
    p = make_params()
    return tx, *run(jax.jit(step_with(tx, row)), p, tx.init(p))


def test_compiled_and_eager_steps_agree(row, plain):
    tx, params, state = plain
    p = make_params()
    eager = run(step_with(tx, row), p, tx.init(p))
    trees_close(eager, (params, state), rtol=TIGHT, atol=1e-15)


def test_it_takes_its_extra_arguments_through_a_chain_and_ignores_foreign_ones(row, plain):
    _, params, _ = plain
    tx: Any = optax.chain(optax.clip_by_global_norm(1e9), row.make(), optax.scale(1.0))

    @jax.jit
    def step(p, s):
        value, g = jax.value_and_grad(loss)(p)
        extra = {"value": value, "grad": g, "value_fn": loss, "tag": 3} | row.extra(loss, p)
        u, s = tx.update(g, s, p, **extra)
        return optax.apply_updates(p, u), s

    p = make_params()
    trees_close(run(step, p, tx.init(p))[0], params, rtol=TIGHT)


def test_inside_partition_it_equals_a_run_on_its_leaves_alone(row):
    p = make_params()
    tx: Any = optax.partition(
        {"train": row.make(), "freeze": optax.set_to_zero()}, {"w": "train", "b": "freeze"}
    )
    got, _ = run(jax.jit(step_with(tx, row, masked=True)), p, tx.init(p))
    alone = row.make()
    sub_loss = lambda q: loss({**q, "b": p["b"]})
    want, _ = run(
        jax.jit(step_with(alone, row, sub_loss)), {"w": p["w"]}, alone.init({"w": p["w"]})
    )
    np.testing.assert_array_equal(got["b"], p["b"])
    np.testing.assert_allclose(got["w"], want["w"], rtol=1e-6)


def test_inside_masked_the_other_updates_pass_through(row):
    p = make_params()
    tx: Any = optax.masked(row.make(), {"w": True, "b": False})
    g = jax.grad(loss)(p)
    u, state = tx.update(g, tx.init(p), p, **row.extra(loss, p, masked=True))
    np.testing.assert_array_equal(u["b"], g["b"])
    assert not np.allclose(u["w"], g["w"])
    assert len(jax.tree.leaves(state)) < len(jax.tree.leaves(row.make().init(p)))


def test_its_numbers_can_be_injected_and_changed_without_a_new_compilation(row, plain):
    _, params, _ = plain
    tx: Any = optax.inject_hyperparams(row.factory)(**row.kwargs)
    step: Any = jax.jit(step_with(tx, row))
    p = make_params()
    state = tx.init(p)
    trees_close(run(step, p, state)[0], params, rtol=TIGHT)
    name = next(k for k in ("learning_rate", "eps") if k in state.hyperparams)
    state.hyperparams[name] = 2 * state.hyperparams[name]
    changed, _ = run(step, p, state)
    assert step._cache_size() == 1
    assert not np.allclose(changed["w"], params["w"], rtol=1e-6, atol=0)


def test_under_multi_steps_equal_microbatches_make_one_step(row):
    tx: Any = row.make()
    many: Any = optax.MultiSteps(tx, 2)
    p = make_params()
    g, extra = jax.grad(loss)(p), row.extra(loss, p)
    want, want_state = jax.jit(lambda: tx.update(g, tx.init(p), p, **extra))()
    update = jax.jit(lambda s: many.update(g, s, p, **extra))
    zero, state = update(many.init(p))
    trees_close(zero, jax.tree.map(jnp.zeros_like, p), atol=0)
    got, state = update(state)
    # MultiSteps accumulates in float32.
    trees_close(got, want, rtol=1e-6)
    trees_close(state.inner_opt_state, want_state, rtol=1e-6)


def test_apply_if_finite_skips_a_gradient_that_is_not(row):
    tx: Any = optax.apply_if_finite(row.make(), max_consecutive_errors=2)
    p = make_params()
    update = jax.jit(lambda g, s: tx.update(g, s, p, **row.extra(loss, p)))
    g = jax.grad(loss)(p)
    state = tx.init(p)
    bad, skipped = update({**g, "b": g["b"] * jnp.nan}, state)
    trees_close(bad, jax.tree.map(jnp.zeros_like, p), atol=0)
    trees_close(skipped.inner_state, state.inner_state, atol=0)
    good, _ = update(g, skipped)
    want, _ = row.make().update(g, row.make().init(p), p, **row.extra(loss, p))
    trees_close(good, want, rtol=TIGHT)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_updates_keep_the_dtype_and_the_state_its_types(row, dtype):
    tx: Any = row.make()
    p = make_params(dtype)
    state = tx.init(p)
    step: Any = jax.jit(step_with(tx, row))
    moved, after = run(step, p, state)
    assert {x.dtype for x in jax.tree.leaves(moved)} == {jnp.dtype(dtype)}
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert a.dtype != jnp.float64
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(moved))
    assert step._cache_size() == 1


def test_float32_follows_the_float64_run(row, plain):
    _, params, _ = plain
    tx: Any = row.make()
    p = make_params(jnp.float32)
    single, _ = run(jax.jit(step_with(tx, row)), p, tx.init(p))
    trees_close(single, params, rtol=2e-4)


def test_init_needs_no_more_than_shapes(row):
    p = make_params()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), p)
    trees_close(row.make().init(shapes), row.make().init(p), atol=0)


def test_the_state_can_be_mapped_leaf_by_leaf_of_the_parameters(row):
    tx: Any = row.make()
    p = make_params()
    names = {"w": "w", "b": "b"}
    tagged = optax.tree_map_params(tx, lambda x, name: name, tx.init(p), names)
    assert {x for x in jax.tree.leaves(tagged) if isinstance(x, str)} == {"w", "b"}


def test_the_state_survives_both_serialisations(row, plain, tmp_path):
    tx, params, state = plain
    fresh = tx.init(params)
    file = tmp_path / "state.eqx"
    eqx.tree_serialise_leaves(file, state)
    trees_close(eqx.tree_deserialise_leaves(file, fresh), state, atol=0)
    trees_close(
        flax.serialization.from_bytes(fresh, flax.serialization.to_bytes(state)), state, atol=0
    )


def regression(outputs):
    return jnp.mean((outputs[:, 0] - jnp.sin(X[:, 0])) ** 2)


def test_it_trains_an_equinox_model(row):
    model = eqx.nn.Linear(3, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    fit_loss = lambda p: regression(jax.vmap(eqx.combine(p, static))(jnp.asarray(X)))
    tx: Any = row.make_descent()
    moved, _ = run(jax.jit(step_with(tx, row, fit_loss)), params, tx.init(params), 20)
    assert fit_loss(moved) < 0.7 * fit_loss(params)


def test_it_trains_a_flax_linen_model(row):
    module = flax.linen.Dense(1, param_dtype=jnp.float64)
    params = module.init(jax.random.key(0), X)
    fit_loss = lambda p: regression(module.apply(p, X))
    tx: Any = row.make_descent()
    moved, _ = run(jax.jit(step_with(tx, row, fit_loss)), params, tx.init(params), 20)
    assert fit_loss(moved) < 0.7 * fit_loss(params)


def test_it_trains_a_flax_nnx_model_through_its_optimizer(row):
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    tx: Any = row.make_descent()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    graph = nnx.graphdef(model)
    of_model = lambda m: regression(m(X))
    of_params = lambda p: of_model(nnx.merge(graph, p))

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(of_model)(model), **row.extra(of_params, None))

    before = of_model(model)
    for _ in range(20):
        step(model, optimizer)
    assert of_model(model) < 0.7 * before


def sharded_loss(p):
    y = jnp.cosh(p["w"]) + jnp.sum(p["w"]) * p["w"]
    return jnp.sum(y) / p["w"].size + jnp.sum(jnp.cosh(p["b"])) * jnp.sum(p["b"] ** 2)


def check_sharded(row):
    """On 4 x 2 devices: values as on one, a state laid out like the parameters, and no gathers."""
    rng = np.random.default_rng(2)
    shapes = {"w": (16, 24), "b": (8,)}
    host = {k: rng.normal(size=n).astype("float32") for k, n in shapes.items()}
    spec = {"w": PartitionSpec("data", "model"), "b": PartitionSpec("data")}
    tx: Any = row.make()
    step = step_with(tx, row, sharded_loss)
    alone = jax.tree.map(jnp.asarray, host)
    want, _ = run(jax.jit(step), alone, tx.init(alone))
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))
        with jax.set_mesh(mesh):
            p = {k: jax.device_put(host[k], NamedSharding(mesh, spec[k])) for k in host}
            state = tx.init(p)
            compiled = jax.jit(step).lower(p, state).compile()
            got, after = run(compiled, p, state)
        text = compiled.as_text()
        for collective in ("all-gather", "all-to-all", "collective-permute"):
            assert collective not in text, f"{collective} on the {kind.name} mesh"
        pairs = zip(jax.tree.leaves((p, state)), jax.tree.leaves((got, after)), strict=True)
        for before, now in pairs:
            assert now.sharding.is_equivalent_to(before.sharding, now.ndim)
        state_arrays = [x for x in jax.tree.leaves(after) if x.ndim > 0]
        assert sum(x.sharding.is_fully_replicated for x in state_arrays) == row.copied
        trees_close(jax.device_get(got), jax.device_get(want), rtol=1e-5, atol=1e-6)


def test_sharded_parameters_step_in_place_on_automatic_and_explicit_meshes():
    env = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run([sys.executable, __file__], env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(ROWS)


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    for name, case in ROWS.items():
        check_sharded(case)
        print(name, flush=True)
