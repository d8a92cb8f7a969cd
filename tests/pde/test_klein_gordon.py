import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid
from pde.calculus import solve


def test_free_plane_waves_obey_the_dispersion_relation_in_one_step():
    grid, c, s, t = FourierGrid(16, 3.0), 1.4, 2.5, 17.0
    k = 4 * np.pi / 3
    w = np.sqrt(c**2 * k**2 + s)
    (x,) = grid.x
    exact = lambda t: jnp.stack([jnp.cos(k * x - w * t), w * jnp.sin(k * x - w * t)])
    term = pde.klein_gordon(grid, speed=c, squared_mass=s)
    (uh,) = integrate.rollout(integrate.ETDRK4(), term, grid.fft(exact(0.0)), dt=t, num_steps=1)
    np.testing.assert_allclose(grid.ifft(uh), exact(t), atol=1e-11)


@pytest.mark.slow
def test_a_homogeneous_field_is_the_duffing_oscillator():
    grid = FourierGrid(4, 1.0)
    equation = pde.KleinGordon(grid, squared_mass=0.5, coupling=2.0)
    u0 = jnp.stack([jnp.full(4, 0.8), jnp.full(4, -0.3)])
    u = solve(equation, u0, 2.0, 400)
    rate = lambda t, y, args: jnp.stack([y[1], -0.5 * y[0] - 2.0 * y[0] ** 3])
    controller = diffrax.PIDController(rtol=1e-12, atol=1e-12)
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),
        diffrax.Tsit5(),
        0.0,
        2.0,
        0.01,
        jnp.array([0.8, -0.3]),
        stepsize_controller=controller,
        max_steps=10000,
    )
    np.testing.assert_allclose(u, jnp.broadcast_to(sol.ys[0][:, None], (2, 4)), atol=1e-10)


def kink(x, t, w):
    """The phi^4 kink of s = -1, g = 1, and its rate."""
    b = 1 / np.sqrt(2 * (1 - w**2))
    z = b * (x - w * t)
    return np.stack([np.tanh(z), -w * b / np.cosh(z) ** 2])


def test_a_phi4_kink_moves_at_its_speed():
    grid, w, t = FourierGrid(512, 60.0), 0.3, 1.0
    equation = pde.KleinGordon(grid, squared_mass=-1.0, coupling=1.0)
    x = np.asarray(grid.x[0])

    def pair(t):
        # A kink at a quarter and an antikink at three quarters of the box, moving alike.
        first, second = kink(x - 15, t, w), kink(x - 45, t, w)
        return jnp.asarray(first - second - np.array([[1.0], [0.0]]))

    u = solve(equation, pair(0.0), t, 200)
    np.testing.assert_allclose(u, pair(t), atol=1e-8)


def breather(x, t, w):
    r = np.sqrt(1 - w**2)
    a = r / w * np.sin(w * t) / np.cosh(r * x)
    rate = r * np.cos(w * t) / np.cosh(r * x)
    return jnp.asarray(np.stack([4 * np.arctan(a), 4 * rate / (1 + a**2)]))


@pytest.mark.slow
def test_a_sine_gordon_breather_breathes():
    grid, w, t = FourierGrid(512, 60.0), 0.6, 2.0
    x = np.asarray(grid.x[0]) - 30
    equation = pde.SineGordon(grid)
    u = solve(equation, breather(x, 0.0, w), t, 400)
    np.testing.assert_allclose(u, breather(x, t, w), atol=1e-7)
    # The energy of a breather is 16 sqrt(1 - w^2).
    energy = equation.invariants(grid.fft(u))["energy"] * grid.volume
    assert energy == pytest.approx(16 * np.sqrt(1 - w**2), rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("equation", [pde.KleinGordon, pde.SineGordon])
def test_the_energy_of_the_discrete_equation_is_kept(equation):
    grid = FourierGrid(16, 2 * np.pi)
    extra = {"coupling": 1.5} if equation is pde.KleinGordon else {}
    equation = equation(grid, 0.9, 0.8, **extra)
    (x,) = grid.x
    # Rough: every mode is excited.
    u0 = jnp.stack([jnp.exp(jnp.sin(3 * x)), jnp.cos(7 * x) + 0.5 * jnp.sign(x - 3)])
    u = solve(equation, u0, 1.0, 400)
    first, last = (equation.invariants(grid.fft(v))["energy"] for v in (u0, u))
    assert last == pytest.approx(float(first), rel=1e-8)
