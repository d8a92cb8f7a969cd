import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid


def run(equation, u0, dt, num_steps=1):
    grid, solver = equation.grid, integrate.ETDRK2()
    step = {"dt": dt, "num_steps": num_steps}
    return grid.ifft(integrate.rollout(solver, equation.term(), grid.fft(u0), **step)[-1])


def test_waves_travel_both_ways_as_dalembert_says_in_one_step():
    grid, c, t = FourierGrid(32, 5.0), 1.7, 23.4
    q = 2 * np.pi / 5
    (x,) = grid.x
    # u = f(x - c t) + g(x + c t), and a mean that drifts.
    f, df = lambda s: jnp.sin(3 * q * s), lambda s: 3 * q * jnp.cos(3 * q * s)
    g, dg = lambda s: 0.5 * jnp.cos(q * s), lambda s: -0.5 * q * jnp.sin(q * s)

    def exact(t):
        a, b = x - c * t, x + c * t
        return jnp.stack([f(a) + g(b) + 0.2 + 0.3 * t, c * (dg(b) - df(a)) + 0.3])

    np.testing.assert_allclose(run(pde.Wave(grid, c), exact(0.0), t), exact(t), atol=1e-11)


def test_standing_waves_of_a_plane_have_the_frequency_of_the_wave_vector():
    grid = FourierGrid((8, 9), (2.0, 3.0))
    x, y = grid.x
    k = np.pi, 4 * np.pi / 3
    shape = jnp.cos(k[0] * x) * jnp.sin(k[1] * y)
    w = 0.6 * np.hypot(*k)
    exact = lambda t: jnp.stack([shape * np.cos(w * t), -w * shape * np.sin(w * t)])
    equation = pde.Wave(grid, 0.6)
    np.testing.assert_allclose(run(equation, exact(0.0), 2.3), exact(2.3), atol=1e-13)
    # c^2 <|grad u|^2>/2 = w^2/8.
    for t in (0.0, 1.1):
        found = equation.invariants(grid.fft(exact(t)))
        assert found["energy"] == pytest.approx(w**2 / 8, rel=1e-12)


@pytest.mark.slow
def test_energy_and_mean_velocity_are_kept_and_time_is_reversible(key):
    grid = FourierGrid((8, 8, 8), (1.0, 1.0, 1.0))
    equation = pde.Wave(grid)
    u0 = equation.initial(key).at[1].set(0.4)
    u = run(equation, u0, 0.13, 5)
    first, last = (equation.invariants(grid.fft(x)) for x in (u0, u))
    assert first["mean_velocity"] == pytest.approx(0.4, rel=1e-12)
    for name in first:
        assert last[name] == pytest.approx(float(first[name]), rel=1e-11)
    np.testing.assert_allclose(run(equation, u, -0.13, 5), u0, atol=1e-11)
