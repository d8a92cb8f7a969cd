import numpy as np
import pytest

from influence_problems import network_curvature, network_loss, network_problem
from jaxsci.curvature.influence import pairwise, top_influences


def test_they_are_the_largest_scores_in_order():
    params, train, queries = network_problem()
    curv = network_curvature()
    scores = np.asarray(pairwise(curv, network_loss, params, queries, train, damping=0.02))
    best = top_influences(curv, network_loss, params, queries, train, 3, damping=0.02, batch_size=5)
    order = np.argsort(-scores, axis=1)[:, :3]
    np.testing.assert_array_equal(best.indices, order)
    np.testing.assert_allclose(best.scores, np.take_along_axis(scores, order, 1), rtol=1e-10)


def test_more_than_there_are_is_filled_up():
    params, train, queries = network_problem()
    curv = network_curvature()
    best = top_influences(curv, network_loss, params, queries, train, 14, damping=0.02)
    assert np.all(np.sort(best.indices[:, :12], axis=1) == np.arange(12))
    assert np.all(best.indices[:, 12:] == -1)
    assert np.all(np.isneginf(best.scores[:, 12:]))


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    params, train, queries = network_problem()
    with pytest.raises(ValueError, match="`k`"):
        top_influences(network_curvature(), network_loss, params, queries, train, 0)
