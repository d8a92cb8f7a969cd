import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxsci.curvature import ntk

TRAIN = jnp.array([[1, 2, -1], [0.5, -0.3, 2], [0, 1, 1]])
TEST = jnp.array([[0.2, 0.4, 0.1], [1.0, -1.0, 0.5]])
Y = jnp.array([1.0, 0.0, -1.0])


@functools.cache
def erf_kernels():
    """Kernels among all points, the training points first."""
    both = ntk.mlp_kernels(jnp.concatenate([TRAIN, TEST]), depth=2, activation="erf")
    tt, st = (ntk.Kernels(*(k[rows, :3] for k in both)) for rows in (slice(3), slice(3, 5)))
    return both, tt, st, both.nngp[3:, 3:]


def law(t, rate=1.0):
    """Mean and covariance of f_t = A f_0 + c for the joint Gaussian f_0, on all five points."""
    both, tt, *_ = erf_kernels()
    tangent, prior = np.asarray(both.ntk), np.asarray(both.nngp)
    filtered = np.linalg.solve(
        tt.ntk, np.eye(3) - scipy.linalg.expm(-rate * t * np.asarray(tt.ntk))
    )
    gain = tangent[:, :3] @ filtered
    change = np.eye(5) - gain @ np.eye(3, 5)
    return gain @ np.asarray(Y), change @ prior @ change.T


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_outputs_stay_gaussian_with_the_law_of_the_linear_map(reduction):
    _, tt, st, ss = erf_kernels()
    rate = 0.6 if reduction == "sum" else 0.6 / 3
    times = jnp.asarray([0.4, 3.0])
    at_test = ntk.ensemble(tt, Y, st, ss, reduction)(times, lr=0.6)
    at_train = ntk.ensemble(tt, Y, reduction=reduction)(times, lr=0.6)
    for i, t in enumerate(times):
        mean, covariance = law(t, rate)
        np.testing.assert_allclose(at_test.mean[i], mean[3:], atol=1e-12)
        np.testing.assert_allclose(at_test.covariance[i], covariance[3:, 3:], atol=1e-12)
        np.testing.assert_allclose(at_train.mean[i], mean[:3], atol=1e-12)
        np.testing.assert_allclose(at_train.covariance[i], covariance[:3, :3], atol=1e-12)


def test_training_begins_at_the_prior_and_ends_certain_on_the_training_points():
    _, tt, st, ss = erf_kernels()
    predict = ntk.ensemble(tt, Y, st, ss)
    np.testing.assert_allclose(predict(0.0).mean, 0, atol=1e-15)
    np.testing.assert_allclose(predict(0.0).covariance, ss, rtol=1e-14)
    np.testing.assert_allclose(
        predict(jnp.inf).mean, st.ntk @ np.linalg.solve(tt.ntk, Y), rtol=1e-10
    )
    end = ntk.ensemble(tt, Y)(jnp.inf)
    np.testing.assert_allclose(end.mean, Y, atol=1e-12)
    np.testing.assert_allclose(end.covariance, 0, atol=1e-12)


def test_descent_by_steps_is_the_linear_map_of_the_steps():
    _, tt, *_ = erf_kernels()
    got = ntk.ensemble(tt, Y)(5, discrete=True, lr=0.1)
    power = np.linalg.matrix_power(np.eye(3) - 0.1 * np.asarray(tt.ntk), 5)
    np.testing.assert_allclose(got.mean, Y - power @ Y, rtol=1e-12)
    np.testing.assert_allclose(got.covariance, power @ tt.nngp @ power.T, atol=1e-13)


def test_every_output_of_many_has_the_same_covariance():
    _, tt, st, ss = erf_kernels()
    two = ntk.ensemble(tt, jnp.stack([Y, 2 * Y], 1), st, ss)(1.0)
    one = ntk.ensemble(tt, Y, st, ss)(1.0)
    np.testing.assert_allclose(two.mean, jnp.stack([one.mean, 2 * one.mean], 1), rtol=1e-12)
    np.testing.assert_allclose(two.covariance, one.covariance, rtol=1e-12)


def test_an_ensemble_passes_through_jit():
    _, tt, st, ss = erf_kernels()
    build = jax.jit(lambda tt, st, ss: ntk.ensemble(tt, Y, st, ss)(1.0).covariance)
    np.testing.assert_allclose(
        build(tt, st, ss), ntk.ensemble(tt, Y, st, ss)(1.0).covariance, rtol=1e-10
    )


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    _, tt, st, ss = erf_kernels()
    with pytest.raises(ValueError, match="belong together"):
        ntk.ensemble(tt, Y, st)
    with pytest.raises(ValueError, match="`kernels_st` must have 3 columns"):
        ntk.ensemble(tt, Y, ntk.Kernels(st.nngp.T, st.ntk.T), ss)
    with pytest.raises(ValueError, match="`t` must be at least zero"):
        ntk.ensemble(tt, Y)(-1.0)
