import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci.closures import (
    ActiveFluid,
    ActiveFluidParams,
    BinghamClosure,
    LearnedFourthHarmonic,
    rollout_loss,
    sine_mlp,
    trajectory_windows,
)
from jaxsci.integrate import rollout, SBDF2
from jaxsci.spectral import FourierGrid

PARAMS = ActiveFluidParams(alpha=-3.0, zeta=0.5)


def run(fluid, y0, num_steps, save_every):
    return eqx.filter_jit(
        lambda f, y: rollout(
            SBDF2(),
            f.term(),
            y,
            dt=0.02,
            num_steps=num_steps,
            save_every=save_every,
            include_initial=True,
        )
    )(fluid, y0)


@pytest.fixture(scope="module")
def trajectory():
    fluid = ActiveFluid(FourierGrid((8, 8), (10.0, 10.0)), PARAMS, 1, BinghamClosure())
    y0 = fluid.random_state(jax.random.key(0), max_mode=2, amplitude=0.24)
    return fluid, run(fluid, y0, 12, 2)


def test_windows_are_the_states_they_claim_to_be(trajectory):
    fluid, ys = trajectory
    windows = trajectory_windows(fluid, ys, 2, stride=2)
    assert windows.start.shape == (3, 2, 8, 8)
    assert windows.z.shape == (3, 2, 8, 8)
    assert np.all(windows.start[1] == ys["a"][2])
    z = np.fft.ifft2(ys["a"][:, 1])
    np.testing.assert_allclose(windows.z[1], z[3:5], atol=1e-15)


def test_windows_of_a_kinetic_run_keep_the_modes_of_the_moment_system():
    kinetic = ActiveFluid(FourierGrid((8, 8), (10.0, 10.0)), PARAMS, 4)
    a = jnp.arange(3 * 5 * 64).reshape(3, 5, 8, 8) + 0j
    windows = trajectory_windows(kinetic, {"a": a}, 2)
    assert np.all(windows.start[0] == a[0, :2])


def test_the_loss_vanishes_for_the_model_that_made_the_data(trajectory):
    fluid, ys = trajectory
    # The first window only: a two-step method has a history in the middle of a run.
    windows = jax.tree.map(lambda x: x[:1], trajectory_windows(fluid, ys, 6))
    loss = eqx.filter_jit(rollout_loss(fluid.with_closure, dt=0.02, save_every=2))
    assert loss(BinghamClosure(), windows, None) < 1e-20
    loss = eqx.filter_jit(rollout_loss(fluid.with_params, dt=0.02, save_every=2))
    assert loss(PARAMS, windows, None) < 1e-20
    assert loss(ActiveFluidParams(alpha=-2.0, zeta=0.5), windows, None) > 1e-9


@pytest.mark.slow
def test_the_gradient_through_the_solver_equals_central_differences(trajectory):
    fluid, ys = trajectory
    windows = trajectory_windows(fluid, ys, 1, stride=4)
    closure = LearnedFourthHarmonic(sine_mlp(3, 3, width=6, depth=1, key=jax.random.key(1)))
    params, static = eqx.partition(closure, eqx.is_inexact_array)
    f = rollout_loss(fluid.with_closure, dt=0.02, save_every=2)
    loss = lambda p: 1e4 * f(eqx.combine(p, static), windows, None)
    direction = jax.tree.map(jnp.ones_like, params)
    along = jax.jit(lambda h: loss(jax.tree.map(lambda p, d: p + h * d, params, direction)))
    grad = jax.jit(jax.grad(loss))(params)
    got = sum(jnp.sum(g) for g in jax.tree.leaves(grad))
    h = 1e-3
    difference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    np.testing.assert_allclose(got, difference, rtol=1e-5)


@pytest.mark.slow
def test_alpha_and_zeta_are_recovered_from_snapshots_of_the_order_field():
    """Bingham data on 24 x 24, dt = .02, 100 steps, 10 snapshots; Adam .05 from (-2, .2)."""
    grid = FourierGrid((24, 24), (10.0, 10.0))
    fluid = ActiveFluid(grid, PARAMS, 1, BinghamClosure())
    x, y = (2 * np.pi * c / 10 for c in grid.x)
    z = 0.28 * (jnp.cos(x + 0.3) * jnp.cos(2 * y) + 1j * jnp.sin(x) * jnp.cos(y + 1))
    y0 = fluid.initial_state(jnp.stack([jnp.ones_like(z), z]))
    windows = trajectory_windows(fluid, run(fluid, y0, 100, 10), 10)
    fluid_of = lambda p: fluid.with_params(ActiveFluidParams(alpha=p[0], zeta=p[1]))
    loss = rollout_loss(fluid_of, dt=0.02, save_every=10, checkpoint="none")
    tx = optax.adam(0.05)

    @jax.jit
    def step(p, state):
        value, grad = jax.value_and_grad(loss)(p, windows, None)
        updates, state = tx.update(grad, state)
        return optax.apply_updates(p, updates), state, value

    p = jnp.asarray([-2.0, 0.2])
    reverse = jax.jit(jax.grad(loss))(p, windows, None)
    value = jax.jit(loss)
    h = 1e-3
    odd = lambda s: value(p + s, windows, None) - value(p - s, windows, None)
    difference = [(8 * odd(h * e) - odd(2 * h * e)) / (12 * h) for e in jnp.eye(2)]
    np.testing.assert_allclose(reverse, difference, rtol=1e-6)
    state = tx.init(p)
    for _ in range(150):
        p, state, last = step(p, state)
    np.testing.assert_allclose(p, [-3.0, 0.5], atol=2e-3)
    assert last < 1e-7


@pytest.mark.bad_input
def test_a_trajectory_shorter_than_a_window_is_rejected():
    fluid = ActiveFluid(FourierGrid((8, 8), (1.0, 1.0)), PARAMS, 1, BinghamClosure())
    with pytest.raises(
        ValueError, match=r"`ys` must have at least num_saves \+ 1 = 4 states, got 3"
    ):
        trajectory_windows(fluid, {"a": jnp.zeros((3, 2, 8, 8), complex)}, 3)
    with pytest.raises(ValueError, match="`stride` must be at least 1"):
        trajectory_windows(fluid, {"a": jnp.zeros((3, 2, 8, 8), complex)}, 1, stride=0)
