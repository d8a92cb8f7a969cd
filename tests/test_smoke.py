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
