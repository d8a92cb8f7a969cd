import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci.optim import mfac, scale_by_mfac, ScaleByMFACState

M, DAMPING = 5, 0.2
SHAPES = {"w": (3, 2), "b": (2,)}
D = 8


def gradients(count, dtype: Any = np.float64):
    rng = np.random.default_rng(0)
    return {k: jnp.asarray(rng.normal(size=(count, *s)), dtype) for k, s in SHAPES.items()}


def flat(tree, axes=0):
    keys = sorted(tree)
    return np.concatenate(
        [np.asarray(tree[k]).reshape(*tree[k].shape[:axes], -1) for k in keys], axes
    )


def params(dtype: Any = np.float64):
    return {k: jnp.ones(s, dtype) for k, s in SHAPES.items()}


def updates(tx: Any, grads, p=None):
    """All updates of a run at fixed parameters."""
    p = params() if p is None else p

    @jax.jit
    def run(grads):
        def step(state, g):
            u, state = tx.update(g, state, p)
            return state, u

        return jax.lax.scan(step, tx.init(p), grads)[1]

    return flat(run(grads), 1)


def reference(g, normalize="capacity", momentum=0.0):
    v, out = np.zeros(D), []
    for t in range(len(g)):
        window = g[max(0, t + 1 - M) : t + 1]
        total = M if normalize == "capacity" else len(window)
        f = DAMPING * np.eye(D) + window.T @ window / total
        v = momentum * v + (1 - momentum) * np.linalg.solve(f, g[t])
        out.append(v)
    return np.stack(out)


@functools.cache
def default_run():
    return updates(scale_by_mfac(M, DAMPING), gradients(12))


def test_each_direction_solves_with_the_fisher_matrix_of_the_window():
    np.testing.assert_allclose(default_run(), reference(flat(gradients(12), 1)), atol=1e-10)


def test_momentum_averages_the_directions_and_normalize_counts_the_rows():
    got = updates(scale_by_mfac(M, DAMPING, 0.7, "filled"), gradients(12))
    want = reference(flat(gradients(12), 1), "filled", 0.7)
    np.testing.assert_allclose(got, want, atol=1e-10)


def test_weight_decay_enters_the_window():
    rate, g = 0.3, flat(gradients(4), 1)
    got = updates(mfac(0.1, M, DAMPING, weight_decay=rate), gradients(4))
    np.testing.assert_allclose(got, -0.1 * reference(g + rate), atol=1e-10)


def test_leaves_without_decay_do_not_decay():
    mask = {"w": True, "b": False}
    got = updates(mfac(0.1, M, DAMPING, weight_decay=0.3, weight_decay_mask=mask), gradients(4))
    decayed = np.concatenate([np.zeros(2), np.ones(6)])  # b, w
    want = -0.1 * reference(flat(gradients(4), 1) + 0.3 * decayed)
    np.testing.assert_allclose(got, want, atol=1e-10)


def test_under_large_damping_the_direction_is_that_of_the_gradient():
    got, g = updates(scale_by_mfac(M, 1e8), gradients(12)), flat(gradients(12), 1)
    cosines = np.sum(got * g, 1) / np.linalg.norm(got, axis=1) / np.linalg.norm(g, axis=1)
    assert cosines.min() > 1 - 1e-6
    np.testing.assert_allclose(1e8 * got, g, atol=1e-6)


@pytest.mark.slow
def test_the_authors_defaults_are_the_defaults():
    g = jnp.linspace(0.1, 1, 4)
    tx: Any = mfac()
    got, state = jax.jit(tx.update)(g, tx.init(g))
    # One row in a window of 1024 divided by its capacity.
    np.testing.assert_allclose(got, -1e-3 * g / (1e-5 + g @ g / 1024), rtol=1e-10)
    assert state[0].window.gram.shape == (1024, 1024)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_gradient_that_is_not_finite_gives_no_step_and_leaves_no_trace(momentum):
    tx: Any = scale_by_mfac(M, DAMPING, momentum)
    update = jax.jit(tx.update)
    g = jax.tree.map(lambda x: x[0], gradients(1))
    _, state = update(g, tx.init(params()))
    bad, after = update({**g, "b": g["b"] * jnp.nan}, state)
    assert all(np.all(x == 0) for x in jax.tree.leaves(bad))
    assert bool(after.window.rejected)
    again, _ = update(g, after)
    want, _ = update(g, state)
    jax.tree.map(np.testing.assert_array_equal, again, want)


def test_sparse_mode_trains_only_weights_that_are_not_zero():
    p = params()
    p["w"] = p["w"].at[0].set(0.0)
    alive = flat(p) != 0
    got = updates(scale_by_mfac(M, DAMPING, 0.5, sparse=True), gradients(6), p)
    assert np.all(got[:, ~alive] == 0)
    want = reference(flat(gradients(6), 1) * alive, momentum=0.5)
    np.testing.assert_allclose(got, want * alive, atol=1e-10)


@pytest.mark.slow
def test_a_window_in_bfloat16_stays_close():
    tx = scale_by_mfac(M, DAMPING, window_dtype=jnp.bfloat16)
    state: ScaleByMFACState = tx.init(params(np.float32))  # pyright: ignore[reportAssignmentType]
    assert {x.dtype for x in jax.tree.leaves(state.window.rows)} == {jnp.dtype(jnp.bfloat16)}
    got = updates(tx, gradients(12, np.float32), params(np.float32))
    assert got.dtype == np.float32
    error = np.linalg.norm(got - default_run(), axis=1) / np.linalg.norm(default_run(), axis=1)
    assert error.max() < 0.02


def test_masking_restricts_the_window_to_its_leaves():
    tx = optax.masked(scale_by_mfac(M, DAMPING), {"w": True, "b": False})
    got = updates(tx, gradients(3))
    g = flat(gradients(3), 1)
    np.testing.assert_allclose(got[:, :2], g[:, :2])
    alone = g * np.concatenate([np.zeros(2), np.ones(6)])
    np.testing.assert_allclose(got[:, 2:], reference(alone)[:, 2:], atol=1e-10)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"damping": 0.0}, ValueError, "`damping`"),
        ({"capacity": 0}, ValueError, "`capacity`"),
        ({"capacity": 2.5}, TypeError, "`capacity`"),
        ({"momentum": 1.0}, ValueError, "`momentum`"),
        ({"weight_decay": -1.0}, ValueError, "`weight_decay`"),
        ({"normalize": "rows"}, ValueError, "`normalize`"),
        ({"window_dtype": jnp.int8}, ValueError, "`dtype`"),
    ],
)
def test_arguments_out_of_range_are_refused(options, error, name):
    with pytest.raises(error, match=name):
        mfac(0.1, **options)


@pytest.mark.bad_input
def test_other_trees_and_leaves_are_refused():
    tx: Any = mfac(0.1, 3, 0.1)
    state = tx.init({"w": jnp.ones(4)})
    with pytest.raises(ValueError, match="structure"):
        tx.update({"v": jnp.ones(4)}, state)
    with pytest.raises(TypeError, match="real floating"):
        tx.init({"w": jnp.ones(4, jnp.int32)})
    sparse: Any = mfac(0.1, 3, 0.1, sparse=True)
    with pytest.raises(ValueError, match="`params`"):
        sparse.update({"w": jnp.ones(4)}, sparse.init({"w": jnp.ones(4)}))
