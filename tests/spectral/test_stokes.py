import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.spectral import FourierGrid, pressure, stokes
from spectral.trigonometric import Polynomial

GRIDS = [
    FourierGrid((16, 15), (2 * np.pi, 3.0)),
    FourierGrid((12, 12), (1.0, 1.0), real=False),
    FourierGrid((8, 7, 6), (2 * np.pi, 1.0, 3.0)),
]


def manufactured(grid):
    """u = curl psi and p as polynomials: velocity, pressure and -lap u + grad p, mode by mode."""
    psi = [Polynomial(grid, cutoff=2, seed=i) for i in range(1 if grid.ndim == 2 else 3)]
    d = lambda a: lambda k: 1j * k[:, a]
    lap = lambda s: lambda k: np.sum(k**2, 1) * s(k)
    if grid.ndim == 2:
        parts = [[(psi[0], d(1), 1)], [(psi[0], d(0), -1)]]
    else:
        pairs = [(1, 2), (2, 0), (0, 1)]
        parts = [[(psi[b], d(a), 1), (psi[a], d(b), -1)] for a, b in pairs]
    u = jnp.stack([sum(s * p(grid, f) for p, f, s in row) for row in parts])
    minus_lap = jnp.stack([sum(s * p(grid, lap(f)) for p, f, s in row) for row in parts])
    p = Polynomial(grid, cutoff=2, seed=9, mean=False)
    slope = jnp.stack([p(grid, d(a)) for a in range(grid.ndim)])
    return u, p(grid), minus_lap, slope


@pytest.mark.parametrize("grid", GRIDS, ids=["2d", "2d-complex", "3d"])
def test_a_manufactured_flow_and_its_pressure_are_recovered(grid):
    u, p, minus_lap, slope = manufactured(grid)
    force = 0.3 * minus_lap + slope + 2.0  # a mean force drives nothing
    uh, ph = stokes(grid, grid.fft(force), 0.3)
    np.testing.assert_allclose(grid.ifft(uh), u, atol=1e-13 * jnp.abs(force).max())
    np.testing.assert_allclose(grid.ifft(ph), p, atol=1e-13 * jnp.abs(force).max())
    np.testing.assert_allclose(grid.mean(uh), np.zeros(grid.ndim), atol=1e-15)
    divergence = grid.norm(grid.div(uh))
    assert divergence < 1e-14 * grid.norm(grid.grad(uh))


def test_the_pressure_takes_the_divergence_from_a_force():
    grid = FourierGrid((9, 12), (1.0, 2.0))
    fh = grid.dealias(grid.fft(jax.random.normal(jax.random.key(0), (2, 9, 12))))
    rest = grid.div(fh - grid.grad(pressure(grid, fh)))
    assert grid.norm(rest) < 1e-13 * grid.norm(grid.div(fh))


def test_flow_is_inverse_to_the_viscosity_and_batches():
    grid = FourierGrid((8, 8), (1.0, 1.0))
    fh = grid.fft(jax.random.normal(jax.random.key(0), (3, 2, 8, 8), jnp.float32))
    uh, ph = stokes(grid, fh, 1.0)
    half, same = stokes(grid, fh, 2.0)
    assert uh.dtype == ph.dtype == np.complex64
    np.testing.assert_allclose(half, uh / 2, rtol=1e-6)
    np.testing.assert_array_equal(ph, same)
    one, _ = stokes(grid, fh[1], 1.0)
    np.testing.assert_allclose(uh[1], one, rtol=1e-6)
    slope = jax.grad(lambda nu: grid.norm(stokes(grid, fh, nu)[0]))(2.0)
    np.testing.assert_allclose(slope, -grid.norm(half) / 2, rtol=1e-5)


@pytest.mark.bad_input
@pytest.mark.parametrize("viscosity", [0.0, -1.0, np.nan])
def test_a_viscosity_that_is_not_positive_is_refused(viscosity):
    grid = FourierGrid((8, 8), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"`viscosity` must be (positive|finite), got"):
        stokes(grid, jnp.ones((2, 8, 5), complex), viscosity)
