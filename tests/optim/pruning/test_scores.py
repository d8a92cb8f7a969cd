import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.optim.pruning import diagonal_fisher_scores, magnitude_scores, obs_scores

RNG = np.random.default_rng(0)
W, G = RNG.normal(size=(3, 4)), RNG.normal(size=(20, 3, 4))


def test_magnitudes_are_absolute_values():
    np.testing.assert_array_equal(magnitude_scores({"w": jnp.asarray(W)})["w"], np.abs(W))


def test_diagonal_scores_ignore_the_other_weights():
    got = diagonal_fisher_scores({"w": jnp.asarray(W)}, {"w": jnp.asarray(G)}, 0.1)["w"]
    np.testing.assert_allclose(got, W**2 * (0.1 + (G**2).mean(0)) / 2, rtol=1e-12)


@pytest.mark.parametrize("block_size", [None, 1, 12])
def test_surgeon_scores_use_the_inverse_of_the_fisher_matrix(block_size):
    got = obs_scores(jnp.asarray(W), jnp.asarray(G), 0.1, block_size)
    g = G.reshape(20, 12)
    f = 0.1 * np.eye(12) + g.T @ g / 20
    if block_size == 1:
        f = np.diag(np.diag(f))
    want = W.ravel() ** 2 / (2 * np.diag(np.linalg.inv(f)))
    np.testing.assert_allclose(got.ravel(), want, rtol=1e-9)


@pytest.mark.bad_input
def test_damping_must_be_positive():
    with pytest.raises(ValueError, match="`damping`"):
        obs_scores(jnp.asarray(W), jnp.asarray(G), 0.0)
