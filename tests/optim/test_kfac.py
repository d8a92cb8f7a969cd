from functools import cache
from itertools import pairwise
from typing import Any

import equinox as eqx
import flax.linen
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxsci import train
from jaxsci.curvature import capture_layers, fit_kronecker, LikelihoodObjective
from jaxsci.optim import adahessian, ekfac, kfac, scale_by_ekfac, scale_by_kfac
from optim.test_contract import run, trees_close

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(12, 3)))
Y = jnp.asarray(RNG.integers(0, 2, 12))
TARGETS = jnp.asarray(RNG.normal(size=(12, 2)))
METHODS: dict[str, Any] = {"kfac": kfac, "ekfac": ekfac}
SCALES: dict[str, Any] = {"kfac": scale_by_kfac, "ekfac": scale_by_ekfac}


def model(p, x):
    return jnp.tanh(x @ p["w"] + p["b"]) * p["scale"]


def make_params(dtype: Any = jnp.float64):
    rng = np.random.default_rng(1)
    shapes = {"w": (3, 2), "b": (2,), "scale": (2,)}
    return {k: jnp.asarray(0.5 * rng.normal(size=n), dtype) for k, n in shapes.items()}


def linear(p, x):
    return p["w"] @ x + p["b"]


LINEAR: Any = {"w": jnp.asarray(RNG.normal(size=(2, 3))), "b": jnp.asarray(RNG.normal(size=2))}


@cache
def layers(fn=model):
    return capture_layers(fn, make_params() if fn is model else LINEAR, X[0])


def objective(x=X, y=Y):
    return LikelihoodObjective(model, "softmax", x, y)


def options(**more):
    return {"layers": layers(), "damping": 0.05, "labels": "exact", **more}


def step_with(tx, obj=None, **extra):
    obj = objective() if obj is None else obj

    def step(p, state):
        more = dict.fromkeys(extra, p)
        updates, state = tx.update(jax.grad(obj)(p), state, p, obj_fn=obj, **more)
        return moved_by(updates, p), state

    return step


# What the methods share is tried on one of them; `slow` tries the other.
@pytest.fixture(params=[pytest.param("kfac", marks=pytest.mark.slow), "ekfac"], scope="module")
def method(request):
    return request.param


@pytest.fixture(scope="module")
def plain(method):
    """The transform, its compiled run and step, which the wrapped ones must equal."""
    tx: Any = METHODS[method](0.1, **options())
    p, step = make_params(), jax.jit(step_with(tx))
    return tx, *run(step, p, tx.init(p)), step


def homogeneous(x):
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


@pytest.mark.parametrize(
    "rule", ["factored", pytest.param("eigenvalue", marks=pytest.mark.slow), None]
)
def test_one_undamped_step_solves_linear_least_squares(rule):
    more = {} if rule is None else {"damping_rule": rule}
    method = ekfac if rule is None else kfac
    tx: Any = method(1.0, layers(linear), 0.0, momentum=None, labels="exact", **more)
    obj = LikelihoodObjective(linear, "mse", X, TARGETS)
    got, _ = jax.jit(step_with(tx, obj))(LINEAR, tx.init(LINEAR))
    want = np.linalg.lstsq(homogeneous(X), np.asarray(TARGETS), rcond=None)[0]
    np.testing.assert_allclose(got["w"], want[:3].T, rtol=1e-9)
    np.testing.assert_allclose(got["b"], want[3], rtol=1e-9)


def test_factors_are_bias_corrected_averages_over_the_batches():
    tx: Any = scale_by_kfac(
        layers(linear), 0.3, decay=0.8, labels="exact", damping_rule="eigenvalue", seed=1
    )

    @jax.jit
    def update(state, x, y):
        obj = LikelihoodObjective(linear, "mse", x, y)
        grads = jax.grad(obj)(LINEAR)
        return grads, *tx.update(grads, state, LINEAR, obj_fn=obj)

    _, _, state = update(tx.init(LINEAR), X[:6], TARGETS[:6])
    grads, updates, _ = update(state, X[6:], TARGETS[6:])
    a1, a2 = (homogeneous(x).T @ homogeneous(x) / 6 for x in (X[:6], X[6:]))
    a = (0.2 * 0.8 * a1 + 0.2 * a2) / (1 - 0.8**2)
    g = np.concatenate([grads["w"], grads["b"][:, None]], axis=1)
    want = np.linalg.solve(a + 0.3 * np.eye(4), g.T).T
    np.testing.assert_allclose(updates["w"], want[:, :3], rtol=1e-9)
    np.testing.assert_allclose(updates["b"], want[:, 3], rtol=1e-9)


def test_factored_damping_splits_between_the_factors_by_their_mean_eigenvalues():
    tx: Any = scale_by_kfac(layers(linear), 0.3, labels="exact")
    obj = LikelihoodObjective(linear, "mse", X, TARGETS)
    grads = jax.grad(obj)(LINEAR)
    updates, _ = step_of(tx, grads, LINEAR, obj)
    a = homogeneous(X).T @ homogeneous(X) / 12
    pi = np.sqrt((np.trace(a) / 4) / (2 / 2))
    g = np.concatenate([grads["w"], grads["b"][:, None]], axis=1)
    want = np.linalg.solve(a + np.sqrt(0.3) * pi * np.eye(4), g.T).T / (1 + np.sqrt(0.3) / pi)
    np.testing.assert_allclose(updates["w"], want[:, :3], rtol=1e-9)


@pytest.mark.parametrize("factors", [pytest.param("kfac", marks=pytest.mark.slow), "ekfac"])
def test_the_first_step_is_the_fitted_curvature_inverse_of_the_batch(factors):
    more = {"damping_rule": "eigenvalue"} if factors == "kfac" else {}
    tx: Any = SCALES[factors](**options(**more))
    p = make_params()
    grads = jax.grad(objective())(p)
    got, _ = jax.jit(lambda g: tx.update(g, tx.init(p), p, obj_fn=objective()))(grads)
    want = fit_kronecker(model, "softmax", p, (X, None), factors=factors).precondition(grads, 0.05)
    trees_close(got, want, rtol=1e-7)


def mixed(p, x):
    h = p["table"][x]
    h = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), h, p["w"])[0]
    h = jax.lax.conv_general_dilated(h.T[None], p["k"], (1,), "SAME")[0]
    return jnp.mean(jnp.tanh(h * p["scale"][:, None]), axis=1)


@pytest.mark.slow
def test_embeddings_convolutions_scans_and_other_leaves_step_by_the_fitted_curvature():
    rng = np.random.default_rng(3)
    shapes = {"table": (5, 2), "w": (2, 2, 2), "k": (3, 2, 3), "scale": (3,)}
    p = {k: jnp.asarray(rng.normal(size=n)) for k, n in shapes.items()}
    x, y = jnp.asarray([[0, 1, 1, 4], [2, 1, 2, 0]]), jnp.asarray([0, 2])
    obj = LikelihoodObjective(mixed, "softmax", x, y)
    tx: Any = scale_by_ekfac(capture_layers(mixed, p, x[0]), 0.05, labels="exact")
    grads = jax.grad(obj)(p)
    got, _ = jax.jit(lambda g: tx.update(g, tx.init(p), p, obj_fn=obj))(grads)
    want = fit_kronecker(mixed, "softmax", p, (x, None)).precondition(grads, 0.05)
    trees_close(got, want, rtol=1e-6)


@pytest.mark.slow
def test_a_new_basis_keeps_the_diagonal_of_the_averaged_eigenvalues():
    state, p = None, make_params()
    matrices = []
    for interval in (1, 100):
        tx = scale_by_ekfac(**options(basis_interval=interval, refresh_warmup=1))
        state = tx.init(p)
        step = jax.jit(lambda state, x, y, tx=tx: tx.update(p, state, p, obj_fn=objective(x, y))[1])
        for rows in (slice(0, 6), slice(6, 12)):
            state = step(state, X[rows], Y[rows])
        matrices.append(state)
    new, old = matrices
    for i, values in enumerate(new.eigenvalues):
        # The first average is expressed in the first basis by both; the second batch by each's own.
        first = np.asarray(old.input_bases[i][0]), np.asarray(old.output_bases[i][0])
        second = np.asarray(new.input_bases[i][0]), np.asarray(new.output_bases[i][0])
        assert not np.allclose(first[0], second[0])
        assert np.all(np.asarray(values) >= 0)
        # Trace is kept by the rotation, and is that of the Fisher matrices in any basis.
        np.testing.assert_allclose(np.sum(values), np.sum(old.eigenvalues[i]), rtol=1e-10)


def test_lazy_factors_and_bases_change_on_their_steps_only(method):
    tx: Any = SCALES[method](**options(factor_interval=2, basis_interval=4, refresh_warmup=1))
    p = make_params()
    update = jax.jit(lambda s, x, y: tx.update(p, s, p, obj_fn=objective(x, y))[1])
    states = [tx.init(p)]
    for i in range(5):
        rows = slice(2 * i, 2 * i + 4)
        states.append(update(states[-1], X[rows], Y[rows]))
    same = lambda name: [
        bool(jnp.all(getattr(a, name)[0] == getattr(b, name)[0])) for a, b in pairwise(states)
    ]
    assert same("input_factors") == [False, True, False, True, False]
    assert same("output_bases") == [False, True, True, True, False]
    assert [int(s.n) for s in states] == [0, 1, 1, 2, 2, 3]
    if method == "ekfac":
        assert not any(same("eigenvalues"))


def test_a_step_is_shortened_to_its_largest_quadratic_form(method):
    p = make_params()
    grads = jax.grad(objective())(p)
    inner = lambda u: sum(np.vdot(u[k], grads[k]) for k in p)

    @jax.jit
    def step(limit):
        tx = SCALES[method](**options(max_quadratic=limit))
        return tx.update(grads, tx.init(p), p, obj_fn=objective())[0]

    free, held, loose = step(1e9), step(1e-3), step(10.0)
    np.testing.assert_allclose(held["w"] / free["w"], np.sqrt(1e-3 / inner(free)), rtol=1e-9)
    np.testing.assert_array_equal(loose["w"], free["w"])


def moved_by(updates, p) -> Any:
    return optax.apply_updates(p, updates)


def step_of(tx, grads, p, obj=None):
    obj = objective() if obj is None else obj
    return jax.jit(lambda g, s: tx.update(g, s, p, obj_fn=obj))(grads, tx.init(p))


def test_a_batch_that_is_not_finite_leaves_the_averages(method):
    tx: Any = SCALES[method](**options())
    p = make_params()
    update = jax.jit(lambda s, x: tx.update(p, s, p, obj_fn=objective(x, Y)))
    bad = X.at[0, 0].set(jnp.nan)
    zero, state = update(tx.init(p), bad)
    trees_close(zero, jax.tree.map(jnp.zeros_like, p), atol=0)
    _, good = update(state, X)
    moved, kept = update(good, bad)
    trees_close(kept.input_factors, good.input_factors, atol=0)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((moved, kept)))


@pytest.mark.slow
def test_sampled_labels_follow_the_seed(method):
    p = make_params()
    grads = jax.grad(objective())(p)

    @jax.jit
    def state_of(seed):
        tx = SCALES[method](**options(labels="sampled", seed=seed))
        return tx.update(grads, tx.init(p), p, obj_fn=objective())[1]

    states = [state_of(s) for s in (0, 0, 1)]
    trees_close(states[0], states[1], atol=0)
    assert not np.allclose(states[0].output_factors[0], states[2].output_factors[0])


@pytest.mark.slow
def test_the_alias_adds_momentum_decay_and_the_learning_rate(method):
    p = make_params()
    mask = {k: k == "w" for k in p}
    tx: Any = METHODS[method](0.1, **options(weight_decay=0.2, weight_decay_mask=mask))
    chain: Any = optax.chain(
        SCALES[method](**options()),
        optax.trace(0.9),
        optax.add_decayed_weights(0.2, mask),
        optax.scale(-0.1),
    )
    got, want = (run(jax.jit(step_with(t)), p, t.init(p))[0] for t in (tx, chain))
    trees_close(got, want, rtol=1e-10)


@pytest.mark.slow
def test_compiled_and_eager_steps_agree(method, plain):
    tx, params, _, step = plain
    p = make_params()
    trees_close(run(step_with(tx), p, tx.init(p), 1)[0], run(step, p, tx.init(p), 1)[0], rtol=1e-9)
    assert objective()(params) < objective()(p)


def test_through_a_chain_it_ignores_foreign_arguments(plain):
    tx, params, *_ = plain
    chained: Any = optax.chain(optax.clip_by_global_norm(1e9), tx, optax.scale(1.0))
    obj = objective()

    @jax.jit
    def step(p, s):
        value, g = jax.value_and_grad(obj)(p)
        closure = lambda p: obj(p)
        u, s = chained.update(g, s, p, value=value, grad=g, value_fn=closure, obj_fn=obj, tag=3)
        return moved_by(u, p), s

    p = make_params()
    trees_close(run(step, p, chained.init(p))[0], params, rtol=1e-9)


@pytest.mark.parametrize("trained", [("w",), pytest.param(("b", "scale"), marks=pytest.mark.slow)])
def test_inside_partition_it_equals_a_run_on_its_leaves_alone(method, trained):
    p = make_params()
    labels = {k: "train" if k in trained else "freeze" for k in p}
    make = lambda sites: METHODS[method](0.1, **options(layers=sites))
    tx: Any = optax.partition({"train": make(layers()), "freeze": optax.set_to_zero()}, labels)
    got, _ = run(jax.jit(step_with(tx, full_params=True)), p, tx.init(p), 1)
    part = {k: p[k] for k in trained}
    alone_fn = lambda q, x: model({**p, **q}, x)
    alone = make(capture_layers(alone_fn, part, X[0]))
    obj = LikelihoodObjective(alone_fn, "softmax", X, Y)
    want, _ = run(jax.jit(step_with(alone, obj)), part, alone.init(part), 1)
    for k in p:
        if k == "b" and "w" not in trained:
            # Alone, a bias without its weight is a leaf with a diagonal.
            assert not np.allclose(got[k], p[k])
        else:
            np.testing.assert_allclose(got[k], want.get(k, p[k]), rtol=1e-6)


def test_its_numbers_can_be_injected_and_changed_without_a_new_compilation(method, plain):
    _, params, *_ = plain
    tx: Any = optax.inject_hyperparams(METHODS[method])(learning_rate=0.1, **options())
    step: Any = jax.jit(step_with(tx))
    p = make_params()
    state = tx.init(p)
    trees_close(run(step, p, state)[0], params, rtol=1e-9)
    state.hyperparams["damping"] = 10 * state.hyperparams["damping"]
    assert not np.allclose(run(step, p, state)[0]["w"], params["w"], rtol=1e-6)
    assert step._cache_size() == 1


def test_under_multi_steps_and_apply_if_finite_it_takes_one_step(plain):
    tx, _, _, step = plain
    p, obj = make_params(), objective()
    grads = jax.grad(obj)(p)
    want, _ = step(p, tx.init(p))
    many: Any = optax.MultiSteps(tx, 2)
    update = jax.jit(lambda s: many.update(grads, s, p, obj_fn=obj))
    zero, state = update(many.init(p))
    trees_close(zero, jax.tree.map(jnp.zeros_like, p), atol=0)
    trees_close(moved_by(update(state)[0], p), want, rtol=1e-6)
    careful: Any = optax.apply_if_finite(tx, max_consecutive_errors=2)
    update = jax.jit(lambda g, s: careful.update(g, s, p, obj_fn=obj))
    bad, skipped = update({**grads, "b": grads["b"] * jnp.nan}, careful.init(p))
    trees_close(bad, jax.tree.map(jnp.zeros_like, p), atol=0)
    trees_close(moved_by(update(grads, skipped)[0], p), want, rtol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
def test_updates_keep_the_dtype_and_the_state_its_types(method, dtype):
    tx: Any = METHODS[method](0.1, **options())
    p = make_params(dtype)
    obj = objective(X.astype(dtype), Y)
    state = tx.init(p)
    step: Any = jax.jit(step_with(tx, obj))
    moved, after = run(step, p, state, 2)
    assert {x.dtype for x in jax.tree.leaves(moved)} == {jnp.dtype(dtype)}
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert a.dtype != jnp.float64
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(moved))
    assert step._cache_size() == 1


def test_its_state_comes_from_shapes_can_be_mapped_and_survives_serialisation(plain, tmp_path):
    tx, params, state, _ = plain
    p = make_params()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), p)
    trees_close(tx.init(shapes), tx.init(p), atol=0)
    names = {k: k for k in p}
    tagged = optax.tree_map_params(tx, lambda x, name: name, tx.init(p), names)
    assert {x for x in jax.tree.leaves(tagged) if isinstance(x, str)} == set(p)
    fresh = tx.init(params)
    eqx.tree_serialise_leaves(tmp_path / "state.eqx", state)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "state.eqx", fresh)
    trees_close(loaded, state, atol=0)
    encoded = flax.serialization.to_bytes(state)
    trees_close(flax.serialization.from_bytes(fresh, encoded), state, atol=0)


def check_training(fn, params, tx):
    obj = LikelihoodObjective(fn, "mse", X, TARGETS)
    moved, _ = run(jax.jit(step_with(tx, obj)), params, tx.init(params), 10)
    assert obj(moved) < 0.7 * obj(params)


def test_it_trains_an_equinox_model(method):
    dense = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    params, static = eqx.partition(dense, eqx.is_inexact_array)
    fn = lambda p, x: eqx.combine(p, static)(x)
    sites = capture_layers(fn, params, X[0])
    check_training(fn, params, METHODS[method](0.3, sites, 0.01, labels="exact"))


@pytest.mark.slow
def test_it_trains_a_flax_linen_model(method):
    module = flax.linen.Dense(2, param_dtype=jnp.float64)
    variables = module.init(jax.random.key(0), X)
    sites = capture_layers(module.apply, variables, X[0])
    check_training(module.apply, variables, METHODS[method](0.3, sites, 0.01, labels="exact"))


def test_it_trains_a_flax_nnx_model_through_its_optimizer(method):
    net = nnx.Linear(3, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    graph, state = nnx.split(net, nnx.Param)
    fn = lambda p, x: nnx.merge(graph, p)(x)
    tx: Any = METHODS[method](0.3, capture_layers(fn, state, X[0]), 0.01, labels="exact")
    optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)
    obj = LikelihoodObjective(fn, "mse", X, TARGETS)

    @nnx.jit
    def step(net, optimizer):
        grads = nnx.grad(lambda m: obj(nnx.state(m, nnx.Param)))(net)
        optimizer.update(net, grads, obj_fn=obj)

    before = obj(nnx.state(net, nnx.Param))
    for _ in range(10):
        step(net, optimizer)
    assert obj(nnx.state(net, nnx.Param)) < 0.7 * before


def test_fit_passes_it_the_model_and_the_likelihood(method):
    net = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0))
    params, static = eqx.partition(net, eqx.is_inexact_array)
    sites = capture_layers(lambda p, x: eqx.combine(p, static)(x), params, X[0])
    tx: Any = METHODS[method](0.3, sites, 0.1)
    loss = train.likelihood_loss("softmax")
    data = lambda step, key: (X, Y)
    result = train.fit(loss, net, data, tx, key=jax.random.key(1), num_steps=15, steps_per_call=5)
    final = loss(result.model, (X, Y), jax.random.key(0))
    assert final < 0.3 * result.metrics["loss"][0]


@pytest.mark.bad_input
def test_misuse_is_refused_by_name():
    sites = layers()
    for match, kwargs in {
        "`damping` must be at least zero": {"damping": -1.0},
        "`decay` must be in": {"decay": 1.0},
        "`factor_interval` must be at least 1": {"factor_interval": 0},
        "`basis_interval` must be at least 1": {"basis_interval": 0},
        "`labels` must be one of": {"labels": "true"},
        "`damping_rule` must be one of": {"damping_rule": "both"},
        "`max_quadratic` must be positive": {"max_quadratic": 0.0},
    }.items():
        with pytest.raises(ValueError, match=match):
            kfac(0.1, sites, **kwargs)
    with pytest.raises(TypeError, match="`layers` must be the"):
        METHODS["kfac"](0.1, make_params())


@pytest.mark.bad_input
def test_an_update_without_the_model_or_with_another_one_is_refused():
    tx, p = METHODS["ekfac"](0.1, layers()), make_params()
    state = tx.init(p)
    with pytest.raises(ValueError, match="`obj_fn` missing"):
        tx.update(p, state, p)
    with pytest.raises(TypeError, match="must be a `curvature\\.LikelihoodObjective`"):
        tx.update(p, state, p, obj_fn=lambda p: 0.0)
    other = LikelihoodObjective(lambda p, x: p["scale"] * (x @ p["w"]), "softmax", X, Y)
    with pytest.raises(ValueError, match="`layers` must be those of the model of `obj_fn`"):
        tx.update(p, state, p, obj_fn=other)
    with pytest.raises(ValueError, match="must have the leaves of `layers`, got none at"):
        tx.init({"w": p["w"]})
    with pytest.raises(TypeError, match="real floating leaves"):
        tx.init({**p, "w": p["w"].astype(complex)})
    masked: Any = optax.masked(tx, {k: k == "w" for k in p})
    with pytest.raises(ValueError, match="pass `full_params=params`"):
        masked.update(p, masked.init(p), p, obj_fn=objective())


@pytest.mark.bad_input
def test_two_closures_are_still_refused_elsewhere():
    tx, p = adahessian(0.1), {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="two closures"):
        tx.update(p, tx.init(p), p, obj_fn=lambda p: 0.0, value_fn=lambda p: 1.0)
