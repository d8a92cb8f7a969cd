import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import spectral
from jaxsci.spectral import FourierGrid
from spectral.trigonometric import free, grid_name, GRIDS

every_grid = pytest.mark.parametrize("grid", GRIDS, ids=grid_name)
SQUARE = FourierGrid((24, 24), (2 * np.pi, 2 * np.pi))


@every_grid
def test_the_shell_spectrum_sums_to_the_energy(grid):
    u = free(grid, lead=(2,))
    uh = grid.fft(u)
    energy = 0.5 * np.sum(np.mean(np.abs(u) ** 2, tuple(range(1, grid.ndim + 1))))
    assert math.isclose(spectral.energy(grid, uh), energy, rel_tol=1e-13)
    assert math.isclose(spectral.enstrophy(grid, uh), energy, rel_tol=1e-13)
    k, e = spectral.energy_spectrum(grid, uh)
    assert k.shape == e.shape
    assert math.isclose(jnp.sum(e), energy, rel_tol=1e-14)
    assert jnp.all(e >= 0)


def test_a_mode_falls_in_the_shell_of_its_wave_number():
    x, y = SQUARE.x
    for n, m, shell in ((3, 0, 3), (3, 4, 5), (2, 2, 3), (1, 1, 1), (0, 12, 12)):
        k, e = spectral.energy_spectrum(SQUARE, SQUARE.fft(jnp.cos(n * x + m * y)))
        want = np.zeros(len(k))
        want[shell] = 0.5 if m == 12 else 0.25
        np.testing.assert_allclose(e, want, atol=1e-14)
        assert k[shell] == shell


@every_grid
def test_shells_cover_every_mode_with_their_width(grid):
    index, shells = spectral.shell_index(grid)
    assert index.shape == grid.spectral_shape
    dk = 2 * np.pi / max(grid.lengths)
    np.testing.assert_allclose(shells, dk * np.arange(len(shells)))
    radius = np.sqrt(np.asarray(grid.k2))
    assert np.all(np.abs(radius - shells[index]) <= dk * (0.5 + 1e-9))
    ones = jnp.ones(grid.spectral_shape)
    assert math.isclose(jnp.sum(spectral.shell_sum(grid, ones)), grid.num_points)


def test_the_dissipation_is_viscosity_times_the_mean_square_gradient():
    x, y = SQUARE.x
    uh = SQUARE.fft(jnp.stack([jnp.cos(3 * x), jnp.sin(2 * x + y)]))
    assert math.isclose(spectral.dissipation(SQUARE, uh, 0.1), 0.1 * (9 / 2 + 5 / 2))


@pytest.fixture(scope="module")
def euler():
    """Vorticity, velocity and the dealiased advection of both on a non-square grid."""
    grid = FourierGrid((24, 20), (2 * np.pi, 3.0))
    wh = grid.dealias(grid.fft(free(grid)))
    wh = wh.at[0, 0].set(0)
    uh = grid.velocity_from_vorticity(wh)
    advect = lambda fh: (
        -grid.dealias(grid.fft(jnp.sum(grid.ifft(uh) * grid.ifft(grid.grad(fh)), axis=0)))
    )
    return grid, wh, uh, advect(wh), jnp.stack([advect(uh[0]), advect(uh[1])])


def test_inviscid_advection_changes_neither_energy_nor_enstrophy(euler):
    grid, wh, uh, nw, _ = euler
    size = grid.norm(wh) * grid.norm(nw)
    assert abs(grid.inner(wh, nw)) < 1e-14 * size
    psi = -grid.lap_inv(wh)
    assert abs(grid.inner(psi, nw)) < 1e-14 * grid.norm(psi) * grid.norm(nw)
    # Far from a steady flow: the cosines above are small for a reason.
    assert grid.norm(nw) > 1e-2 * grid.norm(uh) * grid.norm(wh)


def test_the_inviscid_transfer_moves_energy_between_shells_and_sums_to_zero(euler):
    grid, _, uh, _, nu = euler
    k, transfer, flux = spectral.energy_transfer(grid, uh, nu)
    assert k.shape == transfer.shape == flux.shape
    scale = jnp.abs(transfer).sum()
    assert abs(transfer.sum()) < 1e-13 * scale
    np.testing.assert_allclose(flux, -np.cumsum(transfer), atol=1e-13 * scale)
    assert abs(flux[-1]) < 1e-13 * scale
    assert jnp.abs(transfer).max() > 1e-2 * scale


def test_the_courant_number_adds_the_axes():
    grid = FourierGrid((8, 10), (1.0, 2.0))
    u = jnp.stack([jnp.full((8, 10), -3.0), jnp.full((8, 10), 2.0)]).at[0, 1, 1].set(4.0)
    assert math.isclose(spectral.cfl_number(grid, u, 0.01), 0.01 * (4 * 8 + 2 * 5))


def test_the_correlation_is_a_cosine():
    (x,) = FourierGrid(16, 2 * np.pi).x
    for angle in (0.0, 0.3, np.pi / 2, 3.0):
        value = spectral.correlation(jnp.cos(x), 7 * jnp.cos(x + angle))
        assert math.isclose(value, np.cos(angle), abs_tol=1e-14)


def test_the_valid_time_is_the_first_below_the_threshold():
    (x,) = FourierGrid(16, 2 * np.pi).x
    ts = jnp.array([0.0, 0.5, 1.0, 1.5, 2.0])
    truth = jnp.stack([jnp.cos(x)] * 5)
    drift = jnp.stack([jnp.cos(x + a) for a in (0.0, 0.3, 0.6, 0.1, 1.0)])
    assert spectral.valid_time(ts, drift, truth) == 1.0
    assert spectral.valid_time(ts, drift, truth, 0.6) == 2.0
    assert spectral.valid_time(ts, truth, truth) == 2.0
    assert spectral.valid_time(ts, truth.at[1, 3].set(jnp.nan), truth) == 0.5


def test_diagnostics_keep_single_precision():
    u = free(SQUARE, lead=(2,)).astype(jnp.float32)
    uh = SQUARE.fft(u)
    out = [
        *spectral.energy_spectrum(SQUARE, uh), *spectral.energy_transfer(SQUARE, uh, uh),
        spectral.energy(SQUARE, uh), spectral.dissipation(SQUARE, uh, 0.1),
        spectral.cfl_number(SQUARE, u, 0.1), spectral.correlation(u, u),
    ]  # fmt: skip
    assert {x.dtype for x in out} == {np.dtype(np.float32)}
