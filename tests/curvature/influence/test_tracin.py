import jax
import numpy as np
import pytest

from influence_problems import network_loss, network_problem
from jaxsci.curvature.influence import gradient_dot, tracin


def test_it_is_the_sum_of_dot_products_by_learning_rate():
    params, train, queries = network_problem()
    half = jax.tree.map(lambda p: p / 2, params)
    scores = tracin(network_loss, iter([(half, 0.1), (params, 0.01)]), queries, train)
    first, second = (gradient_dot(network_loss, p, queries, train) for p in (half, params))
    np.testing.assert_allclose(scores, 0.1 * first + 0.01 * second, rtol=1e-12)


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    params, train, queries = network_problem()
    with pytest.raises(ValueError, match="checkpoints"):
        tracin(network_loss, [], queries, train)
    with pytest.raises(ValueError, match="learning_rate"):
        tracin(network_loss, [(params, 0.0)], queries, train)
