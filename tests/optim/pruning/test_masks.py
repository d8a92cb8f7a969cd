import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.optim.pruning import prune_mask, sparsity

SCORES = {
    "w": jnp.array([[0.5, 3.0], [2.0, 0.1]]),
    "b": jnp.array([0.0, 0.0]),
    "k": jnp.array([[[1.0, 4.0], [0.2, 5.0]]]),
}


def test_scores_are_ranked_over_all_kernels_together():
    mask = prune_mask(SCORES, 0.5)
    np.testing.assert_array_equal(mask["w"], [[False, True], [True, False]])
    np.testing.assert_array_equal(mask["k"], [[[False, True], [False, True]]])
    assert np.all(mask["b"])
    assert float(sparsity(mask)) == 0.5


def test_weights_dropped_already_count_and_stay_dropped():
    before = jax.tree.map(lambda s: jnp.ones(s.shape, bool), SCORES)
    before["k"] = before["k"].at[0, 1, 1].set(False)  # the highest score
    mask = prune_mask(SCORES, 0.375, before)
    np.testing.assert_array_equal(mask["k"], [[[True, True], [False, False]]])
    np.testing.assert_array_equal(mask["w"], [[True, True], [True, False]])


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.9])
def test_equal_scores_are_dropped_in_the_number_asked_for(fraction):
    mask = prune_mask(jnp.zeros((10, 10)), fraction)
    assert int(jnp.sum(~mask)) == round(100 * fraction)


def test_a_weight_of_unknown_score_is_kept():
    mask = prune_mask(jnp.array([[jnp.nan, 1.0], [2.0, jnp.inf]]), 0.5)
    np.testing.assert_array_equal(mask, [[True, False], [False, True]])


@pytest.mark.bad_input
def test_masks_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="`mask`"):
        prune_mask(SCORES, 0.5, jax.tree.map(lambda s: jnp.ones(s.shape), SCORES))
    with pytest.raises(ValueError, match="`sparsity`"):
        prune_mask(SCORES, 1.0)
