import sys
from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxsci import train

_KEY = jax.random.key(0)
_X = jnp.asarray(np.random.default_rng(0).normal(size=(24, 3)))
_Y = jnp.asarray(np.random.default_rng(1).normal(size=24))


def _linear(params, batch, key):
    x, y = batch
    error = x @ params["w"] + params["b"] - y
    return jnp.mean(error**2), {"bias": params["b"], "errors": jnp.mean(jnp.abs(error))}


def _params(dtype=None):
    return {"w": jnp.array([0.5, -1.0, 2.0], dtype), "b": jnp.array(0.25, dtype)}


def _rows(step, key):
    """Eight of the 24 samples, in turn."""
    rows = (jnp.arange(8) + 8 * step) % 24
    return _X[rows], _Y[rows]


_ADAM = optax.adam(1e-2)


@pytest.fixture(scope="module")
def by_hand():
    """Parameters before each of twelve Adam steps, by a loop of optax calls."""
    params, state, history = _params(), _ADAM.init(_params()), []
    gradient = jax.jit(jax.value_and_grad(_linear, has_aux=True))
    for step in range(12):
        (value, _), grads = gradient(params, _rows(step, None), None)
        history.append((params, value, grads))
        updates, state = _ADAM.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return [*history, (params, None, None)]


@pytest.mark.parametrize("options", [{}, {"microbatch": 4}, {"steps_per_call": 5}])
def test_fit_is_the_loop_of_optax_calls_written_by_hand(by_hand, options):
    result = train.fit(_linear, _params(), _rows, _ADAM, key=_KEY, num_steps=12, **options)
    chex.assert_trees_all_close(result.model, by_hand[12][0], rtol=1e-13)
    assert result.step == 12
    assert result.result == train.RESULTS.successful
    assert result.ema is None
    np.testing.assert_array_equal(result.opt_state[0].count, 12)


@pytest.mark.parametrize("options", [{}, {"microbatch": 2}, {"steps_per_call": 5}])
def test_metrics_are_those_the_logged_updates_started_from(by_hand, options):
    result = train.fit(
        _linear, _params(), _rows, _ADAM, key=_KEY, num_steps=11, log_every=4, **options
    )
    steps = [1, 4, 8, 11]
    assert result.metrics["step"].tolist() == steps
    assert sorted(result.metrics) == ["bias", "errors", "grad_norm", "loss", "step"]
    for row, step in enumerate(steps):
        params, value, grads = by_hand[step - 1]
        np.testing.assert_allclose(result.metrics["loss"][row], value, rtol=1e-13)
        norm = optax.tree.norm(grads)
        np.testing.assert_allclose(result.metrics["grad_norm"][row], norm, rtol=1e-13)
        np.testing.assert_allclose(result.metrics["bias"][row], params["b"], rtol=1e-13)


def _transform(init: Any, update: Any):
    return optax.GradientTransformationExtraArgs(init, update)


def _spy():
    """A transform whose state compares what it is handed with what it should be handed."""

    def init(params):
        return {"value": jnp.zeros(()), "grad": jax.tree.map(jnp.zeros_like, params)}

    def update(grads, state, params=None, *, value, grad, value_fn, obj_fn):
        assert value_fn is obj_fn
        assert grad is grads
        value_of_fn, grad_of_fn = jax.value_and_grad(value_fn)(params)
        errors = {
            "value": value - value_of_fn,
            "grad": jax.tree.map(jnp.subtract, grads, grad_of_fn),
        }
        worst = jax.tree.map(lambda old, new: jnp.maximum(old, jnp.abs(new)), state, errors)
        return jax.tree.map(lambda g: -0.1 * g, grads), worst

    return _transform(init, update)


@pytest.mark.parametrize("microbatch", [1, 4])
def test_every_update_is_handed_the_value_the_gradient_and_one_loss_of_the_batch(microbatch):
    def noisy(params, batch, key):
        value, aux = _linear(params, batch, key)
        return value + params["b"] * jax.random.normal(key), aux

    result = train.fit(
        noisy, _params(), _rows, _spy(), key=_KEY, num_steps=5, microbatch=microbatch
    )
    chex.assert_trees_all_close(result.opt_state, _spy().init(_params()), atol=1e-14)
    assert np.ptp(result.metrics["loss"]) > 0


def test_extra_arguments_pass_through_a_chain_to_a_line_search():
    batch = _X, _Y
    solution = np.linalg.lstsq(np.c_[np.asarray(_X), np.ones(24)], np.asarray(_Y))[0]
    result = train.fit(
        _linear, _params(), lambda step, key: batch, optax.lbfgs(), key=_KEY, num_steps=20
    )
    found = np.append(result.model["w"], result.model["b"])
    np.testing.assert_allclose(found, solution, rtol=1e-7)


def test_second_derivatives_go_through_the_microbatched_loss():
    def newton(params, value_fn):
        flat, unravel = ravel_pytree(params)
        f = lambda p: value_fn(unravel(p))
        return unravel(-jnp.linalg.solve(jax.hessian(f)(flat), jax.grad(f)(flat)))

    tx = _transform(
        lambda params: optax.EmptyState(),
        lambda grads, state, params, *, value_fn, **_: (newton(params, value_fn), state),
    )
    batch = _X, _Y
    result = train.fit(
        _linear, _params(), lambda step, key: batch, tx, key=_KEY, num_steps=1, microbatch=3
    )
    solution = np.linalg.lstsq(np.c_[np.asarray(_X), np.ones(24)], np.asarray(_Y))[0]
    np.testing.assert_allclose(
        np.append(result.model["w"], result.model["b"]), solution, rtol=1e-11
    )


def test_microbatches_see_every_row_once_their_own_key_and_shared_scalars():
    def loss(params, batch, key):
        drawn = jax.random.uniform(key)
        aux = {"rows": jnp.mean(batch["x"]), "drawn": drawn, "drawn2": drawn**2}
        return params * jnp.mean(batch["x"] ** 2) * batch["scale"], aux

    batch = {"x": jnp.arange(12.0), "scale": 2.0}
    result = train.fit(
        loss, jnp.ones(()), lambda s, k: batch, optax.sgd(1.0), key=_KEY, num_steps=1, microbatch=3
    )
    metrics = {name: x[0] for name, x in result.metrics.items()}
    np.testing.assert_allclose(metrics["rows"], 5.5)
    np.testing.assert_allclose(metrics["loss"], 2 * np.mean(np.arange(12) ** 2))
    np.testing.assert_allclose(metrics["grad_norm"], metrics["loss"])
    assert metrics["drawn2"] > metrics["drawn"] ** 2 + 1e-6


def test_every_step_has_its_own_keys():
    seen = []

    def batches(step, key):
        seen.append((step, tuple(np.asarray(jax.random.key_data(key)))))
        return jax.random.uniform(key)

    def loss(params, batch, key):
        return params * 0.0, {"batch": batch, "loss_key": jax.random.uniform(key)}

    result = train.fit(
        loss, jnp.ones(()), batches, optax.sgd(1.0), key=_KEY, num_steps=6, log_every=1
    )
    assert [step for step, _ in seen[-6:]] == list(range(6))
    for step, data in seen[-6:]:
        assert data == tuple(np.asarray(jax.random.key_data(jax.random.fold_in(_KEY, step))))
    assert len(np.unique(np.append(result.metrics["batch"], result.metrics["loss_key"]))) == 12
    again = train.fit(
        loss, jnp.ones(()), batches, optax.sgd(1.0), key=_KEY, num_steps=6, log_every=1
    )
    np.testing.assert_array_equal(again.metrics["batch"], result.metrics["batch"])


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_the_average_follows_its_recursion_in_at_least_float32(dtype):
    decay, rate, steps = 0.75, 2.0**-4, 9
    result = train.fit(
        lambda p, batch, key: p.astype(jnp.float32).sum(),
        jnp.array([1.0, -2.0], dtype),
        lambda step, key: 0,
        optax.sgd(rate),
        key=_KEY,
        num_steps=steps,
        ema=decay,
    )
    assert result.model.dtype == dtype
    assert result.ema.dtype == (jnp.float32 if dtype == jnp.bfloat16 else dtype)
    # p_t = p_0 - rate t, and the average lags by sum_j decay^j rate for j = 1 .. t.
    lag = rate * (decay - decay ** (steps + 1)) / (1 - decay)
    np.testing.assert_allclose(result.model.astype(float), np.array([1, -2]) - rate * steps)
    expected = np.array([1, -2]) - rate * steps + lag
    np.testing.assert_allclose(result.ema, expected, rtol=1e-12 if dtype == jnp.float64 else 1e-6)


def test_float32_stays_float32_with_x64_on():
    result = train.fit(
        _linear, _params(jnp.float32), _rows32, _ADAM, key=_KEY, num_steps=3, ema=0.9, microbatch=2
    )
    floats = [
        x.dtype
        for x in jax.tree.leaves((result.model, result.ema, result.opt_state, result.metrics))
        if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    assert set(floats) == {jnp.dtype(jnp.float32)}


def _rows32(step, key):
    return jax.tree.map(lambda x: x.astype(jnp.float32), _rows(step, key))


def test_half_precision_gradients_are_accumulated_in_float32():
    # In bfloat16 1 + 2^-9 rounds to 1, so a sum of the small gradients onto 1 would lose them.
    weights = jnp.array([1.0] + [2.0**-9] * 7, jnp.float32)
    result = train.fit(
        lambda p, w, key: (p.astype(jnp.float32) * w).sum() * 8,
        jnp.zeros((), jnp.bfloat16),
        lambda step, key: weights,
        optax.sgd(1.0),
        key=_KEY,
        num_steps=1,
        microbatch=8,
    )
    exact = 1 + 7 * 2.0**-9
    np.testing.assert_array_equal(-result.model, jnp.asarray(exact, jnp.bfloat16))
    assert jnp.asarray(exact, jnp.bfloat16) > 1


@pytest.mark.parametrize("options", [{}, {"log_every": 1}, {"log_every": 7, "steps_per_call": 3}])
def test_a_non_finite_loss_ends_the_run_at_the_last_finite_state(by_hand, options):
    def loss(params, batch, key):
        step, batch = batch
        value, aux = _linear(params, batch, key)
        return jnp.where(step == 6, jnp.nan, value), aux

    arguments = (loss, _params(), lambda step, key: (step, _rows(step, key)), _ADAM)
    result = train.fit(*arguments, key=_KEY, num_steps=40, ema=0.0, throw=False, **options)
    assert result.result == train.RESULTS.nonfinite
    assert result.step == 6
    chex.assert_trees_all_close(result.model, by_hand[6][0], rtol=1e-13)
    chex.assert_trees_all_close(result.ema, result.model)
    assert result.opt_state[0].count == 6
    assert np.isfinite(result.metrics["loss"]).all()
    with pytest.raises(RuntimeError, match="`fit` after 6 updates: A non-finite value"):
        train.fit(*arguments, key=_KEY, num_steps=40, ema=0.0, **options)


def test_a_non_finite_parameter_ends_the_run_too():
    # The loss 1 / p is finite at 1, where sgd(inf) jumps to infinity.
    arguments = (lambda p, batch, key: 1 / p, jnp.ones(()), lambda s, k: 0, optax.sgd(jnp.inf))
    result = train.fit(*arguments, key=_KEY, num_steps=3, throw=False)
    assert result.result == train.RESULTS.nonfinite
    assert (result.step, result.model) == (0, 1)


def test_a_transform_that_skips_non_finite_gradients_goes_on():
    @jax.custom_jvp
    def identity(x):
        return x

    @identity.defjvp
    def _(primals, tangents):
        return primals[0], tangents[0] * jnp.nan

    def loss(p, step, key):
        return jax.lax.cond(step == 1, identity, lambda p: p, p)

    tx = optax.apply_if_finite(optax.sgd(1.0), max_consecutive_errors=5)
    result = train.fit(loss, jnp.array(9.0), lambda s, k: s, tx, key=_KEY, num_steps=2)
    assert (result.step, result.model) == (2, 8)


def test_no_step_after_the_first_and_no_second_fit_traces_again():
    calls = []

    @chex.assert_max_traces(n=2)
    def loss(params, batch, key):
        calls.append(1)
        return _linear(params, batch, key)

    # Weakly typed parameters and a Python-number batch are the usual causes of a second trace.
    params = {"w": jnp.asarray(_params()["w"]), "b": jnp.asarray(0.25)}
    chex.clear_trace_counter()
    train.fit(loss, params, _rows, _ADAM, key=_KEY, num_steps=12, log_every=3, ema=0.9)
    assert len(calls) == 2
    plain_calls = []

    def plain(params, batch, key):
        plain_calls.append(1)
        return _linear(params, batch, key)

    for _ in range(3):
        train.fit(plain, params, _rows, _ADAM, key=_KEY, num_steps=7, ema=0.9)
    # Once to compile, and once a call to check what the loss returns.
    assert len(plain_calls) == 1 + 3


def test_the_arrays_of_a_loss_are_arguments_of_the_compiled_step():
    calls = []

    class Loss(eqx.Module):
        target: jax.Array

        def __call__(self, params, batch, key):
            calls.append(1)
            return jnp.sum((params - self.target) ** 2)

    tx = optax.sgd(0.5)
    for target in (1.0, 2.0):
        loss = Loss(jnp.full(2, target))
        result = train.fit(loss, jnp.zeros(2), lambda s, k: 0, tx, key=_KEY, num_steps=1)
        np.testing.assert_allclose(result.model, target)
    assert len(calls) == 1 + 2


def test_the_given_model_is_neither_changed_nor_deleted():
    model = _params()
    train.fit(_linear, model, _rows, _ADAM, key=_KEY, num_steps=2)
    chex.assert_trees_all_equal(model, _params())


def test_a_state_that_shares_the_arrays_of_the_parameters_is_fine():
    tx = optax.contrib.schedule_free(optax.sgd(0.1), learning_rate=0.1)
    result = train.fit(_linear, _params(), _rows, tx, key=_KEY, num_steps=3)
    assert result.step == 3


def test_callbacks_see_logged_steps_and_stop_the_run(by_hand):
    seen = []

    def callback(state):
        seen.append((state.step, state.metrics, state.model(), state.ema()))
        return state.step >= 8

    result = train.fit(
        _linear,
        _params(),
        _rows,
        _ADAM,
        key=_KEY,
        num_steps=12,
        log_every=4,
        ema=0.0,
        callbacks=[callback, lambda state: None],
    )
    assert result.step == 8
    assert result.result == train.RESULTS.successful
    assert [step for step, *_ in seen] == [1, 4, 8]
    for step, metrics, model, average in seen:
        assert metrics["step"] == step
        np.testing.assert_allclose(metrics["loss"], by_hand[step - 1][1], rtol=1e-13)
        chex.assert_trees_all_close(model, by_hand[step][0], rtol=1e-13)
        chex.assert_trees_all_close(average, model)


def test_what_where_leaves_out_is_bitwise_unchanged():
    mask = train.freeze(lambda p: p["w"])
    result = train.fit(_linear, _params(), _rows, _ADAM, key=_KEY, num_steps=3, where=mask)
    np.testing.assert_array_equal(result.model["w"], _params()["w"])
    assert result.model["b"] != 0.25
    prefix = {"w": False, "b": True}
    other = train.fit(
        _linear, _params(), _rows, _ADAM, key=_KEY, num_steps=3, where=lambda _: prefix
    )
    chex.assert_trees_all_equal(other.model, result.model)


def test_flax_models_and_numpy_parameters_train():
    linen = pytest.importorskip("flax.linen")
    network = linen.Dense(1)
    variables = jax.tree.map(np.asarray, network.init(_KEY, _X[0]))

    def loss(variables, batch, key):
        x, y = batch
        return train.mse(network.apply(variables, x)[:, 0], y)

    result = train.fit(
        loss, variables, lambda s, k: (_X, _Y), optax.lbfgs(), key=_KEY, num_steps=20
    )
    solution = np.linalg.lstsq(np.c_[np.asarray(_X), np.ones(24)], np.asarray(_Y))[0]
    np.testing.assert_allclose(
        np.append(result.model["params"]["kernel"], result.model["params"]["bias"]),
        solution,
        rtol=1e-5,
        atol=1e-6,
    )


def test_no_steps_return_the_model_as_it_is():
    result = train.fit(_linear, _params(), _rows, _ADAM, key=_KEY, num_steps=0)
    chex.assert_trees_all_equal(result.model, _params())
    assert (result.step, result.metrics) == (0, {})


def test_progress_is_shown_with_tqdm_and_left_out_without(capsys, monkeypatch):
    def run():
        train.fit(_linear, _params(), _rows, _ADAM, key=_KEY, num_steps=12, progress=True)
        return capsys.readouterr().err

    assert "12/12" in run()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run() == ""


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mesh": "mesh"}, ValueError, "`mesh` must be None"),
        ({"num_steps": -1}, ValueError, "`num_steps` must be at least 0, got -1"),
        ({"num_steps": 1.5}, TypeError, "`num_steps` must be an integer, got 1.5"),
        ({"log_every": 0}, ValueError, "`log_every` must be at least 1, got 0"),
        ({"steps_per_call": 0}, ValueError, "`steps_per_call` must be at least 1, got 0"),
        ({"microbatch": 0}, ValueError, "`microbatch` must be at least 1, got 0"),
        ({"microbatch": 3}, ValueError, "`microbatch` must divide the leading axis.*8, got 3"),
        ({"ema": 1.0}, ValueError, r"`ema` must be in \[0.0, 1.0\), got 1.0"),
        ({"key": np.zeros(2, np.uint32)}, TypeError, "`key` must be a typed key"),
        ({"model": {"w": 1.0}}, ValueError, "`where` must select at least one parameter"),
        ({"where": lambda p: {"w": True, "b": False}}, ValueError, "int.* at `model`.'w'."),
        ({"model": {"z": jnp.ones(1) * 1j}}, ValueError, "`where` must select real arrays"),
        ({"loss": lambda *_: jnp.ones(2)}, ValueError, r"`loss` must return a real.*\(2,\)"),
        ({"loss": lambda *_: jnp.array(1)}, ValueError, "`loss` must return a real.*int"),
        ({"loss": lambda *_: (jnp.ones(()), 1)}, ValueError, "`loss` must return its metrics"),
        ({"loss": lambda *_: (jnp.ones(()), {"step": 1})}, ValueError, "not name a metric 'step'"),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    model = {"w": jnp.arange(3), "b": jnp.ones(())} if "where" in options else _params()
    given = {"loss": _linear, "model": model, "key": _KEY, "num_steps": 1} | options
    with pytest.raises(error, match=message):
        train.fit(given.pop("loss"), given.pop("model"), _rows, _ADAM, **given)


@pytest.mark.bad_input
def test_a_transform_that_changes_the_kind_of_its_state_is_refused():
    tx = _transform(
        lambda params: jnp.int32(0), lambda grads, state, params, **_: (grads, jnp.float32(0.5))
    )
    with pytest.raises(TypeError, match="`tx` must keep the dtypes of its state"):
        train.fit(_linear, _params(), _rows, tx, key=_KEY, num_steps=1)
