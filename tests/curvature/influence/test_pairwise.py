import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from influence_problems import (
    network,
    network_curvature,
    network_ggn,
    network_gradients,
    network_loss,
    network_matrix,
    network_problem,
    sequence_curvature,
    sequence_loss,
    sequence_problem,
)
from jaxsci.curvature import fit_kronecker
from jaxsci.curvature.influence import exact_ggn, gradient_dot, pairwise


@functools.cache
def network_scores(**options):
    params, train, queries = network_problem()
    return pairwise(
        network_curvature(), network_loss, params, queries, train, damping=0.02, **options
    )


@functools.cache
def sequence_scores(**options):
    params, train, queries = sequence_problem()
    return pairwise(sequence_curvature(), sequence_loss, params, queries, train, **options)


def test_scores_through_the_exact_matrix_equal_the_dense_formula():
    params, train, queries = network_problem()
    of_queries, of_train = network_gradients()
    matrix = network_matrix() + 0.02 * np.eye(len(network_matrix()))
    expected = of_queries @ np.linalg.solve(matrix, of_train.T)
    # Part of the damping is in the operator, part is added to it.
    scores = pairwise(network_ggn(0.015), network_loss, params, queries, train, damping=0.005)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)


def test_scores_through_kronecker_factors_equal_gradients_times_their_inverse():
    params, _, _ = network_problem()
    of_queries, of_train = network_gradients()
    _, unravel = ravel_pytree(params)
    inverse = network_curvature().inverse(0.02)
    solve = jax.jit(jax.vmap(lambda g: ravel_pytree(inverse.mv(unravel(g)))[0]))
    expected = np.asarray(solve(jnp.asarray(of_queries))) @ of_train.T
    np.testing.assert_allclose(network_scores(), expected, rtol=1e-10, atol=1e-12)


def test_one_linear_layer_with_squared_error_is_scored_exactly():
    keys = jax.random.split(jax.random.key(3), 4)
    params = {
        "w": jax.random.normal(keys[0], (2, 3)),
        "b": jax.random.normal(keys[1], (2,)),
    }
    model = lambda p, x: p["w"] @ x + p["b"]
    data = jax.random.normal(keys[2], (10, 3)), jax.random.normal(keys[3], (10, 2))
    loss = lambda p, e: jnp.sum((model(p, e[0]) - e[1]) ** 2) / 2
    curv = fit_kronecker(model, "mse", params, data)
    ours = pairwise(curv, loss, params, data, data, damping=1e-3)
    exact = pairwise(exact_ggn(model, "mse", params, data, 1e-3), loss, params, data, data)
    np.testing.assert_allclose(ours, exact, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(ours, ours.T, rtol=1e-10, atol=1e-10)
    assert np.all(np.diag(ours) > 0)


def test_damping_times_the_score_tends_to_the_gradient_dot_product():
    params, train, queries = network_problem()
    of_queries, of_train = network_gradients()
    dots = gradient_dot(network_loss, params, queries, train)
    np.testing.assert_allclose(dots, of_queries @ of_train.T, rtol=1e-11, atol=1e-13)
    scores = pairwise(network_curvature(), network_loss, params, queries, train, damping=1e8)
    np.testing.assert_allclose(1e8 * scores, dots, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_a_query_rank_that_no_layer_exceeds_is_exact_and_the_error_falls_with_the_rank():
    exact = network_scores()
    errors = [float(jnp.linalg.norm(network_scores(rank=k) - exact)) for k in (1, 2, 4)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-10 * float(jnp.linalg.norm(exact))


def test_low_rank_scores_equal_those_of_truncated_query_matrices():
    # By hand for one layer without hidden units: V = (G + damping)^-1 g, cut to rank 1 by SVD.
    keys = jax.random.split(jax.random.key(4), 2)
    params = {"w": jax.random.normal(keys[0], (3, 4))}
    tokens = jax.random.normal(keys[1], (5, 6, 4))
    loss = lambda p, x: jnp.sum(jnp.sin(x @ p["w"].T))
    gradient = lambda x: np.cos(x @ params["w"].T).T @ np.asarray(x)
    v = np.stack([gradient(x) for x in tokens])
    u, s, vt = np.linalg.svd(v)
    cut = u[:, :, :1] * s[:, None, :1] @ vt[:, :1]
    expected = np.einsum("qoi,noi->qn", cut, v)
    # One query is applied position by position; for many, gradient matrices are formed.
    for queries in (1, 5):
        scores = gradient_dot(loss, params, tokens[:queries], tokens, rank=1)
        np.testing.assert_allclose(scores, expected[:queries], rtol=1e-10)


def test_parts_by_layer_and_token_sum_to_the_score_and_name_every_leaf_once():
    parts = sequence_scores(per_layer=True, per_token=True)
    assert set(parts) == {"['embedding']", "['in']", "['out']", "['head']", "['scale']"}
    assert {part.shape for part in parts.values()} == {(3, 6, 7)}
    total = sum(parts.values()).sum(-1)
    np.testing.assert_allclose(total, sequence_scores(), rtol=1e-9, atol=1e-12)
    # A layer after pooling has no position: its part is the same for all.
    assert np.ptp(parts["['head']"], axis=-1).max() == 0
    assert np.ptp(parts["['in']"], axis=-1).max() > 0


@pytest.mark.slow
def test_parts_by_layer_or_by_token_sum_to_the_score():
    layers, tokens = sequence_scores(per_layer=True), sequence_scores(per_token=True)
    np.testing.assert_allclose(sum(layers.values()), sequence_scores(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tokens.sum(-1), sequence_scores(), rtol=1e-9, atol=1e-12)


def test_token_scores_are_the_terms_of_the_sum_over_positions():
    params = {"w": jnp.asarray([[1.0, 2.0], [0.5, -1.0]])}
    x = jax.random.normal(jax.random.key(5), (3, 4, 2))
    loss = lambda p, x: jnp.sum(jnp.sin(x @ p["w"].T))
    delta = np.cos(x @ params["w"].T)
    v = np.einsum("qto,qti->qoi", delta, x)
    expected = np.einsum("nto,qoi,nti->qnt", delta, v, x)
    scores = gradient_dot(loss, params, x, x, per_token=True)
    np.testing.assert_allclose(scores, expected, rtol=1e-11)


def test_scores_do_not_depend_on_batches_and_follow_a_permutation():
    params, train, queries = network_problem()
    order = np.random.default_rng(0).permutation(12)
    shuffled = jax.tree.map(lambda x: x[order], train)
    run = functools.partial(
        pairwise, network_curvature(), network_loss, params, queries, damping=0.02
    )
    scores = run(shuffled, batch_size=5, query_batch_size=3)
    np.testing.assert_allclose(scores, network_scores()[:, order], rtol=1e-10, atol=1e-13)
    stream = (jax.tree.map(lambda x, a=a: x[a : a + 6], train) for a in (0, 6))
    np.testing.assert_allclose(run(stream), network_scores(), rtol=1e-10, atol=1e-13)


def test_a_measurement_replaces_minus_the_loss():
    params, train, queries = network_problem()
    measure = lambda p, query: -network_loss(p, (query["x"], query["y"]))
    scores = pairwise(
        network_curvature(),
        network_loss,
        params,
        {"x": queries[0], "y": queries[1]},
        train,
        measure,
        damping=0.02,
    )
    np.testing.assert_allclose(scores, network_scores(), rtol=1e-12)


def test_normalised_scores_are_those_of_one_example_among_all():
    expected = network_scores() / 12
    np.testing.assert_allclose(network_scores(normalize="per_example"), expected, rtol=1e-14)
    scores = network_scores(normalize="per_example", num_examples=100)
    np.testing.assert_allclose(scores, network_scores() / 100, rtol=1e-14)


@pytest.mark.slow
def test_float32_stays_float32():
    params, train, queries = network_problem(jnp.float32)
    curv = fit_kronecker(network, "softmax", params, train)
    scores = pairwise(curv, network_loss, params, queries, train, rank=2)
    assert scores.dtype == jnp.float32


@pytest.mark.slow
def test_scores_compile_as_part_of_a_larger_function():
    params, train, queries = network_problem()

    @jax.jit
    def largest(params, curv):
        return jnp.max(pairwise(curv, network_loss, params, queries, train, damping=0.02))

    np.testing.assert_allclose(
        largest(params, network_curvature()), network_scores().max(), rtol=1e-10
    )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"rank": 5}, "rank"),
        ({"rank": 0}, "rank"),
        ({"damping": -1.0}, "damping"),
        ({"damping": 0.0}, "damping"),
        ({"normalize": "mean"}, "normalize"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_out_of_range_are_named(options, name):
    params, train, queries = network_problem()
    with pytest.raises(ValueError, match=name):
        pairwise(network_curvature(), network_loss, params, queries, train, **options)


@pytest.mark.bad_input
def test_data_that_do_not_fit_are_named():
    params, train, queries = network_problem()
    curv = network_curvature()
    with pytest.raises(ValueError, match="same structure"):
        pairwise(curv, network_loss, params, list(queries), train)
    with pytest.raises(ValueError, match="leading axes of `train`"):
        pairwise(curv, network_loss, params, queries, (train[0], train[1][:3]))
    with pytest.raises(ValueError, match="at least one batch"):
        pairwise(curv, network_loss, params, queries, iter([]))
    with pytest.raises(ValueError, match="loss_fn"):
        pairwise(curv, lambda p, e: network(p, e[0]), params, queries, train)
    with pytest.raises(TypeError, match="curv"):
        pairwise("ekfac", network_loss, params, queries, train)


@pytest.mark.bad_input
def test_a_curvature_of_other_parameters_is_refused():
    params, train, queries = network_problem()
    other = params | {"w1": jnp.zeros((6, 3)), "b1": jnp.zeros(6), "w2": jnp.zeros((4, 6))}
    with pytest.raises(ValueError, match="shapes"):
        pairwise(network_curvature(), network_loss, other, queries, train)
