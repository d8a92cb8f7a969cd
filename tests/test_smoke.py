"""A few steps of everything, in whatever precision and versions the process runs.

The checks run this file on the lowest and the newest versions of the dependencies, also in JAX's
default precision.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsci import closures, curvature, integrate, optim, pde, spectral, train

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def grid():
    return spectral.FourierGrid((16, 18), (2 * np.pi, 3.0))


def test_transforms_invert_each_other(grid):
    u = jax.random.normal(jax.random.key(0), (3, *grid.shape))
    assert jnp.allclose(grid.ifft(grid.fft(u)), u, atol=TOLERANCE)


def test_heat_modes_decay_exactly(grid):
    x, y = grid.x
    u0 = jnp.cos(x) * jnp.sin(4 * np.pi * y / 3)
    sol = pde.simulate(pde.Heat(grid, 0.1), u0, jnp.array([0.0, 0.3, 1.0]))
    rate = 0.1 * (1 + (4 * np.pi / 3) ** 2)
    assert jnp.allclose(sol.ys[-1], jnp.exp(-rate) * u0, atol=TOLERANCE)


def test_the_gradient_through_a_solve_matches_a_difference():
    grid = spectral.FourierGrid(32, 2 * np.pi)
    u0 = grid.fft(jnp.sin(grid.x[0]))

    @jax.jit
    def loss(viscosity):
        term = pde.burgers(grid, viscosity=viscosity)
        (uh,) = integrate.rollout(
            integrate.ETDRK4(), term, u0, dt=0.05, num_steps=10, save_every=10, checkpoint="sqrt"
        )
        return grid.norm(uh) ** 2

    difference = (loss(0.11) - loss(0.09)) / 0.02
    assert jnp.allclose(jax.grad(loss)(0.1), difference, rtol=1e-2)


def test_a_closure_trains_with_adahessian_through_fit():
    fluid = closures.ActiveFluid(
        spectral.FourierGrid((18, 18), (10.0, 10.0)),
        closures.ActiveFluidParams(alpha=-3.0, zeta=0.5),
        modes=4,
    )
    start = fluid.random_state(jax.random.key(0))
    ys = integrate.rollout(
        integrate.SBDF2(), fluid.term(), start, dt=0.02, num_steps=20, save_every=10
    )
    points = closures.contraction_data(fluid, ys).points()
    network = closures.sine_mlp(3, 3, width=8, depth=1, key=jax.random.key(1))
    result = train.fit(
        closures.contraction_loss,
        closures.LearnedFourthHarmonic(network),
        train.minibatches(points, 64),
        optim.adahessian(0.01),
        key=jax.random.key(2),
        num_steps=3,
        log_every=1,
    )
    assert np.all(np.isfinite(result.metrics["loss"]))
    fluid = fluid.with_closure(result.model)
    assert jnp.all(jnp.isfinite(fluid.velocity(fluid.coarse_state(start))))


def test_hutchinson_is_exact_on_a_diagonal_hessian():
    h = jnp.array([1.0, -2.0, 3.0])
    diag = curvature.hutchinson_diag(
        lambda x: jnp.sum(h * x**2) / 2, jnp.ones(3), jax.random.key(0)
    )
    assert jnp.allclose(diag, h)


def test_parameters_alone_are_trainable():
    model = (jnp.ones(2), train.NonTrainable(jnp.ones(2)), 3)
    params, _ = eqx.partition(model, train.trainable(model))
    tx = optax.adamw(0.1, weight_decay=0.1)
    updates, _ = tx.update(params, tx.init(params), params)
    assert [x.shape for x in jax.tree.leaves(updates)] == [(2,)]


@pytest.mark.parametrize("make", [spectral.FourierGrid, spectral.CosineGrid])
def test_norms_and_spectra_of_large_grids_do_not_overflow(make):
    grid = make((256, 256), (2 * np.pi, 2 * np.pi))
    uh = grid.fft(jnp.full(grid.shape, 2.0))
    assert jnp.allclose(grid.norm(uh), 2.0)
    if make is spectral.FourierGrid:
        _, spectrum = spectral.energy_spectrum(grid, uh[None])
        assert jnp.allclose(jnp.sum(spectrum), 2.0)
        assert jnp.all(jnp.isfinite(pde.ring_forcing(grid, 8.0, 2.0)))


@pytest.fixture(scope="module")
def network():
    """A small network with a custom rule, a checkpoint and a scan in it, and data for it."""

    def model_fn(params, x):
        h = jax.nn.relu(x @ params["in"]["w"] + params["in"]["b"])
        layer = jax.checkpoint(lambda h, w: (jnp.tanh(w @ h), None))
        h, _ = jax.lax.scan(layer, h, params["hidden"])
        return params["scale"] * (h @ params["out"])

    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "in": {"w": jax.random.normal(keys[0], (3, 4)) / 2, "b": jnp.zeros(4)},
        "hidden": jax.random.normal(keys[1], (2, 4, 4)) / 2,
        "out": jax.random.normal(keys[2], (4, 2)) / 2,
        "scale": jnp.ones(2),
    }
    x = jax.random.normal(keys[3], (16, 3))
    return model_fn, params, x, jnp.argmax(x[:, :2], -1)


def test_layers_are_captured_from_any_function(network):
    model_fn, params, x, _ = network
    layers = curvature.capture_layers(model_fn, params, x[0])
    assert [block.stack for block in layers.blocks] == [2, 1, 1]
    assert layers.uncaptured == ("['scale']",)
    layers.check(params, x[0], rtol=TOLERANCE)


def test_second_order_rules_lower_a_loss(network):
    model_fn, params, x, y = network
    layers = curvature.capture_layers(model_fn, params, x[0])
    obj_fn = curvature.LikelihoodObjective(model_fn, "softmax", x, y)
    rules = [
        optim.adahessian(0.1),
        optim.adan(0.05),
        optim.mfac(0.01, 4, 0.1),
        optim.kfac(0.1, layers, 0.1),
        optim.ekfac(0.1, layers, 0.1),
    ]
    for tx in rules:

        @jax.jit
        def step(p, state, tx=tx):
            updates, state = tx.update(jax.grad(obj_fn)(p), state, p, obj_fn=obj_fn)
            return optax.apply_updates(p, updates), state

        p, state = params, tx.init(params)
        for _ in range(10):
            p, state = step(p, state)
        assert obj_fn(p) < obj_fn(params)


def test_the_structures_of_a_tangent_kernel_agree(network):
    model_fn, params, x, _ = network
    found = [
        curvature.ntk.empirical_ntk(model_fn, params, x[:4], method=method)
        for method in ("structured", "vp", "jacobian")
    ]
    assert jnp.allclose(found[0], found[2], atol=TOLERANCE)
    assert jnp.allclose(found[1], found[2], atol=TOLERANCE)


def test_lanczos_finds_the_ends_of_a_spectrum():
    values = jnp.linspace(-1.0, 3.0, 20)
    op = curvature.hessian_operator(lambda x: jnp.sum(values * x**2) / 2, jnp.ones(20))
    ends = curvature.extremal_eigs(op, jax.random.key(0), 20)
    assert jnp.allclose(ends.largest, 3.0, atol=1e-3)
    assert jnp.allclose(ends.smallest, -1.0, atol=1e-3)


def test_no_example_harms_itself(network):
    model_fn, params, x, y = network
    curv = curvature.fit_kronecker(model_fn, "softmax", params, (x, y))

    def loss_fn(params, example):
        return -jax.nn.log_softmax(model_fn(params, example[0]))[example[1]]

    scores = curvature.influence.pairwise(curv, loss_fn, params, (x, y), (x, y), damping=0.1)
    assert jnp.allclose(scores, scores.T, atol=TOLERANCE * jnp.max(jnp.abs(scores)))
    assert jnp.all(jnp.diagonal(scores) >= 0)
    assert jnp.max(jnp.diagonal(scores)) > 0
