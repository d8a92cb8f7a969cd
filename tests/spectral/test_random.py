import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import spectral
from jaxsci.spectral import FourierGrid

SAMPLES = 200


def draws(sampler, samples=SAMPLES, seed=0):
    return jax.jit(jax.vmap(sampler))(jax.random.split(jax.random.key(seed), samples))


def squared_modes(grid, fields):
    """|c_n|^2 of every mode of the full spectrum, by NumPy."""
    axes = tuple(range(-grid.ndim, 0))
    return np.abs(np.fft.fftn(fields, axes=axes) / grid.num_points) ** 2


def wave_squared(grid):
    ks = [2 * np.pi * np.fft.fftfreq(n, h) for n, h in zip(grid.shape, grid.spacing)]
    return sum(k**2 for k in np.meshgrid(*ks, indexing="ij"))


LAWS = [
    (FourierGrid(32, 2.0), 2.0, 3.0, 1.5),
    (FourierGrid((15, 12), (1.0, 3.0)), 2.5, 7.0, 1.0),
    (FourierGrid((8, 6, 7), (1.0, 2.0, 1.0)), 3.0, 0.0, 2.0),
]


@pytest.mark.parametrize(("grid", "alpha", "tau", "sigma"), LAWS, ids=["1d", "2d", "3d"])
def test_a_gaussian_field_follows_its_law_in_every_shell(grid, alpha, tau, sigma):
    fields = draws(lambda k: spectral.gaussian_random_field(k, grid, alpha, tau, sigma))
    k2 = wave_squared(grid)
    origin = (0,) * grid.ndim
    k2[origin] = 1
    law = sigma**2 * (k2 + tau**2) ** -alpha / grid.volume
    ratio = squared_modes(grid, fields) / law
    assert np.abs(ratio[(slice(None), *origin)]).max() < 1e-20 * ratio.max() + 1e-20
    shell = np.floor(np.sqrt(k2) * max(grid.lengths) / (2 * np.pi) + 0.5).astype(int)
    shell[origin] = 0
    for j in range(1, shell.max() + 1):
        count = np.sum(shell == j)
        if count:
            # Pairs of conjugate modes are one draw: a mean over n modes has variance 2/n.
            sigma_of_mean = np.sqrt(2 / (count * SAMPLES))
            assert abs(ratio[:, shell == j].mean() - 1) < 3 * sigma_of_mean, j


def test_gaussian_fields_of_several_modes_are_uncorrelated_and_normal():
    grid = FourierGrid(16, 1.0)
    fields = draws(lambda k: spectral.gaussian_random_field(k, grid, 1.0, 5.0), 2000)
    c = np.fft.rfft(fields)[:, 1:5]
    z = np.concatenate([c.real, c.imag], 1)
    z = z / z.std(0)
    off = z.T @ z / len(z) - np.eye(8)
    assert np.abs(off).max() < 4 / math.sqrt(len(z))
    assert np.abs((z**4).mean(0) - 3).max() < 5 * math.sqrt(96 / len(z))


def test_the_operator_learning_field_has_standard_deviation_0_262_on_64_points():
    grid = FourierGrid((64, 64), (1.0, 1.0))
    k2 = wave_squared(grid)
    law = 2 * 7**3 * (k2 + 49) ** -2.5
    law[0, 0] = 0
    assert abs(math.sqrt(law.sum()) - 0.2620) < 5e-5
    fields = draws(lambda k: spectral.operator_learning_field(k, grid))
    assert fields.shape == (SAMPLES, 64, 64)
    variance = np.mean(np.square(fields))
    assert abs(variance - law.sum()) < 3 * math.sqrt(2 * np.sum(law**2) / SAMPLES)


def test_the_operator_learning_field_is_its_law_times_white_noise(key):
    grid = FourierGrid((64, 64), (1.0, 1.0))
    noise = np.fft.fft2(np.asarray(grid.ifft(spectral.white_noise(key, grid))))
    k2 = wave_squared(grid)
    scale = np.sqrt(2) * 7**1.5 * (k2 + 49) ** -1.25 * 64
    scale[0, 0] = 0
    want = np.fft.ifft2(scale * noise).real
    np.testing.assert_allclose(spectral.operator_learning_field(key, grid), want, atol=1e-13)


def test_white_noise_has_independent_standard_normal_samples(key):
    grid = FourierGrid((64, 64), (1.0, 2.0))
    u = np.asarray(grid.ifft(spectral.white_noise(key, grid)))
    n = u.size
    assert abs(u.mean()) < 3 / math.sqrt(n)
    assert abs((u**2).mean() - 1) < 3 * math.sqrt(2 / n)
    assert abs((u * np.roll(u, 1, 0)).mean()) < 3 / math.sqrt(n)


def test_a_gaussian_field_is_differentiable_in_its_law(key):
    grid = FourierGrid(16, 1.0)
    f = lambda p: jnp.sum(spectral.gaussian_random_field(key, grid, *p) ** 3)
    p = jnp.array([1.5, 4.0, 0.7])
    step = 1e-5
    want = [(f(p.at[i].add(step)) - f(p.at[i].add(-step))) / (2 * step) for i in range(3)]
    np.testing.assert_allclose(jax.grad(f)(p), want, rtol=1e-6)


@pytest.mark.parametrize("grid", [FourierGrid(16, 3.0), FourierGrid((12, 14), (1.0, 2.0))])
def test_a_truncated_series_has_equally_strong_modes_up_to_its_cutoff(grid):
    fields = draws(lambda k: spectral.truncated_fourier_series(k, grid, 3, std=0.5))
    power = squared_modes(grid, fields).mean(0)
    modes = np.meshgrid(*[np.rint(np.fft.fftfreq(n, 1 / n)) for n in grid.shape], indexing="ij")
    inside = np.all([np.abs(m) <= 3 for m in modes], 0)
    inside[(0,) * grid.ndim] = False
    assert power[~inside].max() < 1e-25
    count = inside.sum()
    sigma = math.sqrt(2 / (count * SAMPLES))
    assert abs(power[inside].sum() / 0.25 - 1) < 3 * sigma
    assert np.abs(power[inside] * count / 0.25 - 1).max() < 4 / math.sqrt(SAMPLES)


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (2.0, 5.0)])
def test_blobs_are_periodic_smooth_and_bounded_by_their_number(key, lengths):
    grid = FourierGrid((48, 40), lengths)
    u = spectral.gaussian_blobs(key, grid, 3, width=0.1)
    assert u.shape == grid.shape
    assert jnp.abs(u).max() <= 3
    # An analytic periodic field has a spectrum that ends in round-off.
    uh = jnp.abs(grid.fft(u))
    assert uh[24].max() < 1e-10 * uh.max()
    assert uh[:, -1].max() < 1e-10 * uh.max()


def test_a_blob_has_the_width_of_a_gaussian():
    grid = FourierGrid(256, 2.0)
    u = spectral.gaussian_blobs(jax.random.key(1), grid, 1, width=0.02)
    u = u / u[jnp.argmax(jnp.abs(u))]
    u = np.roll(u, 128 - int(np.argmax(u)))
    x = np.asarray(grid.x[0])
    deviation = np.sqrt(np.sum(u * (x - np.sum(u * x) / u.sum()) ** 2) / u.sum())
    assert math.isclose(deviation, 0.02 * 2.0, rel_tol=0.02)


TURBULENCE = [
    (FourierGrid((32, 32), (2 * np.pi, 2 * np.pi)), 5),
    (FourierGrid((12,) * 3, (1.0,) * 3), 3),
]


@pytest.mark.parametrize(("grid", "peak"), TURBULENCE, ids=["2d", "3d"])
def test_decaying_turbulence_is_solenoidal_with_the_energy_asked_for(grid, peak):
    k0 = peak * 2 * np.pi / grid.lengths[0]
    u = draws(lambda k: spectral.decaying_turbulence(k, grid, k0, total_energy=0.7), 50)
    assert u.shape == (50, grid.ndim, *grid.shape)
    axes = tuple(range(2, 2 + grid.ndim))
    np.testing.assert_allclose(0.5 * np.sum(np.mean(u**2, axes), 1), 0.7, rtol=1e-12)
    uh = grid.fft(u)
    assert grid.norm(grid.div(uh)) < 1e-13 * grid.norm(grid.curl(uh))
    # Modes of one shell share E(k) ~ k^4 exp(-2 k^2/k0^2): energy of a mode ~ E(k)/k^(d-1).
    power = squared_modes(grid, u).mean(0).sum(0)
    k2 = wave_squared(grid) / k0**2
    band = (k2 > 0.2) & (k2 < 2.5)
    law = k2[band] ** (2 - (grid.ndim - 1) / 2) * np.exp(-2 * k2[band])
    ratio = power[band] / law
    rank = np.digitize(k2[band], [0.7, 1.3])
    levels = [ratio[rank == r].mean() for r in range(3)]
    np.testing.assert_allclose(levels, np.mean(levels), rtol=0.1)
    _, e = jax.vmap(lambda v: spectral.energy_spectrum(grid, v))(uh)
    assert abs(int(jnp.argmax(e.mean(0))) - peak) <= 1


@pytest.mark.slow
def test_fields_follow_the_key_the_dtype_and_ignore_the_layout(key):
    grid = FourierGrid((12, 12), (1.0, 1.0))
    for sampler in (
        spectral.gaussian_random_field,
        spectral.operator_learning_field,
        spectral.truncated_fourier_series,
        spectral.gaussian_blobs,
        lambda *a, **k: spectral.decaying_turbulence(*a, 12.0, **k),
    ):
        u = sampler(key, grid)
        np.testing.assert_array_equal(u, sampler(key, grid.with_layout(real=False)))
        assert jnp.any(u != sampler(jax.random.key(1), grid))
        assert u.dtype == np.float64
        assert sampler(key, grid, dtype=jnp.float32).dtype == np.float32


@pytest.mark.bad_input
def test_bad_arguments_are_named(key):
    grid = FourierGrid((12, 16), (1.0, 1.0))
    cases = [
        (lambda: spectral.truncated_fourier_series(key, grid, 0), "`cutoff` must be at least 1"),
        (lambda: spectral.truncated_fourier_series(key, grid, 6), r"`cutoff` .* got 6"),
        (lambda: spectral.gaussian_blobs(key, grid, 0), "`num_blobs` must be at least 1, got 0"),
        (lambda: spectral.gaussian_blobs(key, grid, width=0.0), "`width` must be positive"),
        (lambda: spectral.decaying_turbulence(key, grid, -1.0), "`k0` must be positive, got -1"),
        (
            lambda: spectral.decaying_turbulence(key, grid, 5.0, total_energy=0.0),
            "`total_energy` must be positive",
        ),
        (
            lambda: spectral.decaying_turbulence(key, FourierGrid(8, 1.0), 5.0),
            "`grid` must have two or three dimensions",
        ),
    ]
    for run, message in cases:
        with pytest.raises(ValueError, match=message):
            run()
