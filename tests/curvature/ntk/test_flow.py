import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate

from jaxsci.curvature import ntk

Y = jnp.array([1.0, 0.0, -1.0])
KERNEL = np.asarray([[2.1, 0.3, -0.4], [0.3, 1.2, 0.5], [-0.4, 0.5, 1.7]])
ACROSS = np.asarray([[0.5, 0.1, -0.2], [1.0, 0.3, 0.4]])


def square(f, y):
    return 0.5 * jnp.sum((f - y) ** 2)


@pytest.mark.parametrize("friction", [None, pytest.param(0.8, marks=pytest.mark.slow)])
def test_the_square_loss_is_solved_as_in_closed_form(friction):
    times = jnp.asarray([2.0, 0.0, 0.7])
    flow = ntk.gradient_flow(KERNEL, square, Y, rtol=1e-9, atol=1e-11)
    exact = ntk.gradient_descent_mse(KERNEL, Y)
    got, expected = (f(times, 0.2, 0.1, ACROSS, lr=0.6, friction=friction) for f in (flow, exact))
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.slow
def test_cross_entropy_is_that_of_a_linear_model_under_gradient_flow():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    labels = np.asarray([0, 1, 2, 1])

    def loss(f, labels):
        return optax.softmax_cross_entropy_with_integer_labels(f, labels).sum()

    # f = W x has the kernel x.x' on every output.
    def field(_, flat):
        f = np.asarray(x) @ flat.reshape(3, 3).T
        p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
        return -((p - np.eye(3)[labels]).T @ x).ravel()

    weights = scipy.integrate.solve_ivp(field, (0, 1.5), np.zeros(9), rtol=1e-10, atol=1e-12)
    weights = weights.y[:, -1].reshape(3, 3)
    flow = ntk.gradient_flow(x @ x.T, loss, labels, output_shape=(3,), rtol=1e-9, atol=1e-11)
    points = 2 * jnp.eye(3)
    train, other = flow(1.5, 0.0, 0.0, points @ x.T)
    np.testing.assert_allclose(train, x @ weights.T, atol=1e-7)
    np.testing.assert_allclose(other, points @ weights.T, atol=1e-7)


@pytest.mark.slow
def test_the_prediction_is_differentiable_under_jit():
    def outcome(lr):
        return ntk.gradient_flow(KERNEL, square, Y)(1.0, lr=lr).sum()

    exact = lambda lr: ntk.gradient_descent_mse(KERNEL, Y)(1.0, lr=lr).sum()
    np.testing.assert_allclose(jax.jit(jax.grad(outcome))(0.6), jax.grad(exact)(0.6), rtol=1e-4)


def test_too_few_steps_raise_outside_of_jit():
    flow = ntk.gradient_flow(1e6 * KERNEL, square, Y, max_steps=20)
    with pytest.raises(RuntimeError, match="not reached in 20 steps"):
        flow(10.0)


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    flow = ntk.gradient_flow(jnp.asarray(KERNEL), square, Y)
    with pytest.raises(ValueError, match="`t` must be at least zero"):
        flow(-1.0)
    with pytest.raises(ValueError, match="`t` must be a scalar or have one axis"):
        flow(jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="`ntk_tt` must be positive semidefinite"):
        ntk.gradient_flow(-jnp.asarray(KERNEL), square, Y)
