import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.spectral import FourierGrid, resize
from spectral.trigonometric import free, grid_name, GRIDS, Polynomial

every_grid = pytest.mark.parametrize("grid", GRIDS, ids=grid_name)


def close(got, want, tol=1e-12):
    np.testing.assert_allclose(got, want, atol=tol, rtol=0)


@every_grid
@pytest.mark.parametrize("change", [-1, 1, 2, 5])
def test_a_band_limited_field_keeps_its_values(grid, change):
    p = Polynomial(grid)
    new = grid.with_shape([max(n + change, 4) for n in grid.shape])
    close(new.ifft(resize(grid.fft(p(grid)), grid, new)), p(new))


@every_grid
@pytest.mark.parametrize("factor", [2, 3])
def test_refinement_interpolates_any_field_at_the_old_points_and_coarsening_undoes_it(grid, factor):
    u = free(grid, lead=(2,))
    new = grid.with_shape([factor * n for n in grid.shape])
    fine = resize(grid.fft(u), grid, new)
    close(new.ifft(fine)[(slice(None), *[slice(None, None, factor)] * grid.ndim)], u)
    close(resize(fine, new, grid), grid.fft(u))


@every_grid
def test_refinement_by_one_point_and_back_is_the_identity(grid):
    uh = grid.fft(free(grid))
    new = grid.with_shape([n + 1 for n in grid.shape])
    close(resize(resize(uh, grid, new), new, grid), uh)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("phase", [0.0, 0.7])
def test_coarsening_to_the_nyquist_mode_samples_it(real, phase):
    """cos(x n + y m + phase) with n at the new Nyquist number is read at the coarse points."""
    fine = FourierGrid((12, 12), (2 * np.pi, 2 * np.pi), real)
    coarse = fine.with_shape((8, 6))
    dtype = float if real else complex
    for n, m in ((1, 3), (4, 1), (2, -3), (4, 3)):
        wave = lambda g, n=n, m=m: jnp.cos(n * g.x[0] + m * g.x[1] + phase).astype(dtype)
        close(coarse.ifft(resize(fine.fft(wave(fine)), fine, coarse)), wave(coarse))


def test_the_real_and_the_complex_layout_agree():
    for old, new in (((8, 8), (6, 4)), ((9, 10), (6, 6)), ((4, 6), (10, 9))):
        real = FourierGrid(old, (1.0, 2.0))
        full = real.with_layout(real=False)
        u = free(real)
        want = full.with_shape(new).ifft(
            resize(full.fft(u.astype(complex)), full, full.with_shape(new))
        )
        got = real.with_shape(new).ifft(resize(real.fft(u), real, real.with_shape(new)))
        close(want.imag, np.zeros(new))
        close(got, want.real)


def test_resizing_keeps_single_precision_and_the_mean():
    grid = FourierGrid((8, 6), (1.0, 2.0))
    new = grid.with_shape((5, 12))
    uh = resize(grid.fft(jnp.full((8, 6), 3.0, jnp.float32)), grid, new)
    assert uh.dtype == np.complex64
    close(new.ifft(uh), np.full((5, 12), 3.0), 1e-6)


@pytest.mark.bad_input
def test_grids_of_other_boxes_or_layouts_are_refused():
    grid = FourierGrid(8, 1.0)
    uh = jnp.ones(5, complex)
    for new in (FourierGrid(8, 2.0), FourierGrid(8, 1.0, real=False)):
        with pytest.raises(ValueError, match="`resize` needs two grids of one box and layout"):
            resize(uh, grid, new)
    with pytest.raises(ValueError, match=r"must be \(5,\).*got shape \(4,\)"):
        resize(uh[:4], grid, FourierGrid(16, 1.0))
