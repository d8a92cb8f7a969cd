import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid
from pde.calculus import solve


def soliton(grid, t, amplitude, w, a, g):
    (length,) = grid.lengths
    x = np.asarray(grid.x[0])
    y = (x - w * t) % length - length / 2
    k = w / (2 * a)
    phase = k * (y + length / 2 + w * t) + (g * amplitude**2 / 2 - w**2 / (4 * a)) * t
    return jnp.asarray(
        amplitude / np.cosh(amplitude * np.sqrt(g / (2 * a)) * y) * np.exp(1j * phase)
    )


def test_a_bright_soliton_travels_unchanged():
    # The wave number w/(2 a) of the carrier is one of the box.
    a, g, amplitude, length = 0.5, 1.0, 1.2, 50.0
    w = 2 * a * 2 * np.pi * 4 / length
    grid = FourierGrid(768, length, real=False)
    equation = pde.NonlinearSchroedinger(grid, a, g)
    u = solve(equation, soliton(grid, 0.0, amplitude, w, a, g), 1.0, 1000)
    np.testing.assert_allclose(u, soliton(grid, 1.0, amplitude, w, a, g), atol=1e-10)


@pytest.mark.parametrize("g", [0.8, -0.8])
def test_plane_waves_turn_at_their_nonlinear_frequency(g):
    grid = FourierGrid((16, 16), (2 * np.pi, 4 * np.pi), real=False)
    x, y = grid.x
    equation = pde.NonlinearSchroedinger(grid, 0.7, g)
    amplitude, k2 = 1.1, 4 + 0.25
    wave = lambda t: amplitude * jnp.exp(1j * (2 * x - y / 2 - (0.7 * k2 - g * amplitude**2) * t))
    np.testing.assert_allclose(solve(equation, wave(0.0), 1.0, 200), wave(1.0), atol=1e-9)
    found = equation.invariants(grid.fft(wave(0.3)[None]))
    assert found["mass"] == pytest.approx(amplitude**2)
    assert found["momentum_x"] == pytest.approx(2 * amplitude**2)
    assert found["momentum_y"] == pytest.approx(-0.5 * amplitude**2)
    hamiltonian = 0.7 * k2 * amplitude**2 - g * amplitude**4 / 2
    assert found["hamiltonian"] == pytest.approx(hamiltonian)


def test_mass_momentum_and_hamiltonian_are_kept_of_rough_fields(key):
    grid = FourierGrid(16, 2 * np.pi, real=False)
    equation = pde.NonlinearSchroedinger(grid, 0.5, 1.5)
    u0 = equation.initial(key)[0]
    u = solve(equation, u0, 1.0, 1000)
    first, last = (equation.invariants(grid.fft(v[None])) for v in (u0, u))
    for name in ("mass", "momentum", "hamiltonian"):
        assert last[name] == pytest.approx(float(first[name]), rel=1e-7)


def test_free_waves_return_when_time_runs_backwards(key):
    grid = FourierGrid(32, 2 * np.pi, real=False)
    equation = pde.NonlinearSchroedinger(grid, nonlinearity=0.0)
    uh = grid.fft(equation.initial(key))
    go = lambda uh, dt: integrate.rollout(
        integrate.ETDRK4(), equation.term(), uh, dt=dt, num_steps=3
    )[-1]
    there = go(uh, 1.7)
    assert float(jnp.max(jnp.abs(there - uh))) > 1
    np.testing.assert_allclose(go(there, -1.7), uh, atol=1e-11)
    phases = jnp.exp(-0.5j * grid.k2 * 5.1)
    np.testing.assert_allclose(there, phases * uh, atol=1e-11)


@pytest.mark.slow
def test_simulate_takes_and_returns_complex_fields():
    grid = FourierGrid(16, 2 * np.pi, real=False)
    equation = pde.NonlinearSchroedinger(grid, 0.5, 1.0)
    (x,) = grid.x
    wave = lambda t: 0.9 * jnp.exp(1j * (x - (0.5 - 0.81) * t))
    for dtype in (jnp.complex128, jnp.complex64):
        ts = jnp.array([0.0, 0.33, 1.0])
        sol = pde.simulate(equation, wave(0.0).astype(dtype), ts, dt=0.05, max_steps=22)
        assert sol.ys.dtype == dtype
        assert sol.ts.dtype == jnp.finfo(dtype).dtype
        expected = jnp.stack([wave(t) for t in ts])
        np.testing.assert_allclose(sol.ys, expected, atol=1e-5)
