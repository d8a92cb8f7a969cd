import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.spectral import FourierGrid
from spectral.trigonometric import free, grid_name, GRIDS, points, Polynomial

every_grid = pytest.mark.parametrize("grid", GRIDS, ids=grid_name)
VECTOR_GRIDS = [g for g in GRIDS if g.ndim > 1]
every_vector_grid = pytest.mark.parametrize("grid", VECTOR_GRIDS, ids=grid_name)


def close(got, want, tol=1e-12):
    scale = max(1.0, np.abs(np.asarray(want)).max())
    np.testing.assert_allclose(got, want, atol=tol * scale, rtol=0)


def vector(grid, seed=0):
    """Polynomials of the components of a vector field."""
    return [Polynomial(grid, seed=seed + i) for i in range(grid.ndim)]


def sample(grid, polynomials, symbol=None):
    return jnp.stack([p(grid, symbol) for p in polynomials])


@every_grid
def test_a_grid_knows_its_sizes_points_and_volume(grid):
    assert grid.ndim == len(grid.shape)
    assert grid.num_points == np.prod(grid.shape)
    assert math.isclose(grid.volume, np.prod(grid.lengths))
    assert grid.spacing == tuple(length / n for n, length in zip(grid.shape, grid.lengths))
    for x, want in zip(grid.x, points(grid)):
        close(x, want, 1e-15)


@every_grid
def test_wavenumbers_are_those_of_numpy(grid):
    transform = np.fft.rfftn if grid.real else np.fft.fftn
    assert grid.spectral_shape == transform(np.zeros(grid.shape)).shape
    ks = [2 * np.pi * np.fft.fftfreq(n, h) for n, h in zip(grid.shape, grid.spacing)]
    if grid.real:
        ks[-1] = 2 * np.pi * np.fft.rfftfreq(grid.shape[-1], grid.spacing[-1])
    want = np.meshgrid(*ks, indexing="ij")
    for k, w in zip(grid.k, want):
        close(jnp.broadcast_to(k, grid.spectral_shape), w)
    close(grid.k2, sum(w**2 for w in want))


@every_grid
def test_only_nyquist_modes_lose_their_odd_derivatives(grid):
    pairs = zip(grid.derivative_wavenumbers(), grid.k, grid.shape, grid.lengths, strict=True)
    for odd, even, n, length in pairs:
        nyquist = np.isclose(np.abs(even), np.pi * n / length)
        assert np.sum(nyquist) == (1 if n % 2 == 0 else 0)
        np.testing.assert_array_equal(odd, np.where(nyquist, 0, even))


@every_grid
def test_the_transform_is_that_of_numpy_and_its_inverse_returns_the_field(grid):
    u = free(grid, lead=(3,))
    transform = np.fft.rfftn if grid.real else np.fft.fftn
    uh = grid.fft(u)
    close(uh, transform(u, axes=tuple(range(1, grid.ndim + 1))), 1e-13)
    close(grid.ifft(uh), u, 1e-14)


@every_grid
def test_partial_derivatives_are_exact(grid):
    p = Polynomial(grid, cutoff=(min(grid.shape) - 1) // 2)
    uh = grid.fft(p(grid))
    for axis in range(grid.ndim):
        for order in range(5):
            got = grid.ifft(grid.derivative(uh, axis, order))
            close(got, p(grid, lambda k, a=axis, o=order: (1j * k[:, a]) ** o), 1e-11)


def test_the_second_derivative_keeps_the_nyquist_mode_and_the_first_drops_it():
    grid = FourierGrid(8, 2 * np.pi)
    uh = grid.fft(jnp.cos(4 * grid.x[0]))
    close(grid.ifft(grid.derivative(uh, 0, 2)), -16 * jnp.cos(4 * grid.x[0]), 1e-13)
    close(grid.ifft(grid.derivative(uh, 0, 1)), np.zeros(8), 1e-14)


@every_grid
def test_the_laplacian_and_the_gradient_are_exact_and_the_inverse_laplacian_inverts(grid):
    p = Polynomial(grid)
    uh = grid.fft(p(grid))
    lap = p(grid, lambda k: -np.sum(k**2, 1))
    close(grid.ifft(grid.lap(uh)), lap)
    close(grid.ifft(grid.lap_inv(grid.fft(lap + 3.0))), p(grid) - p(grid).mean())
    grads = [p(grid, lambda k, a=a: 1j * k[:, a]) for a in range(grid.ndim)]
    close(grid.ifft(grid.grad(uh)), np.stack(grads))


@every_grid
def test_the_divergence_is_exact_for_a_batch_of_vector_fields(grid):
    fields = [vector(grid, seed) for seed in (0, 10)]
    uh = grid.fft(jnp.stack([sample(grid, u) for u in fields]))
    want = [sum(p(grid, lambda k, a=a: 1j * k[:, a]) for a, p in enumerate(u)) for u in fields]
    close(grid.ifft(grid.div(uh)), np.stack(want))


@every_vector_grid
def test_the_curl_is_exact(grid):
    u = vector(grid)
    d = lambda a, i: u[i](grid, lambda k: 1j * k[:, a])
    if grid.ndim == 2:
        want = d(0, 1) - d(1, 0)
    else:
        want = np.stack([d(1, 2) - d(2, 1), d(2, 0) - d(0, 2), d(0, 1) - d(1, 0)])
    close(grid.ifft(grid.curl(grid.fft(sample(grid, u)))), want)


@every_vector_grid
def test_leray_is_the_orthogonal_projection_on_divergence_free_fields(grid):
    uh = grid.fft(free(grid, lead=(2, grid.ndim)))
    projected = grid.leray(uh)
    scale = float(jnp.abs(grid.div(uh)).max())
    close(grid.div(projected) / scale, np.zeros((2, *grid.spectral_shape)), 1e-14)
    close(grid.leray(projected), projected, 1e-14)
    assert abs(grid.inner(uh - projected, projected)) < 1e-13 * grid.inner(uh, uh)
    gradient = grid.grad(grid.fft(free(grid, 5)))
    close(grid.leray(gradient), np.zeros_like(gradient), 1e-13 * np.abs(gradient).max())


@every_vector_grid
def test_velocity_and_vorticity_determine_each_other(grid):
    if grid.ndim == 2:
        wh = grid.fft(Polynomial(grid, mean=False)(grid))
    else:
        wh = grid.curl(grid.fft(sample(grid, vector(grid))))
    uh = grid.velocity_from_vorticity(wh)
    close(grid.curl(uh), wh)
    close(grid.div(uh), np.zeros(grid.spectral_shape))
    close(grid.mean(uh), np.zeros(grid.ndim))


def test_the_velocity_of_a_taylor_green_vortex_has_the_usual_sign():
    grid = FourierGrid((16, 16), (2 * np.pi, 2 * np.pi))
    x, y = grid.x
    uh = grid.velocity_from_vorticity(grid.fft(2 * jnp.cos(x) * jnp.cos(y)))
    want = np.stack([-jnp.cos(x) * jnp.sin(y), jnp.sin(x) * jnp.cos(y)])
    close(grid.ifft(uh), want, 1e-14)


@every_grid
def test_inner_products_and_norms_are_averages_over_the_points(grid):
    u, v = free(grid, 1, (2,)), free(grid, 2, (2,))
    uh, vh = grid.fft(u), grid.fft(v)
    want = np.real(np.sum(np.mean(u * np.conj(v), tuple(range(1, grid.ndim + 1)))))
    assert math.isclose(grid.inner(uh, vh), want, rel_tol=1e-12, abs_tol=1e-13)
    square = np.sum(np.mean(np.abs(u) ** 2, tuple(range(1, grid.ndim + 1))))
    assert math.isclose(grid.norm(uh), np.sqrt(square), rel_tol=1e-13)
    assert math.isclose(grid.norm({"re": uh.real, "im": uh.imag}), np.sqrt(square), rel_tol=1e-13)
    np.testing.assert_allclose(grid.mean(uh), np.mean(u, tuple(range(1, grid.ndim + 1))))


def test_the_norm_of_zero_has_gradient_zero():
    grid = FourierGrid(8, 1.0)
    gradient = jax.grad(lambda a: grid.norm(a * (1 + 1j)))(jnp.zeros(5))
    np.testing.assert_array_equal(gradient, np.zeros(5))


def test_projection_on_real_fields_keeps_them_and_is_what_the_inverse_sees():
    rng = np.random.default_rng(0)
    for grid in (FourierGrid((6, 8), (1.0, 2.0)), FourierGrid((5, 7), (1.0, 2.0))):
        re, im = rng.normal(size=(2, *grid.spectral_shape))
        uh = jnp.asarray(re + 1j * im)
        projected = grid.project_real(uh)
        close(grid.project_real(projected), projected, 1e-14)
        close(grid.ifft(projected), grid.ifft(uh), 1e-14)
        # The real fields are a linear space; the projection is the orthogonal one.
        assert abs(grid.inner(uh - projected, projected)) < 1e-13
        mirror = -np.arange(grid.shape[0]) % grid.shape[0]
        hermitian = 0.5 * (uh[:, 0] + np.conj(uh[mirror, 0]))
        close(projected[:, 0], hermitian, 1e-13)


@pytest.mark.parametrize("n", [13, 14, 15, 16, 17, 18, 30, 32])
@pytest.mark.parametrize("real", [True, False])
def test_a_square_after_dealiasing_has_no_alias_and_without_it_has_one(n, real):
    grid = FourierGrid(n, 2 * np.pi, real)
    m = math.ceil(n / 3) - 1
    u = jnp.cos(m * grid.x[0]).astype(float if real else complex)
    uh = grid.fft(u)
    close(grid.dealias(uh), uh, 1e-14)
    square = grid.fft(u**2) / n
    mean = np.zeros(grid.spectral_shape)
    mean[0] = 0.5
    close(grid.dealias(square), mean, 1e-13)
    # cos^2(mx) = 1/2 + cos(2mx)/2, and 2m > n/2 is read as n - 2m.
    assert 2 * m >= n / 2
    assert abs(square[n - 2 * m]) >= 0.25 - 1e-13


def test_the_mode_at_a_third_aliases_on_itself_and_only_inclusive_keeps_it():
    grid = FourierGrid(18, 2 * np.pi)
    uh = grid.fft(jnp.cos(6 * grid.x[0]))
    close(grid.dealias(uh), np.zeros(10), 1e-13)
    close(grid.dealias(uh, kind="inclusive"), uh, 1e-13)
    square = grid.dealias(grid.fft(jnp.cos(6 * grid.x[0]) ** 2), kind="inclusive") / 18
    assert math.isclose(square[6].real, 0.25, rel_tol=1e-12)


@pytest.mark.parametrize("n", [13, 16, 18, 32])
def test_a_cube_after_dealiasing_is_exact(n):
    grid = FourierGrid(n, 2 * np.pi)
    m = math.ceil(n / 4) - 1
    uh = grid.fft(jnp.cos(m * grid.x[0]))
    close(grid.dealias(uh, 3), uh, 1e-13)
    cube = grid.ifft(grid.dealias(grid.fft(grid.ifft(uh) ** 3), 3))
    close(cube, 0.75 * jnp.cos(m * grid.x[0]), 1e-13)


@every_grid
def test_dealiasing_cuts_every_axis_at_its_own_size(grid):
    ns = np.meshgrid(*[np.ravel(m) for m in grid.mode_numbers()], indexing="ij")
    for order in (2, 3):
        pairs = list(zip(ns, grid.shape, strict=True))
        strict = np.all([(order + 1) * np.abs(m) < n for m, n in pairs], 0)
        loose = np.all([(order + 1) * np.abs(m) <= n for m, n in pairs], 0)
        ones = jnp.ones(grid.spectral_shape, complex)
        np.testing.assert_array_equal(grid.dealias(ones, order), strict)
        np.testing.assert_array_equal(grid.dealias(ones, order, "inclusive"), loose)
    smooth = np.prod([np.exp(-36 * (2 * np.abs(m) / n) ** 36) for m, n in pairs], 0)
    close(grid.dealias(ones, 2, "smooth"), smooth, 1e-14)


def test_operators_are_linear_maps_with_exact_derivatives():
    grid = FourierGrid((6, 7), (1.0, 2.0))
    f = lambda u: grid.norm(grid.grad(grid.fft(u))) ** 2 / 2
    # d/du <|grad u|^2>/2 = -lap u / num_points, but for Nyquist modes: stay below them.
    u = Polynomial(grid)(grid)
    want = -grid.ifft(grid.lap(grid.fft(u))) / grid.num_points
    close(jax.grad(f)(u), want)


@pytest.mark.parametrize("real", [True, False])
def test_operators_keep_single_precision(real):
    grid = FourierGrid((6, 8), (1.0, 2.0), real)
    u = jnp.asarray(free(grid, lead=(2,)), jnp.float32 if real else jnp.complex64)
    uh = grid.fft(u)
    same = [
        grid.derivative(uh, 0), grid.grad(uh), grid.div(uh), grid.curl(uh), grid.lap(uh),
        grid.lap_inv(uh), grid.leray(uh), grid.velocity_from_vorticity(uh), grid.dealias(uh),
        grid.dealias(uh, kind="smooth"), uh,
    ]  # fmt: skip
    assert {x.dtype for x in same} == {np.dtype(np.complex64)}
    assert grid.ifft(uh).dtype == u.dtype
    assert grid.mean(uh).dtype == u.dtype
    assert grid.inner(uh, uh).dtype == grid.norm(uh).dtype == np.float32
    for x in (*grid.coordinates(np.float32), *grid.wavenumbers(uh), grid.mode_weights(uh)):
        assert x.dtype == np.float32


def test_a_grid_is_static_equal_by_value_and_hashable():
    grid = FourierGrid((6, 8), (1.0, 2.0))
    assert jax.tree.leaves(grid) == []
    assert grid == FourierGrid([6, 8], [1.0, 2.0]) != grid.with_layout(real=False)
    assert hash(grid) == hash(FourierGrid((6, 8), (1.0, 2.0)))
    assert grid.with_shape((4, 4)) == FourierGrid((4, 4), (1.0, 2.0))
    assert FourierGrid(np.int64(8), np.float64(2)) == FourierGrid((8,), (2.0,))
    fields = [f.name for f in dataclasses.fields(grid)]
    assert fields == ["shape", "lengths", "real", "decomposition"]
    total = jax.jit(lambda g, u: g.fft(u).sum())
    close(total(grid, jnp.ones((6, 8))), 48.0, 1e-14)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 1.0), r"`shape` must be at least 4, got \(3,\)"),
        (((8, 2), (1.0, 1.0)), r"`shape` must be at least 4, got \(8, 2\)"),
        (((8,) * 4, (1.0,) * 4), r"`shape` must have one, two or three axes, got \(8, 8, 8, 8\)"),
        (((), ()), r"`shape` must have one, two or three axes, got \(\)"),
        (((8, 8), 1.0), r"`lengths` must have one entry an axis of `shape`, got \(1\.0,\)"),
        ((8, (1.0, 2.0)), r"`lengths` must have one entry an axis of `shape`, got \(1\.0, 2\.0\)"),
        (((8.0, 8), (1.0, 1.0)), r"`shape` must consist of integers, got \(8\.0, 8\)"),
        ((8, 0.0), r"`lengths` must be positive, got \(0\.0,\)"),
        (((8, 8), (1.0, -2.0)), r"`lengths` must be positive, got \(1\.0, -2\.0\)"),
        ((8, np.nan), r"`lengths` must be finite, got \(nan,\)"),
        ((8, np.inf), r"`lengths` must be finite, got \(inf,\)"),
    ],
)
def test_a_bad_grid_names_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        FourierGrid(*arguments)


@pytest.mark.bad_input
def test_a_wrong_shape_names_both_shapes():
    grid = FourierGrid((8, 6), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"field must be \(8, 6\).*got shape \(6, 8\)"):
        grid.fft(jnp.ones((6, 8)))
    with pytest.raises(ValueError, match=r"field must be \(8, 6\).*got shape \(6,\)"):
        grid.fft(jnp.ones(6))
    with pytest.raises(ValueError, match=r"coefficients must be \(8, 4\).*got shape \(8, 6\)"):
        grid.ifft(jnp.ones((8, 6), complex))


@pytest.mark.bad_input
def test_a_field_where_coefficients_are_expected_says_so_and_the_reverse():
    grid = FourierGrid((8, 6), (1.0, 1.0))
    with pytest.raises(
        TypeError, match=r"complex of shape \(\.\.\., 8, 4\), got float64.*\(8, 6\)"
    ):
        grid.ifft(jnp.ones((8, 6)))
    with pytest.raises(TypeError, match=r"real fields, got complex128 of shape \(8, 6\)"):
        grid.fft(jnp.ones((8, 6), complex))


@pytest.mark.bad_input
def test_a_vector_operator_says_which_shape_it_needs():
    grid = FourierGrid((8, 6), (1.0, 1.0))
    scalar = jnp.ones((8, 4), complex)
    for operator in (grid.div, grid.curl, grid.leray):
        with pytest.raises(ValueError, match=r"needs shape \(\.\.\., 2, <space>\), got \(8, 4\)"):
            operator(scalar)
        with pytest.raises(ValueError, match=r"needs shape .*got \(3, 8, 4\)"):
            operator(jnp.stack([scalar] * 3))
    with pytest.raises(ValueError, match="`curl` needs a grid of two or three dimensions"):
        FourierGrid(8, 1.0).curl(jnp.ones((1, 5), complex))


@pytest.mark.bad_input
def test_an_unknown_kind_or_order_is_named():
    grid = FourierGrid(8, 1.0)
    uh = jnp.ones(5, complex)
    with pytest.raises(ValueError, match=r"`kind` must be one of 'strict', 'inclusive', 'smooth'"):
        grid.dealias(uh, kind="soft")
    with pytest.raises(ValueError, match=r"`order` must be one of 2, 3, got 4"):
        grid.dealias(uh, 4)
    with pytest.raises(ValueError, match=r"`order` must be at least 0, got -1"):
        grid.derivative(uh, 0, -1)


@pytest.mark.parametrize("shape", [(8,), (7,), (6, 8), (5, 7), (4, 6, 8), (5, 4, 7)])
def test_the_projection_on_real_fields_is_a_transform_there_and_back(shape, key):
    grid = FourierGrid(shape, (1.0,) * len(shape))
    parts = jax.random.normal(key, (2, 3, *grid.spectral_shape))
    uh = parts[0] + 1j * parts[1]
    found = grid.project_real(uh)
    np.testing.assert_allclose(found, grid.fft(grid.ifft(uh)), atol=1e-12)
    np.testing.assert_allclose(grid.project_real(found), found, atol=1e-15)
