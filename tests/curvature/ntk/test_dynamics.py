import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

from jaxsci.curvature import ntk

X = jnp.array([[1, 2, -1], [0.5, -0.3, 2], [0, 1, 1]])
Y = jnp.array([1.0, 0.0, -1.0])
KERNEL = np.asarray([[2.1, 0.3, -0.4], [0.3, 1.2, 0.5], [-0.4, 0.5, 1.7]])
ACROSS = np.asarray([[0.5, 0.1, -0.2], [1.0, 0.3, 0.4]])


@functools.cache
def erf_kernel():
    return ntk.mlp_kernels(X, depth=2, activation="erf").ntk


def simulated(kernel, y, f0, steps, lr, momentum=0.0, ridge=0.0):
    """Coefficients a of f = f0 + T a under descent with momentum, step by step."""
    a, v = np.zeros(len(y)), np.zeros(len(y))
    for _ in range(steps):
        v = momentum * v - lr * (f0 + kernel @ a - y + ridge * a)
        a = a + v
    return a


def test_published_values_are_reproduced():
    total, mean = (ntk.gradient_descent_mse(erf_kernel(), Y, r)(3.0) for r in ("sum", "mean"))
    np.testing.assert_allclose(total, (0.83651837, -0.24141284, -0.68041182), atol=6e-9)
    np.testing.assert_allclose(mean, (0.60131989, -0.35222675, -0.37176286), atol=6e-9)


def test_gradient_flow_is_a_matrix_exponential_and_lr_and_time_trade():
    f0, test = np.asarray([0.2, -0.1, 0.4]), np.asarray([0.3, 0.7])
    times = jnp.asarray([0.0, 0.4, 2.5])
    train, other = ntk.gradient_descent_mse(KERNEL, Y)(times / 0.7, f0, test, ACROSS, lr=0.7)
    y = np.asarray(Y)
    for i, t in enumerate(times):
        decay = scipy.linalg.expm(-KERNEL * t)
        np.testing.assert_allclose(train[i], y + decay @ (f0 - y), rtol=1e-12)
        gain = ACROSS @ np.linalg.solve(KERNEL, np.eye(3) - decay)
        np.testing.assert_allclose(other[i], test - gain @ (f0 - y), rtol=1e-12)


def test_training_starts_at_the_initial_values_and_ends_in_kernel_regression():
    predict = ntk.gradient_descent_mse(KERNEL, Y)
    f0, test = jnp.asarray([0.2, -0.1, 0.4]), jnp.asarray([0.3, 0.7])
    start, start_test = predict(0.0, f0, test, ACROSS)
    np.testing.assert_allclose(start, f0, rtol=1e-15)
    np.testing.assert_allclose(start_test, test, rtol=1e-15)
    for forever in (1e4, jnp.inf):
        end, end_test = predict(forever, f0, test, ACROSS)
        np.testing.assert_allclose(end, Y, atol=1e-14)
        regression = test + ACROSS @ np.linalg.solve(KERNEL, Y - f0)
        np.testing.assert_allclose(end_test, regression, rtol=1e-12)


def test_a_singular_kernel_is_never_inverted():
    factor = np.asarray([[1.0, 0.5], [2.0, 1.0], [0.0, 1.0]])
    predict = ntk.gradient_descent_mse(factor @ factor.T, Y)
    weights = np.ones((1, 2))
    for t in (jnp.inf, 1e9):
        train, other = predict(t, 0.0, 0.0, weights @ factor.T)
        best = np.linalg.lstsq(factor, np.asarray(Y), rcond=None)[0]
        np.testing.assert_allclose(train, factor @ best, atol=1e-6)
        np.testing.assert_allclose(other, weights @ best, atol=1e-6)


def test_a_ridge_ends_in_kernel_ridge_regression_on_both_sets_of_points():
    predict = ntk.gradient_descent_mse(KERNEL, Y, ridge=0.3)
    train, other = predict(jnp.inf, 0.0, 0.0, ACROSS)
    coefficients = np.linalg.solve(KERNEL + 0.3 * np.eye(3), Y)
    np.testing.assert_allclose(train, KERNEL @ coefficients, rtol=1e-12)
    np.testing.assert_allclose(other, ACROSS @ coefficients, rtol=1e-12)
    early, at_train = predict(0.8, 0.1, 0.1, KERNEL)
    np.testing.assert_allclose(early, at_train, rtol=1e-12)


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_descent_is_what_a_loop_over_the_steps_does(momentum, ridge):
    f0 = np.asarray([0.2, -0.1, 0.4])
    steps = [0, 1, 4, 7]
    # With rate 0.8 the factor 1 - lr w of the largest eigenvalue is negative.
    for lr in (0.05, 0.8):
        predict = ntk.gradient_descent_mse(KERNEL, Y, ridge=ridge)
        train, other = predict(jnp.asarray(steps), f0, 0.1, ACROSS, True, lr, momentum=momentum)
        for i, n in enumerate(steps):
            a = simulated(KERNEL, np.asarray(Y), f0, n, lr, momentum or 0.0, ridge)
            np.testing.assert_allclose(train[i], f0 + KERNEL @ a, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(other[i], 0.1 + ACROSS @ a, rtol=1e-11, atol=1e-12)


def test_descent_without_momentum_diverges_from_two_over_the_largest_eigenvalue():
    predict = ntk.gradient_descent_mse(KERNEL, Y, "mean")
    limit = predict.max_learning_rate()
    np.testing.assert_allclose(limit, 3 * 2 / np.linalg.eigvalsh(KERNEL)[-1])
    below, above = (predict(500, discrete=True, lr=f * limit) for f in (0.99, 1.01))
    assert jnp.max(jnp.abs(below - Y)) < 1e-3 < 1e3 < jnp.max(jnp.abs(above - Y))


@pytest.mark.parametrize("friction", [0.5, pytest.param(6.0, marks=pytest.mark.slow)])
def test_the_heavy_ball_solves_its_second_order_equation(friction):
    y, kernel = np.asarray(Y), KERNEL

    def field(_, state):
        f, v = state[:3], state[3:]
        return np.concatenate([v, -friction * v - kernel @ (f - y)])

    times = [0.3, 2.0]
    exact = (
        scipy.integrate.solve_ivp(field, (0, 2), np.zeros(6), t_eval=times, rtol=1e-11, atol=1e-12)
        .y[:3]
        .T
    )
    got = ntk.gradient_descent_mse(kernel, Y)(jnp.asarray(times), friction=friction)
    np.testing.assert_allclose(got, exact, atol=1e-8)


def test_the_heavy_ball_is_accurate_on_modes_that_hardly_move():
    small = np.diag([1e-13, 1.0])
    across = np.asarray([[1.0, 0.0]])
    y = jnp.asarray([1.0, 0.0])
    for friction in (0.0, 2.0):
        _, other = ntk.gradient_descent_mse(small, y)(3.0, 0.0, 0.0, across, friction=friction)
        z = friction * 3.0
        expected = 4.5 if friction == 0 else 9 * (z - 1 + np.exp(-z)) / z**2
        np.testing.assert_allclose(other, [expected], rtol=1e-7)


def test_kernels_over_outputs_and_kernels_shared_by_outputs_agree():
    y = jnp.stack([Y, 2 * Y + 1], 1)
    shared = ntk.gradient_descent_mse(KERNEL, y)(1.3, 0.1, 0.2, ACROSS)
    full = lambda k: jnp.einsum("nm,ij->nmij", k, jnp.eye(2))
    spread = ntk.gradient_descent_mse(full(KERNEL), y)(1.3, 0.1, 0.2, full(ACROSS))
    for a, b in zip(shared, spread):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    mixing = np.asarray([[1.0, 0.4], [0.4, 2.0]])
    joint = ntk.gradient_descent_mse(jnp.einsum("nm,ij->nmij", KERNEL, mixing), y)(1.3)
    decay = scipy.linalg.expm(-1.3 * np.kron(KERNEL, mixing))
    np.testing.assert_allclose(joint.ravel(), y.ravel() - decay @ y.ravel(), rtol=1e-11)


def test_the_effective_dimension_counts_the_modes_learned():
    w = np.linalg.eigvalsh(KERNEL)
    times = jnp.asarray([0.0, 0.5, jnp.inf])
    dimension = ntk.effective_dim(KERNEL, times, lr=0.3)
    np.testing.assert_allclose(dimension, [0, np.sum(1 - np.exp(-0.15 * w)), 3], rtol=1e-12)
    ridged = ntk.gradient_descent_mse(KERNEL, Y, ridge=0.3).effective_dim(jnp.inf)
    np.testing.assert_allclose(ridged, np.sum(w / (w + 0.3)), rtol=1e-12)


def test_derivatives_in_the_kernel_are_finite_and_right_where_eigenvalues_coincide():
    direction = np.asarray([[0.3, 0.5, -0.2], [0.5, 1.0, 0.4], [-0.2, 0.4, -0.6]])

    def outcome(s):
        predict = ntk.gradient_descent_mse(2 * jnp.eye(3) + s * direction, Y)
        train, other = predict(0.7, 0.1, 0.0, ACROSS)
        return jnp.concatenate([train, other, predict.effective_dim(0.7)[None]])

    def by_exponential(s):
        kernel = 2 * np.eye(3) + s * direction
        decay = scipy.linalg.expm(-0.7 * kernel)
        residual = 0.1 - np.asarray(Y)
        gain = ACROSS @ np.linalg.solve(kernel, np.eye(3) - decay)
        return np.concatenate([Y + decay @ residual, -gain @ residual, [3 - np.trace(decay)]])

    h = 1e-5
    difference = (by_exponential(h) - by_exponential(-h)) / (2 * h)
    forward = jax.jit(jax.jacfwd(outcome))(0.0)
    np.testing.assert_allclose(forward, difference, atol=1e-9)
    weights = jnp.arange(1.0, 7.0)
    reverse = jax.jit(jax.grad(lambda s: weights @ outcome(s)))(0.0)
    np.testing.assert_allclose(reverse, weights @ difference, atol=1e-8)


def test_times_rates_and_ridges_are_differentiable():
    def outcome(t, lr, ridge):
        return ntk.gradient_descent_mse(KERNEL, Y, ridge=ridge)(t, lr=lr).sum()

    point, h = (0.8, 0.5, 0.2), 1e-6
    gradient = jax.jit(jax.grad(outcome, argnums=(0, 1, 2)))(*point)
    for i in range(3):
        up, down = (outcome(*(p + s * h * (i == j) for j, p in enumerate(point))) for s in (1, -1))
        np.testing.assert_allclose(gradient[i], (up - down) / (2 * h), rtol=1e-7)


def test_float32_stays_float32():
    kernel, y = jnp.asarray(KERNEL, jnp.float32), Y.astype(jnp.float32)
    for options in ({}, {"discrete": True}):
        assert ntk.gradient_descent_mse(kernel, y)(3, lr=0.1, **options).dtype == jnp.float32


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    asymmetric = KERNEL + np.triu(np.ones((3, 3)), 1)
    for kernel, y, message in (
        (asymmetric, Y, "`ntk_tt` must be symmetric"),
        (KERNEL - 3 * np.eye(3), Y, "smallest eigenvalue of -"),
        (KERNEL, Y[:2], "`ntk_tt` must have 2 columns"),
        (np.zeros((3, 3, 2, 3)), jnp.zeros((3, 2)), "`ntk_tt` must have shape"),
        (KERNEL * np.nan, Y, "`ntk_tt` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            ntk.gradient_descent_mse(jnp.asarray(kernel), y)
    with pytest.raises(ValueError, match="`reduction` must be one of"):
        ntk.gradient_descent_mse(KERNEL, Y, "max")
    with pytest.raises(ValueError, match="`ridge` must be at least zero"):
        ntk.gradient_descent_mse(KERNEL, Y, ridge=-1.0)
    predict = ntk.gradient_descent_mse(jnp.asarray(KERNEL), Y)
    for arguments, options, message in (
        ((-1.0,), {}, "`t` must be at least zero"),
        ((1.5,), {"discrete": True}, "`t` must count steps"),
        ((1.0, jnp.zeros(2)), {}, r"`f0_train` must have shape \(3,\)"),
        ((1.0, 0.0, 0.0), {}, "`f0_test` needs `ntk_st`"),
        ((1.0, 0.0, 0.0, jnp.zeros((2, 4))), {}, "`ntk_st` must have 3 columns"),
        ((1.0,), {"momentum": 0.9}, "`momentum` belongs to `discrete=True`"),
        ((1.0,), {"discrete": True, "friction": 0.9}, "`friction` belongs to continuous time"),
        ((1.0,), {"lr": -1.0}, "`lr` must be at least zero"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(*arguments, **options)
