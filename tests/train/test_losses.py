import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import train


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_losses_equal_numpy_and_keep_the_precision(dtype):
    rng = np.random.default_rng(0)
    pred, true = (rng.normal(size=(3, 4)) + 1j * rng.normal(size=(3, 4)) for _ in range(2))
    if not np.issubdtype(dtype, np.complexfloating):
        pred, true = pred.real, true.real
    pred, true = pred.astype(dtype), true.astype(dtype)
    tolerance = 20 * np.finfo(dtype).eps
    mse, relative = (
        f(jnp.asarray(pred), jnp.asarray(true)) for f in (train.mse, train.relative_l2)
    )
    assert mse.dtype == relative.dtype == np.finfo(dtype).dtype
    np.testing.assert_allclose(mse, np.mean(np.abs(pred - true) ** 2), rtol=tolerance)
    expected = np.linalg.norm(pred - true) / np.linalg.norm(true)
    np.testing.assert_allclose(relative, expected, rtol=tolerance)


def test_relative_l2_does_not_depend_on_the_scale_of_the_fields():
    pred, true = jnp.array([1.0, 2.0, 3.0], jnp.float32), jnp.array([1.0, 2.0, 4.0], jnp.float32)
    for scale in (1e-30, 1e30):
        s = jnp.float32(scale)
        np.testing.assert_allclose(train.relative_l2(s * pred, s * true), 21**-0.5, rtol=1e-6)


def test_relative_l2_at_zero_truth_is_infinite_or_zero():
    zero, one = jnp.zeros(3), jnp.ones(3)
    assert train.relative_l2(one, zero) == jnp.inf
    assert train.relative_l2(zero, zero) == 0


@pytest.mark.parametrize("pred", [jnp.array([1.0, -2.0]), jnp.array([1.5, -1.0])])
def test_relative_l2_has_the_gradient_of_a_norm_and_zero_at_the_truth(pred):
    true = jnp.array([1.0, -2.0])
    error = pred - true
    norm = jnp.linalg.norm(error)
    expected = jnp.where(norm > 0, error / jnp.where(norm > 0, norm, 1), 0) / 5**0.5
    np.testing.assert_allclose(jax.grad(train.relative_l2)(pred, true), expected, atol=1e-15)
    jvp = jax.jvp(lambda p: train.relative_l2(p, true), (pred,), (jnp.ones(2),))[1]
    np.testing.assert_allclose(jvp, jnp.sum(expected), atol=1e-15)


def test_relative_l2_has_the_gradient_in_the_truth():
    pred, true = jnp.array([1.0, 2.0, 0.5]), jnp.array([0.5, -3.0, 1.0])
    expected = jax.grad(lambda t: jnp.linalg.norm(pred - t) / jnp.linalg.norm(t))(true)
    np.testing.assert_allclose(jax.grad(train.relative_l2, 1)(pred, true), expected, rtol=1e-13)


def test_half_precision_is_summed_in_float32():
    pred, true = jnp.full(4096, 300, jnp.float16), jnp.full(4096, 200, jnp.float16)
    assert train.mse(pred, true).dtype == jnp.float32
    np.testing.assert_allclose(train.mse(pred, true), 1e4)
    np.testing.assert_allclose(train.relative_l2(pred, true), 0.5, rtol=1e-6)


def test_supervised_is_the_mean_over_samples_of_the_metric():
    x = jnp.arange(1.0, 7).reshape(3, 2)
    loss = train.supervised(train.relative_l2)
    value = jax.jit(loss, static_argnums=0)(lambda u: 2 * u[::-1], (x, x), jax.random.key(0))
    rows = np.asarray(x)
    errors = np.linalg.norm(2 * rows[:, ::-1] - rows, axis=1) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(value, errors.mean(), rtol=1e-14)


@pytest.mark.bad_input
@pytest.mark.parametrize("loss", [train.mse, train.relative_l2])
def test_shapes_that_differ_are_not_broadcast(loss):
    with pytest.raises(ValueError, match=r"`pred` and `true` must have the same shape.*\(3,\)"):
        loss(jnp.ones((3, 1)), jnp.ones(3))


def test_a_likelihood_loss_is_the_mean_over_samples_and_shows_its_parts():
    x, y = jnp.asarray([[1.0, 2.0], [0.5, -1.0]]), jnp.asarray([1, 0])
    loss = train.likelihood_loss("softmax")
    w = jnp.asarray([[0.3, -0.2], [0.1, 0.4]])
    model = jax.tree_util.Partial(jnp.matmul, w)
    logits = np.asarray(x @ w.T)
    want = np.mean(np.log(np.sum(np.exp(logits), 1)) - logits[[0, 1], [1, 0]])
    key = jax.random.key(0)
    np.testing.assert_allclose(loss(model, (x, y), key), want, rtol=1e-12)
    np.testing.assert_allclose(loss.objective((x, y), key)(model), want, rtol=1e-12)
