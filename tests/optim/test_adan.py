import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci.optim import adan, proximal_decay, scale_by_adan, ScaleByAdanState

A = np.array([[1.0, 0.5, 0.0], [0.5, 4.0, 0.0], [0.0, 0.0, 25.0]])
B = np.array([1.0, -2.0, 3.0])
X0 = np.array([1.0, -1.0, 0.5])


def quadratic(x):
    return 0.5 * x @ A @ x - B @ x


def gradient(x):
    return A @ x - B


def trajectory(tx: Any, steps, x=X0, grad=lambda x: A @ x - B):
    """All points of a run, the first included."""

    def step(carry, _):
        x, state = carry
        u, state = tx.update(grad(x), state, x)
        x = optax.apply_updates(x, u)
        return (x, state), x

    @jax.jit
    def run(x):
        return jax.lax.scan(step, (x, tx.init(x)), length=steps)[1]

    return np.concatenate([[x], run(jnp.asarray(x))])


def reference(x, steps, lr, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, wd=0.0, restart=None, radius=None):
    """The algorithm, line by line in NumPy; the restarts it took."""
    m = v = n = np.zeros_like(x)
    t, path, taken, points = 0, 0.0, [], [x]
    g_prev, length = x, 0.0
    for k in range(steps):
        if radius is not None and t > 0:
            path += length
        if (restart and t == restart) or (radius is not None and t * path > radius**2):
            m = v = n = np.zeros_like(x)
            t, path = 0, 0.0
            taken.append(k)
        g = gradient(x)
        d = np.zeros_like(g) if t == 0 else g - g_prev
        g_prev, t = g, t + 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * (g + b2 * d) ** 2
        root = np.sqrt(n / (1 - b3**t)) + eps
        u = (m / (1 - b1**t) + b2 * v / (1 - b2**t)) / root
        new = (x - lr * u) / (1 + lr * wd)
        length = np.sum((new - x) ** 2 * root)
        x = new
        points.append(x)
    return np.stack(points), taken


@functools.cache
def default_run():
    return trajectory(adan(0.02), 50)


@pytest.mark.parametrize(
    ("step", "want"),
    [
        (2, (1.0399380688344424, -0.9600619306180186, 0.460049748265405)),
        (10, (1.1967922182818334, -0.8032077786000197, 0.3024124065347579)),
        (50, (1.4177033757672717, -0.582296625871398, -0.007837416105888523)),
    ],
)
def test_it_takes_the_steps_of_the_authors_code(step, want):
    np.testing.assert_allclose(default_run()[step], want, rtol=0, atol=1e-12)


def test_it_differs_from_optax_which_weighs_the_difference_by_one_minus_b2():
    theirs = trajectory(optax.adan(0.02, eps_root=0.0), 50)
    np.testing.assert_allclose(theirs[50], (1.4263, -0.5737, -0.0190), atol=1e-4)
    assert np.abs(theirs[50] - default_run()[50]).max() > 5e-3


def test_the_first_step_has_the_length_of_the_learning_rate_in_every_coordinate():
    g = gradient(X0)
    np.testing.assert_allclose(default_run()[1] - X0, -0.02 * g / (np.abs(g) + 1e-8), rtol=1e-12)


def test_a_constant_gradient_gives_its_sign_for_ever():
    c = jnp.array([3.0, -0.2, 1e-3])
    moved = np.diff(trajectory(adan(0.01), 20, grad=lambda x: c), axis=0)
    np.testing.assert_allclose(moved, np.tile(-0.01 * np.sign(c), (20, 1)), rtol=1e-4)
    adam = np.diff(trajectory(optax.adam(0.01), 20, grad=lambda x: c), axis=0)
    np.testing.assert_allclose(moved, adam, rtol=1e-7)


def test_without_difference_it_is_adam():
    ours = trajectory(adan(0.02, b1=0.9, b2=0.0, b3=0.95), 30)
    np.testing.assert_allclose(ours, trajectory(optax.adam(0.02, 0.9, 0.95), 30), atol=1e-12)


def test_scaling_the_loss_changes_nothing_when_eps_is_zero():
    scaled = trajectory(adan(0.02, eps=0.0), 50, grad=lambda x: 1e3 * (A @ x - B))
    np.testing.assert_allclose(scaled, trajectory(adan(0.02, eps=0.0), 50), atol=1e-10)


def test_a_zero_gradient_takes_no_step_even_when_eps_is_zero():
    moved = trajectory(adan(0.02, eps=0.0), 3, grad=lambda x: jnp.zeros(3))
    np.testing.assert_array_equal(moved[-1], X0)


def test_options_follow_the_algorithm_written_out():
    want, _ = reference(X0, 30, 0.05, b1=0.9, b2=0.7, b3=0.8, eps=1e-3, wd=0.3)
    got = trajectory(adan(0.05, 0.9, 0.7, 0.8, 1e-3, weight_decay=0.3), 30)
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_after_a_restart_it_runs_like_a_fresh_optimizer():
    run = trajectory(adan(0.02, restart_every=7), 14)
    np.testing.assert_array_equal(run[:8], default_run()[:8])
    np.testing.assert_array_equal(run[7:], trajectory(adan(0.02), 7, run[7]))


def test_the_restart_condition_is_that_of_the_paper():
    want, taken = reference(X0, 60, 0.05, radius=0.3)
    assert 2 <= len(taken) <= 20  # the radius separates
    assert min(np.diff(taken)) > 1
    got = trajectory(adan(0.05, restart_radius=0.3), 60)
    np.testing.assert_allclose(got, want, atol=1e-11)


def test_both_kinds_of_restart_combine():
    want, _ = reference(X0, 30, 0.05, restart=4, radius=0.3)
    got = trajectory(adan(0.05, restart_radius=0.3, restart_every=4), 30)
    np.testing.assert_allclose(got, want, atol=1e-11)


def test_proximal_and_adamw_decay_agree_to_second_order():
    x, u = jnp.array([2.0, -3.0]), jnp.array([0.1, 0.2])

    def gap(rate):
        tx = proximal_decay(rate, 1.0)
        # AdamW's step: x - u - rate x, with -u the update.
        return np.abs(tx.update(-rate * u, tx.init(x), x)[0] - (-rate * u - rate * x)).max()

    assert gap(1e-2) < 4e-4
    np.testing.assert_allclose(gap(1e-2) / gap(1e-3), 100, rtol=0.02)


def test_proximal_decay_shrinks_and_never_flips_a_sign():
    x = jnp.array([2.0, -3.0, 0.0])
    tx: Any = proximal_decay(10.0, 100.0)
    moved = x + tx.update(jnp.zeros(3), tx.init(x), x)[0]
    np.testing.assert_allclose(moved, x / 1001, atol=1e-14)
    adamw: Any = adan(10.0, weight_decay=100.0, proximal=False)
    overshoot = x + adamw.update(jnp.zeros(3), adamw.init(x), x)[0]
    np.testing.assert_allclose(overshoot, x * (1 - 1000), rtol=1e-12)


def test_decay_follows_both_schedules():
    lr, wd = lambda t: 0.1 / (1.0 + t), lambda t: 1.0 + t
    tx: Any = proximal_decay(lr, wd)
    x, u = jnp.array([2.0]), jnp.array([0.3])
    state = tx.init(x)
    for t in range(3):
        got, state = tx.update(u, state, x)
        rate = lr(t) * wd(t)
        np.testing.assert_allclose(x + got, (x + u) / (1 + rate), rtol=1e-14)


def test_the_step_and_its_decay_see_the_same_schedule():
    schedule: Any = optax.linear_schedule(0.1, 0.0, 4)
    tx: Any = adan(schedule, weight_decay=0.5)
    x = jnp.array([2.0, -1.0])
    state = tx.init(x)
    for t in range(6):
        u, state = tx.update(jnp.array([1.0, -1.0]), state, x)
        rate = float(schedule(t))
        want = (x - rate * jnp.array([1.0, -1.0])) / (1 + 0.5 * rate)
        x = x + u
        np.testing.assert_allclose(x, want, atol=1e-7)


@pytest.mark.parametrize("proximal", [True, False])
def test_leaves_without_decay_get_exactly_the_update_without_decay(proximal):
    p = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    g = jax.tree.map(lambda x: 0.3 * x, p)
    mask = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
    plain: Any = adan(0.1)
    masked: Any = adan(0.1, weight_decay=0.2, weight_decay_mask=mask, proximal=proximal)
    given: Any = adan(0.1, weight_decay=0.2, weight_decay_mask=mask(p), proximal=proximal)
    want, _ = plain.update(g, plain.init(p), p)
    for tx in (masked, given):
        got, _ = tx.update(g, tx.init(p), p)
        np.testing.assert_array_equal(got["b"], want["b"])
        assert np.all(got["w"] < want["w"])


def test_its_momentum_alone_visits_the_look_ahead_points_of_nesterov():
    b, eta, steps, large = 0.9, 0.01, 40, 1e15
    x, m, points = X0, np.zeros(3), []
    for _ in range(steps):
        y = x - eta * b * m
        points.append(y)
        m = b * m + gradient(y)
        x = x - eta * m
    # A huge eps switches the normalisation off, the schedule undoes the bias correction, and one
    # gradient of zero beforehand makes the first difference the first gradient.
    lr = lambda t: eta * large * (1 - b ** (t + 1)) / (1 - b)
    tx: Any = optax.chain(scale_by_adan(b, b, 0.5, large), optax.scale_by_learning_rate(lr))
    z = jnp.asarray(X0)
    _, state = tx.update(jnp.zeros(3), tx.init(z), z)
    step = jax.jit(tx.update)
    for want in points:
        np.testing.assert_allclose(z, want, atol=1e-12)
        u, state = step(gradient(z), state, z)
        z = z + u


def test_state_dtype_halves_the_state_and_keeps_the_second_moment():
    tx: Any = adan(0.02, state_dtype=jnp.bfloat16)
    state: ScaleByAdanState = tx.init(jnp.zeros(3, jnp.float32))[0]
    assert {x.dtype for x in (state.m, state.v, state.g_prev)} == {jnp.dtype(jnp.bfloat16)}
    assert state.n.dtype == jnp.float32
    got = trajectory(tx, 50)
    np.testing.assert_allclose(got[-1], default_run()[-1], atol=0.02)


def test_a_step_has_derivatives_where_all_gradients_are_zero():
    tx: Any = adan(0.1)
    x = jnp.ones(3)
    jac = jax.jacobian(lambda g: tx.update(g, tx.init(x), x)[0])(jnp.zeros(3))
    assert np.all(np.isfinite(jac))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"b1": 1.0}, "b1"),
        ({"b2": -0.1}, "b2"),
        ({"b3": 1.5}, "b3"),
        ({"eps": -1e-8}, "eps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"restart_radius": 0.0}, "restart_radius"),
        ({"restart_every": 0}, "restart_every"),
        ({"state_dtype": jnp.int32}, "state_dtype"),
    ],
)
def test_arguments_out_of_range_are_refused(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        adan(0.1, **options)


@pytest.mark.bad_input
@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"restart_radius": 1.0}])
def test_missing_parameters_are_asked_for(options):
    tx: Any = adan(0.1, **options)
    with pytest.raises(ValueError, match="params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


@pytest.mark.bad_input
def test_proximal_decay_asks_for_the_learning_rate():
    missing: Any = None
    with pytest.raises(ValueError, match="`learning_rate`"):
        proximal_decay(missing, 0.1)


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.int32])
def test_leaves_that_are_not_real_floating_are_refused(dtype):
    with pytest.raises(TypeError, match="real floating"):
        adan(0.1).init({"w": jnp.ones(2, dtype)})
