import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import ntk

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (5, 3))
Y = jax.random.normal(jax.random.key(1), (5, 2))


def fn(params, x):
    return params["v"] @ jnp.tanh(params["w"] @ x)


def init(key):
    return {"w": jax.random.normal(key, (4, 3)), "v": jax.random.normal(key, (2, 4))}


def test_the_linearised_model_is_the_first_order_taylor_polynomial():
    start, step = init(KEY), init(jax.random.key(2))
    linear = ntk.linearize(fn, start)
    moved = jax.tree.map(lambda p, s: p + 0.1 * s, start, step)
    jacobian = jax.jacrev(fn)(start, X[0])
    expected = fn(start, X[0])
    for name in ("w", "v"):
        expected = expected + 0.1 * jnp.tensordot(jacobian[name], step[name], 2)
    np.testing.assert_allclose(linear(moved, X[0]), expected, rtol=1e-12)
    np.testing.assert_allclose(linear(start, X[0]), fn(start, X[0]), rtol=1e-15)


def test_an_equinox_module_can_be_linearised():
    model = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
    linear = ntk.linearize(lambda m, x: m(x), model)
    np.testing.assert_allclose(linear(model, X[0]), model(X[0]), rtol=1e-15)


@pytest.mark.parametrize("reduction", ["sum", pytest.param("mean", marks=pytest.mark.slow)])
def test_training_the_linearised_model_follows_the_closed_form(reduction):
    lr, other = 0.02 if reduction == "sum" else 0.2, jnp.ones((1, 3))
    outputs = jax.vmap(fn, (None, 0))

    @jax.jit
    def both(start):
        moved = ntk.linearized_training(fn, start, X, Y, lr=lr, num_steps=20, reduction=reduction)
        linear = jax.vmap(ntk.linearize(fn, start), (None, 0))
        kernel = ntk.empirical_ntk(fn, start, jnp.concatenate([X, other]), X, method="jacobian")
        predict = ntk.gradient_descent_mse(kernel[:5], Y, reduction)
        closed = predict(
            20, outputs(start, X), outputs(start, other), kernel[5:], discrete=True, lr=lr
        )
        return (linear(moved, X), linear(moved, other)), closed

    trained, closed = both(init(KEY))
    for a, b in zip(trained, closed):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_a_model_linear_in_its_parameters_is_trained_exactly_at_every_step():
    theta, lr = jnp.asarray([0.3, -0.2, 0.5]), 0.05
    y, model = Y[:, 0], lambda p, x: p @ x
    kernel = ntk.empirical_ntk(model, theta, X, method="jacobian")
    predict = ntk.gradient_descent_mse(kernel, y)
    f0, test = X @ theta, jnp.eye(3)
    steps = jnp.arange(11)
    train_path, test_path = predict(steps, f0, test @ theta, test @ X.T, discrete=True, lr=lr)
    for t in range(11):
        np.testing.assert_allclose(train_path[t], X @ theta, atol=1e-12)
        np.testing.assert_allclose(test_path[t], test @ theta, atol=1e-12)
        theta = theta - lr * X.T @ (X @ theta - y)


@pytest.mark.slow
def test_wide_networks_stay_near_their_linearisation_in_training():
    angles = jnp.linspace(0, 2 * jnp.pi, 4, endpoint=False)
    x = jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
    y = jnp.asarray([1.0, -0.5, 0.3, 0.2])

    def model(p, x):
        hidden = jax.scipy.special.erf(p["w"] @ x / np.sqrt(2) + 0.1 * p["b"])
        return p["v"] @ hidden / np.sqrt(p["v"].size)

    def errors(width, seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        shapes = {"w": (width, 2), "b": (width,), "v": (width,)}
        start = {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items())}
        outputs = lambda p: jax.vmap(model, (None, 0))(p, x)
        loss = lambda p: 0.5 * jnp.sum((outputs(p) - y) ** 2)

        @jax.jit
        def train(p):
            step = lambda p, _: (
                jax.tree.map(lambda a, g: a - 0.05 * g, p, jax.grad(loss)(p)),
                None,
            )
            return jax.lax.scan(step, p, None, length=200)[0]

        end, kernel = train(start), ntk.empirical_ntk(model, start, x)
        predicted = ntk.gradient_descent_mse(kernel, y)(200, outputs(start), discrete=True, lr=0.05)
        after = ntk.empirical_ntk(model, end, x)
        drift = jnp.linalg.norm(after - kernel) / jnp.linalg.norm(kernel)
        return float(jnp.max(jnp.abs(predicted - outputs(end)))), float(drift)

    widths = (256, 1024, 4096)
    rows = [np.mean([errors(w, seed) for seed in range(4)], axis=0) for w in widths]
    slopes = np.polyfit(np.log(widths), np.log(rows), 1)[0]
    assert np.all(slopes < -0.4)
    assert np.all(rows[-1] < 0.01)


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`y` must have the shape of the outputs, \(5, 2\)"):
        ntk.linearized_training(fn, init(KEY), X, Y[:, :1], lr=0.1, num_steps=1)
    with pytest.raises(ValueError, match="`reduction` must be one of 'sum', 'mean'"):
        ntk.linearized_training(fn, init(KEY), X, Y, lr=0.1, num_steps=1, reduction="none")
