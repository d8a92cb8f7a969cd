import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci.optim.pruning import (
    apply_mask,
    gradual_prune,
    gradual_sparsity,
    magnitude_scores,
    obs_prune,
    prune_mask,
    sparsity,
)

M, DAMPING = 25, 1e-3
SHAPES = {"a": (3, 4), "b": (4,), "c": (2, 2, 3)}
KERNELS = ("a", "c")
D = 24


def network(seed=0):
    rng = np.random.default_rng(seed)
    params = {k: jnp.asarray(rng.normal(size=s)) for k, s in SHAPES.items()}
    mixing = rng.normal(size=(D, D)) / D**0.5
    g = rng.normal(size=(M, D)) @ mixing
    grads = {
        "a": jnp.asarray(g[:, :12].reshape(M, 3, 4)),
        "b": jnp.asarray(rng.normal(size=(M, 4))),
        "c": jnp.asarray(g[:, 12:].reshape(M, 2, 2, 3)),
    }
    return params, grads


def flat(tree):
    return np.concatenate([np.asarray(tree[k]).ravel() for k in KERNELS])


def fisher(block_size=None):
    _, grads = network()
    g = np.concatenate([np.asarray(grads[k]).reshape(M, -1) for k in KERNELS], 1)
    f = DAMPING * np.eye(D) + g.T @ g / M
    if block_size:
        blocks = [(k, i // block_size) for k in KERNELS for i in range(12)]
        f = f * np.array([[p == q for q in blocks] for p in blocks])
    return f


def cheapest(f, w, dropped):
    """The minimiser of x^T f x / 2 under x = -w on `dropped`, from its optimality conditions."""
    d = len(w)
    e = np.eye(d)[dropped]
    kkt = np.block([[f, e.T], [e, np.zeros((len(e), len(e)))]])
    return np.linalg.solve(kkt, np.concatenate([np.zeros(d), -w[dropped]]))[:d]


@functools.cache
def pruned(**options):
    params, grads = network()
    return obs_prune(params, grads, damping=DAMPING, **options)


@pytest.mark.parametrize("block_size", [None, 5])
def test_a_score_is_the_least_increase_of_the_loss_without_the_weight(block_size):
    params, _ = network()
    w, f = flat(params), fisher(block_size)
    _, _, scores = pruned(sparsity=0.5, block_size=block_size)
    for i in range(D):
        x = cheapest(f, w, [i])
        np.testing.assert_allclose(flat(scores)[i], x @ f @ x / 2, rtol=1e-10)


@pytest.mark.parametrize("block_size", [None, 5])
def test_the_joint_change_is_the_cheapest_that_zeroes_the_dropped_weights(block_size):
    params, _ = network()
    w, f = flat(params), fisher(block_size)
    new, mask, scores = pruned(sparsity=0.5, block_size=block_size)
    dropped = ~flat(mask)
    assert dropped.sum() == 12
    assert flat(scores)[dropped].max() <= flat(scores)[~dropped].min()
    np.testing.assert_array_equal(flat(new)[dropped], 0)
    change = flat(new) - w
    np.testing.assert_allclose((f @ change)[~dropped], 0, atol=1e-10)
    np.testing.assert_allclose(change, cheapest(f, w, dropped), atol=1e-10)


@pytest.mark.parametrize("block_size", [None, 5])
def test_the_independent_change_sums_those_of_single_weights(block_size):
    params, _ = network()
    w, f = flat(params), fisher(block_size)
    new, mask, _ = pruned(sparsity=0.25, block_size=block_size, update="independent")
    dropped = np.flatnonzero(~flat(mask))
    want = w + sum(cheapest(f, w, [i]) for i in dropped)
    want[dropped] = 0
    np.testing.assert_allclose(flat(new), want, atol=1e-10)


def test_for_a_single_weight_both_changes_agree():
    joint, _, _ = pruned(sparsity=1 / D)
    alone, _, _ = pruned(sparsity=1 / D, update="independent")
    np.testing.assert_allclose(flat(joint), flat(alone), atol=1e-10)


def test_without_change_only_the_dropped_weights_move():
    params, _ = network()
    new, mask, _ = pruned(sparsity=0.5, update="none")
    np.testing.assert_array_equal(flat(new), flat(params) * flat(mask))


def test_biases_are_neither_dropped_nor_changed():
    params, _ = network()
    new, mask, scores = pruned(sparsity=0.5)
    np.testing.assert_array_equal(new["b"], params["b"])
    assert np.all(mask["b"])
    assert np.all(np.isinf(scores["b"]))


@pytest.mark.slow
def test_leaves_can_be_chosen():
    params, grads = network()
    for where in ({"a": False, "b": True, "c": False}, lambda leaf: leaf.ndim == 1):
        new, mask, _ = obs_prune(params, grads, 0.5, DAMPING, where=where)
        assert int(np.sum(~np.asarray(mask["b"]))) == 2
        np.testing.assert_array_equal(new["a"], params["a"])


def test_a_network_of_vectors_alone_is_prunable():
    params, grads = network()
    _, mask, _ = obs_prune({"b": params["b"]}, {"b": grads["b"]}, 0.5, DAMPING)
    assert int(np.sum(~np.asarray(mask["b"]))) == 2


def test_nothing_to_drop_leaves_everything_as_it_was():
    params, grads = network()
    new, mask, _ = obs_prune(params, grads, 0.0, DAMPING)
    jax.tree.map(np.testing.assert_array_equal, new, params)
    assert all(np.all(m) for m in jax.tree.leaves(mask))
    half, mask, _ = pruned(sparsity=0.5)
    again, same, _ = obs_prune(half, grads, 0.5, DAMPING, mask)
    jax.tree.map(np.testing.assert_array_equal, (again, same), (half, mask))


def test_dropped_weights_stay_dropped_and_no_longer_count():
    _, grads = network()
    half, mask, _ = pruned(sparsity=0.5)
    more, after, scores = obs_prune(half, grads, 0.75, DAMPING, mask)
    assert np.all(flat(mask) | ~flat(after))
    assert (~flat(after)).sum() == 18
    kept = flat(mask)
    f, w = fisher()[np.ix_(kept, kept)], flat(half)[kept]
    np.testing.assert_allclose(
        flat(scores)[kept], w**2 / (2 * np.diag(np.linalg.inv(f))), rtol=1e-9
    )
    change = cheapest(f, w, ~flat(after)[kept])
    np.testing.assert_allclose(flat(more)[kept], w + change, atol=1e-10)


def test_recomputing_asks_for_gradients_at_the_weights_of_each_step():
    params, grads = network()
    seen = []

    def fresh(p):
        seen.append(int(np.sum(flat(p) == 0)))
        return grads

    new, mask, _ = obs_prune(params, fresh, 0.75, DAMPING, recompute=3)
    # The kept share of 24 falls to 6 by the same factor three times: 24, 15.1, 9.5, 6.
    assert seen == [0, 9, 14]
    fixed, same, _ = obs_prune(params, grads, 0.75, DAMPING, recompute=3)
    jax.tree.map(np.testing.assert_allclose, (new, mask), (fixed, same))


def test_on_an_exact_quadratic_several_steps_cost_less_than_one_and_than_magnitude():
    params, grads = network()
    w, f = flat(params), fisher()
    cost = lambda p: (flat(p) - w) @ f @ (flat(p) - w) / 2

    once, _, _ = obs_prune(params, grads, 0.75, DAMPING)
    many, _, _ = obs_prune(params, grads, 0.75, DAMPING, recompute=18)
    by_size = prune_mask(magnitude_scores(params), 0.75)
    plain = jax.tree.map(jnp.multiply, params, by_size)
    assert cost(many) < cost(once) < cost(plain)


def test_it_compiles_with_a_traced_mask():
    _, grads = network()
    half, mask, _ = pruned(sparsity=0.5)
    got = jax.jit(lambda p, g, m: obs_prune(p, g, 0.75, DAMPING, m, recompute=2))(half, grads, mask)
    want = obs_prune(half, grads, 0.75, DAMPING, mask, recompute=2)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-10), got, want)


def test_float32_weights_stay_float32():
    params, grads = jax.tree.map(lambda x: x.astype(jnp.float32), network())
    for block_size in (None, 8):
        prune = functools.partial(obs_prune, sparsity=0.5, damping=DAMPING, block_size=block_size)
        new, _, scores = jax.eval_shape(prune, params, grads)
        assert {x.dtype for x in jax.tree.leaves((new, scores))} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_gradual_pruning_trains_between_steps_and_keeps_zeros():
    params, grads = network()
    target = jax.tree.map(lambda p: 0.5 * p, params)
    loss = lambda p: sum(jnp.sum((x - y) ** 2) for x, y in zip(p.values(), target.values()))
    levels = []

    def fine_tune(p, mask):
        levels.append(float(sparsity(mask)))
        tx: Any = optax.chain(optax.sgd(0.3), apply_mask(mask))
        state = tx.init(p)
        for _ in range(10):
            u, state = tx.update(jax.grad(loss)(p), state, p)
            p = optax.apply_updates(p, u)
        return p

    schedule = gradual_sparsity(0.75, 3, shape="exponential")
    new, mask = gradual_prune(
        params, lambda p: grads, [schedule(k) for k in (1, 2, 3)], DAMPING, fine_tune
    )
    np.testing.assert_allclose(levels, [9 / 24, 14 / 24, 18 / 24])
    np.testing.assert_allclose(float(sparsity(mask)), 0.75)
    for k in SHAPES:
        np.testing.assert_allclose(new[k], target[k] * mask[k], atol=1e-3)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"damping": 0.0}, "damping"),
        ({"block_size": 0}, "block_size"),
        ({"update": "both"}, "update"),
        ({"recompute": 0}, "recompute"),
        ({"mask": {"a": jnp.ones((3, 4), bool)}}, "mask"),
        ({"where": {"a": True}}, "where"),
        ({"grads_stack": {"a": jnp.ones((5, 3, 4))}}, "grads_stack"),
    ],
)
def test_arguments_out_of_range_are_refused(options, name):
    params, grads = network()
    given = {"grads_stack": grads, "sparsity": 0.5, "damping": DAMPING} | options
    with pytest.raises(ValueError, match=f"`{name}`"):
        obs_prune(params, **given)


@pytest.mark.bad_input
def test_a_sparsity_below_that_of_the_mask_is_refused():
    params, grads = network()
    half, mask, _ = obs_prune(params, grads, 0.5, DAMPING)
    with pytest.raises(ValueError, match="at least that of `mask`"):
        obs_prune(half, grads, 0.25, DAMPING, mask)
