import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import ExponentialEulerMaruyama, NoiseTerm, rollout, SpectralBrownianPath
from jaxsci.pde import NavierStokes2D, ring_forcing, white_noise
from jaxsci.spectral import FourierGrid

GRID = FourierGrid((16, 16), (2 * np.pi, 2 * np.pi))


def test_white_noise_has_the_strength_over_the_cell_volume_as_variance_at_each_point():
    grid = FourierGrid((8, 12), (1.0, 3.0))
    amplitude = white_noise(grid, 0.7)
    keys = jax.random.split(jax.random.key(0), 400)
    increment = lambda key: SpectralBrownianPath(grid, key).evaluate(0.0, 0.5)[0]
    fields = grid.ifft(amplitude * jax.vmap(increment)(keys))
    cell = grid.volume / grid.num_points
    np.testing.assert_allclose(np.mean(fields**2), 0.49 * 0.5 / cell, rtol=0.03)


def test_a_ring_injects_the_energy_it_states():
    # Of the increment of a force over a time dt, half the mean square is rate dt on average.
    keys = jax.random.split(jax.random.key(1), 1000)
    sample = jax.jit(jax.vmap(lambda key: SpectralBrownianPath(GRID, key).evaluate(0.0, 0.1)[0]))
    dw = sample(keys)
    by_field = ring_forcing(GRID, 4.0, 0.5, 0.3) * dw
    energy = 0.5 * np.mean(jax.vmap(GRID.norm)(by_field) ** 2)
    np.testing.assert_allclose(energy, 0.03, rtol=0.04)
    velocity = GRID.velocity_from_vorticity(ring_forcing(GRID, 4.0, 0.5, 0.3, of="vorticity") * dw)
    energy = 0.5 * np.mean(jax.vmap(GRID.norm)(velocity) ** 2)
    np.testing.assert_allclose(energy, 0.03, rtol=0.04)


def test_the_ring_is_where_it_is_said_to_be_and_leaves_the_mean_alone():
    amplitude = ring_forcing(GRID, 4.0, 0.3)
    k = np.sqrt(GRID.k2)
    assert amplitude[0, 0] == 0
    largest = k[np.unravel_index(np.argmax(amplitude), k.shape)]
    assert abs(largest - 4) < 0.2
    assert np.all(amplitude[np.abs(k - 4) > 3] < 1e-6 * np.max(amplitude))


@pytest.mark.slow
def test_stochastically_forced_flow_gains_energy_at_the_stated_rate():
    equation = NavierStokes2D(GRID, viscosity=0.0)
    rate, time, num_steps = 0.2, 0.4, 8
    amplitude = ring_forcing(GRID, 3.0, 0.5, rate, of="vorticity")

    @jax.jit
    @jax.vmap
    def energy(key):
        noise = NoiseTerm(amplitude, SpectralBrownianPath(GRID, key))
        terms = diffrax.MultiTerm(equation.term(), noise)
        w0 = jnp.zeros((1, *GRID.spectral_shape), complex)
        solver = ExponentialEulerMaruyama()
        w = rollout(
            solver, terms, w0, dt=time / num_steps, num_steps=num_steps, save_every=num_steps
        )
        return equation.invariants(w[0])["energy"]

    energies = energy(jax.random.split(jax.random.key(2), 300))
    standard_error = np.std(energies) / np.sqrt(len(energies))
    # Explicit steps of the drift add a little: a fiftieth at this step.
    assert abs(np.mean(energies) - rate * time) < 3 * standard_error + 0.02 * rate * time


@pytest.mark.bad_input
def test_bad_rings_are_refused():
    with pytest.raises(ValueError, match="No mode"):
        ring_forcing(GRID, 1e4, 0.1)
    with pytest.raises(ValueError, match="`of` must be one of 'field', 'vorticity'"):
        ring_forcing(GRID, 4.0, 1.0, of="velocity")
