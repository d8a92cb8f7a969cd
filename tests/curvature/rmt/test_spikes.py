"""The spiked-matrix formulas against matrices drawn from their models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import eigsh, svds

from jaxsci.curvature.rmt import spiked_covariance_edge, spiked_edges

P, S = 1500, 0.5
SPIKES = np.array([0.9, 1.5, 3.0, 6.0])


def noisy(spikes, seed):
    """diag(spikes, 0, ...) plus a Wigner matrix with edges at -2s and 2s."""
    a = np.random.default_rng(seed).normal(size=(P, P))
    matrix = (a + a.T) * (S / np.sqrt(2 * P))
    matrix[np.arange(len(spikes)), np.arange(len(spikes))] += spikes
    return matrix


def top(matrix, count):
    values, vectors = eigsh(matrix, count, which="LA", tol=1e-3)
    return values, vectors


def test_spikes_stand_where_one_draw_of_the_noise_puts_them():
    both_signs = np.concatenate([SPIKES, -SPIKES])
    matrix = noisy(both_signs, 0)
    for sign, first in ((1, 0), (-1, 4)):
        values, vectors = top(sign * matrix, 4)
        want, overlap = spiked_edges(sign * SPIKES, S**2)
        np.testing.assert_allclose(sign * values, want, rtol=0.04)
        measured = [vectors[first + i, i] ** 2 for i in range(4)]
        np.testing.assert_allclose(measured, overlap, atol=0.06)


def test_below_the_threshold_the_end_of_the_spectrum_is_the_edge_of_the_noise():
    matrix = noisy([0.3], 1)
    for sign in (1, -1):
        value, overlap = spiked_edges(sign * 0.3, S**2)
        np.testing.assert_allclose(sign * top(sign * matrix, 1)[0][0], value, rtol=0.02)
        np.testing.assert_allclose(value, sign * 2 * S, rtol=1e-12)
        assert overlap == 0


def test_the_formulas_give_the_values_worked_out_by_hand():
    value, overlap = spiked_edges(SPIKES, S**2)
    np.testing.assert_allclose(value, [1.178, 1.667, 3.083, 6.042], atol=6e-4)
    np.testing.assert_allclose(overlap, [0.691, 0.889, 0.972, 0.993], atol=6e-4)
    np.testing.assert_allclose(
        spiked_covariance_edge(jnp.asarray([1.5, 4.0, 20.0]), 1.0, 3.0),
        [7.464, 8.0, 23.158],
        atol=5e-4,
    )


def test_without_noise_nothing_moves():
    lam = jnp.asarray([-2.0, 0.0, 1e-6, 3.0])
    value, overlap = spiked_edges(lam, 0.0)
    np.testing.assert_array_equal(value, lam)
    np.testing.assert_array_equal(overlap, [1, 0, 1, 1])
    np.testing.assert_allclose(spiked_covariance_edge(3.0, 1.0, 0.0), 3.0)


def test_a_large_spike_of_a_covariance_rises_by_the_trace_over_the_batch():
    edge = spiked_covariance_edge(1e6, 2.0, 1500 / 500)
    np.testing.assert_allclose(edge - 1e6, 2.0 * 1500 / 500, rtol=1e-4)


def test_both_formulas_are_continuous_at_their_threshold():
    value = spiked_edges(jnp.asarray([S - 1e-9, S + 1e-9]), S**2)[0]
    np.testing.assert_allclose(value[0], value[1], rtol=1e-8)
    ell = 1 + np.sqrt(3)
    edge = spiked_covariance_edge(jnp.asarray([ell - 1e-9, ell + 1e-9]), 1.0, 3.0)
    np.testing.assert_allclose(edge[0], edge[1], rtol=1e-8)


def test_derivatives_are_finite_on_both_sides_and_without_noise():
    grad = jax.jit(jax.vmap(jax.grad(lambda lam, s2: spiked_edges(lam, s2)[0], (0, 1))))
    lam = jnp.asarray([0.2, 2.0, -2.0, 0.0, 2.0])
    s2 = jnp.asarray([0.25, 0.25, 0.25, 0.0, 0.0])
    by_lam, by_s2 = grad(lam, s2)
    np.testing.assert_allclose(by_lam, [0, 1 - 1 / 16, 1 - 1 / 16, 0, 1], atol=1e-14)
    np.testing.assert_allclose(by_s2[:3], [2.0, 0.5, -0.5], atol=1e-14)
    assert np.all(np.isfinite(by_s2))
    assert spiked_edges(jnp.float32(1.0), 0.1)[0].dtype == jnp.float32


@pytest.mark.slow
def test_the_mean_of_twenty_draws_is_within_a_percent():
    values = np.mean([top(noisy(SPIKES, seed), 4)[0] for seed in range(20)], axis=0)
    np.testing.assert_allclose(values, spiked_edges(SPIKES, S**2)[0], rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("ell", [1.5, 4.0, 20.0])
def test_sample_covariances_have_the_edge_of_the_formula(ell):
    batch, draws = 500, []
    for seed in range(24):
        a = np.random.default_rng(seed).normal(size=(batch, P))
        a[:, 0] *= np.sqrt(ell)
        draws.append(svds(a, 1, tol=1e-3, return_singular_vectors=False)[0] ** 2 / batch)
    np.testing.assert_allclose(np.mean(draws), spiked_covariance_edge(ell, 1.0, 3.0), rtol=0.03)


@pytest.mark.bad_input
def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match=r"`s2`.*at least zero"):
        spiked_edges(1.0, -0.1)
    with pytest.raises(ValueError, match=r"`lam`.*finite"):
        spiked_edges(float("nan"), 0.1)
    with pytest.raises(ValueError, match=r"`sigma2`.*positive"):
        spiked_covariance_edge(1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"`gamma`.*at least zero"):
        spiked_covariance_edge(1.0, 1.0, -1.0)
