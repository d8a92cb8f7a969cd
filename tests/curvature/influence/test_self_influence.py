import functools

import jax.numpy as jnp
import numpy as np
import pytest

from influence_problems import (
    network_curvature,
    network_ggn,
    network_gradients,
    network_loss,
    network_matrix,
    network_problem,
)
from jaxsci.curvature.influence import pairwise, self_influence


def test_it_is_the_diagonal_of_the_pairwise_scores_and_positive():
    params, train, _ = network_problem()
    curv = network_curvature()
    scores = self_influence(curv, network_loss, params, train, damping=0.02, batch_size=5)
    square = pairwise(curv, network_loss, params, train, train, damping=0.02)
    np.testing.assert_allclose(scores, np.diag(square), rtol=1e-10)
    assert np.all(scores > 0)


def test_layers_sum_to_the_dense_formula():
    params, train, _ = network_problem()
    _, gradients = network_gradients()
    matrix = network_matrix() + 0.1 * np.eye(len(network_matrix()))
    expected = np.sum(gradients * np.linalg.solve(matrix, gradients.T).T, axis=1)
    layers = self_influence(network_ggn(0.1), network_loss, params, train, per_layer=True)
    np.testing.assert_allclose(sum(layers.values()), expected, rtol=1e-9)
    assert list(layers) == ["['w1']", "['w2']"]


def test_normalised_scores_are_divided_by_the_number_of_examples():
    params, train, _ = network_problem()
    curv = network_curvature()
    run = functools.partial(
        self_influence, curv, network_loss, params, train, damping=0.02, batch_size=5
    )
    scores, expected = run(normalize="per_example"), run() / 12
    np.testing.assert_allclose(scores, expected, rtol=1e-14)
    assert scores.dtype == jnp.float64


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    params, train, _ = network_problem()
    with pytest.raises(ValueError, match="damping"):
        self_influence(network_curvature(), network_loss, params, train, damping=-1.0)
    with pytest.raises(ValueError, match="normalize"):
        self_influence(network_curvature(), network_loss, params, train, normalize="sum")
