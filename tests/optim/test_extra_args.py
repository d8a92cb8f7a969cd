from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci.curvature import CompositeObjective, GaussNewtonDiagonal, Hutchinson
from jaxsci.optim import adahessian, scale_by_adahessian

P = {
    "body": {"w": jnp.asarray([[0.3, -0.2], [0.5, 0.8]]), "b": jnp.asarray([0.1, -0.4])},
    "head": jnp.asarray([1.2, -0.6]),
}
X = jnp.asarray(np.random.default_rng(0).normal(size=(9, 2)))


def outputs(p):
    return jnp.tanh(X @ p["body"]["w"] + p["body"]["b"]) @ p["head"]


def loss(p):
    return jnp.mean(jnp.cosh(outputs(p)))


MASK = {"body": {"w": True, "b": False}, "head": True}
PREFIX = {"body": False, "head": True}


def sub(p, mask):
    return [p["head"]] if mask is PREFIX else [p["body"]["w"], p["head"]]


def filled(leaves, mask):
    if mask is PREFIX:
        return {**P, "head": leaves[0]}
    return {"body": {"w": leaves[0], "b": P["body"]["b"]}, "head": leaves[1]}


def run(tx, obj_fn, params, extra=lambda p: {}, steps=4):
    @jax.jit
    def step(p, state):
        u, state = tx.update(jax.grad(obj_fn)(p), state, p, obj_fn=obj_fn, **extra(p))
        return optax.apply_updates(p, u), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def run_alone(tx, mask, obj_fn):
    """The optimizer on the list of selected leaves, the others held."""
    fill = lambda leaves: filled(leaves, mask)
    if isinstance(obj_fn, CompositeObjective):
        return run(tx, obj_fn.precompose(fill), sub(P, mask))
    return run(tx, lambda leaves: obj_fn(fill(leaves)), sub(P, mask))


def freezing(tx, mask):
    labels = jax.tree.map(lambda keep: "train" if keep else "freeze", mask)
    return optax.partition({"train": tx, "freeze": optax.set_to_zero()}, labels)


def full(p):
    return {"full_params": p}


@pytest.mark.parametrize("mask", [MASK, PREFIX], ids=["by_leaf", "by_prefix"])
def test_masked_and_partitioned_runs_equal_the_selected_leaves_run_alone(mask):
    tx: Any = adahessian(0.05, estimator=Hutchinson(2))
    expected = run_alone(tx, mask, loss)
    others = jax.tree.map(lambda keep: not keep, mask)
    masked = optax.chain(optax.masked(tx, mask), optax.masked(optax.set_to_zero(), others))
    for wrapped in (masked, freezing(tx, mask)):
        p = run(wrapped, loss, P, full)
        np.testing.assert_array_equal(p["body"]["b"], P["body"]["b"])
        for got, want in zip(sub(p, mask), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_structured_objective_keeps_its_parts_under_a_mask():
    objective = CompositeObjective(outputs, lambda y: jnp.mean(jnp.cosh(y)))
    tx: Any = adahessian(0.05, estimator=GaussNewtonDiagonal())
    p = run(freezing(tx, MASK), objective, P, full)
    for got, want in zip(sub(p, MASK), run_alone(tx, MASK, objective), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_two_blocks_each_with_its_own_transform_see_their_own_hessian():
    # The mixed term puts body and head in one Hessian, but in no diagonal block of it.
    f = lambda p: jnp.sum(p["body"] ** 2) + 2 * jnp.sum(p["head"] ** 2) + p["body"] @ p["head"]
    p = {"body": jnp.ones(2), "head": jnp.ones(2)}
    tx: Any = optax.partition({k: scale_by_adahessian(b2=0.0) for k in p}, {k: k for k in p})
    _, state = tx.update(p, tx.init(p), p, obj_fn=f, full_params=p)
    nu = {k: s.inner_state.nu[k] for k, s in state.inner_states.items()}
    np.testing.assert_allclose(nu["body"], 4, rtol=1e-14)
    np.testing.assert_allclose(nu["head"], 16, rtol=1e-14)


@pytest.mark.parametrize("compatible", [True, False])
def test_a_ready_made_diagonal_works_under_a_mask(compatible):
    diag = jax.tree.map(lambda x: 2 + x, P)
    tx: Any = optax.masked(scale_by_adahessian(), MASK, mask_compatible_extra_args=compatible)
    g = jax.grad(loss)(P)
    u, _ = tx.update(g, tx.init(P), P, hessian_diag=diag)
    np.testing.assert_array_equal(u["body"]["b"], g["body"]["b"])
    np.testing.assert_allclose(u["head"], g["head"] / (diag["head"] + 1e-4), rtol=1e-12)


def test_obj_fn_and_value_fn_are_two_names_of_one_closure():
    tx: Any = scale_by_adahessian()
    g = jax.grad(loss)(P)
    results = [
        tx.update(g, tx.init(P), P, **extra)[0]["head"]
        for extra in ({"obj_fn": loss}, {"value_fn": loss}, {"obj_fn": loss, "value_fn": loss})
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_a_given_diagonal_wins_over_the_objective():
    tx: Any = scale_by_adahessian(b2=0.0)
    ones = jax.tree.map(jnp.ones_like, P)
    _, state = tx.update(P, tx.init(P), P, obj_fn=loss, hessian_diag=ones)
    np.testing.assert_array_equal(state.nu["head"], 1)


@pytest.mark.bad_input
def test_what_is_missing_is_named_with_its_remedy():
    tx: Any = scale_by_adahessian()
    g, state = P, tx.init(P)
    with pytest.raises(ValueError, match=r"`params` missing.*`obj_fn`.*`hessian_diag`"):
        tx.update(g, state, obj_fn=loss)
    with pytest.raises(ValueError, match=r"both `obj_fn` and `hessian_diag` missing.*TrainState"):
        tx.update(g, state, P)
    with pytest.raises(ValueError, match="two names of one closure"):
        tx.update(g, state, P, obj_fn=loss, value_fn=lambda p: loss(p))
    with pytest.raises(ValueError, match=r"`obj_fn` must return .* shape \(9,\)"):
        tx.update(g, state, P, obj_fn=outputs)


@pytest.mark.bad_input
def test_masked_parameters_without_a_remedy_name_both_remedies():
    remedies = "full_params=params.*hessian_diag.*mask_compatible_extra_args=True"
    tx: Any = optax.masked(scale_by_adahessian(), MASK)
    with pytest.raises(ValueError, match=remedies):
        tx.update(P, tx.init(P), P, obj_fn=loss)
    tx: Any = optax.masked(scale_by_adahessian(), MASK, mask_compatible_extra_args=True)
    with pytest.raises(ValueError, match=remedies):
        tx.update(P, tx.init(P), P, obj_fn=loss, full_params=P)
    tx: Any = optax.masked(scale_by_adahessian(), MASK)
    with pytest.raises(ValueError, match=r"`full_params` must have .* none at \"\['head'\]\""):
        tx.update(P, tx.init(P), P, obj_fn=loss, full_params={"body": P["body"]})


@pytest.mark.bad_input
def test_a_mismatched_diagonal_is_located():
    tx: Any = scale_by_adahessian()
    state = tx.init(P)
    with pytest.raises(ValueError, match=r"`hessian_diag` .* none at \"\['body'\]\['b'\]\""):
        tx.update(P, state, P, hessian_diag={"body": {"w": P["body"]["w"]}, "head": P["head"]})
    with pytest.raises(ValueError, match=r"`hessian_diag` .* one more at \"\['tail'\]\""):
        tx.update(P, state, P, hessian_diag={**P, "tail": P["head"]})
    with pytest.raises(ValueError, match=r"got \(3,\) instead of \(2,\) at \"\['head'\]\""):
        tx.update(P, state, P, hessian_diag={**P, "head": jnp.ones(3)})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("leaf", "remedy"),
    [
        (jnp.arange(2), "leave it out"),
        (jnp.ones(2, bool), "leave it out"),
        (jnp.tanh, "leave it out"),
        (jnp.ones(2, complex), "split it into its real and imaginary part"),
    ],
)
def test_a_leaf_that_is_not_real_floating_is_located(leaf, remedy):
    bad = {**P, "extra": leaf}
    tx: Any = scale_by_adahessian()
    with pytest.raises(TypeError, match=rf"at \"\['extra'\]\"; {remedy}"):
        tx.init(bad)
    with pytest.raises(TypeError, match=rf"at \"\['extra'\]\"; {remedy}"):
        tx.update(bad, tx.init(P), bad, hessian_diag=bad)
