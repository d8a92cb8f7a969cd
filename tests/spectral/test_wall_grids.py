import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from jaxsci.spectral import (
    CosineGrid,
    lift,
    lift_slopes,
    MixedWallGrid,
    SineGrid,
    truncated_wall_series,
)

SHAPES = [(8,), (9,), (5, 6, 4)]
LENGTHS = (1.0, 2.5, 0.7)
KINDS = [SineGrid, CosineGrid]


def make(kind, shape):
    return kind(shape, LENGTHS[: len(shape)])


def series(grid, modes):
    """A product of the grid's own functions with the given mode numbers."""
    out = 1.0
    for x, m, length, parity in zip(grid.x, modes, grid.lengths, grid.parities):
        out = out * (jnp.sin if parity == "sine" else jnp.cos)(np.pi * m * x / length)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_transforms_are_those_of_scipy_and_inverse_to_each_other(kind, shape):
    grid = make(kind, shape)
    u = np.random.default_rng(0).normal(size=(3, *shape))
    transform = scipy.fft.dstn if kind is SineGrid else scipy.fft.dctn
    uh = jax.jit(grid.fft)(jnp.asarray(u))
    np.testing.assert_allclose(uh, transform(u, type=2, axes=grid_axes(grid)), atol=1e-12)
    np.testing.assert_allclose(jax.jit(grid.ifft)(uh), u, atol=1e-13)


def grid_axes(grid):
    return tuple(range(-grid.ndim, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_stays_single(kind):
    grid = make(kind, (8, 6))

    def everything(u):
        uh = grid.fft(u)
        parts = grid.ifft(uh), grid.grad(uh), grid.lap_inv(uh), grid.norm(uh), grid.dealias(uh)
        return uh, parts

    found = jax.eval_shape(everything, jnp.ones((8, 6), jnp.float32))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(found))


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_the_series(kind):
    grid = make(kind, (10, 9))
    modes = (3, 2)
    kx, ky = (np.pi * m / length for m, length in zip(modes, grid.lengths))
    u = grid.fft(series(grid, modes))
    for axis, k in ((0, kx), (1, ky)):
        for order in (1, 2, 3, 4):
            target = grid.derivative_grid(axis, order)
            found = target.ifft(grid.derivative(u, axis, order))
            sign = [1, 1, -1, -1, 1][order]
            if kind is CosineGrid and order % 2:
                sign = -sign
            expected = sign * k**order * series(target, modes)
            np.testing.assert_allclose(found, expected, atol=1e-11 * k**order)
    expected = -(kx**2 + ky**2) * series(grid, modes)
    np.testing.assert_allclose(grid.ifft(grid.lap(u)), expected, atol=1e-11)
    np.testing.assert_allclose(grid.div(grid.grad(u)), grid.lap(u), atol=1e-10)
    np.testing.assert_allclose(grid.lap(grid.lap_inv(u)), u, atol=1e-11)


@pytest.mark.parametrize("parity", ["sine", "cosine"])
def test_the_divergence_is_minus_the_adjoint_of_the_gradient(parity, key):
    grid = MixedWallGrid((6, 5), (1.0, 2.0), (parity, "sine"))
    partners = [grid.derivative_grid(i) for i in range(2)]
    keys = jax.random.split(key, 3)
    u = grid.fft(jax.random.normal(keys[0], grid.shape))
    v = [g.fft(jax.random.normal(k, grid.shape)) for g, k in zip(partners, keys[1:])]
    gradient = grid.grad(u)
    left = sum(g.inner(a, b) for g, a, b in zip(partners, gradient, v))
    assert left == pytest.approx(-float(grid.inner(u, grid.div(jnp.stack(v)))), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_norm_inner_product_and_mean_are_averages_over_the_points(kind, key):
    grid = make(kind, (7, 6))
    u, v = jax.random.normal(key, (2, 7, 6))
    uh, vh = grid.fft(u), grid.fft(v)
    assert grid.inner(uh, vh) == pytest.approx(float(jnp.mean(u * v)), abs=1e-13)
    assert grid.norm(uh) == pytest.approx(float(jnp.sqrt(jnp.mean(u**2))), abs=1e-13)
    assert grid.mean(uh) == pytest.approx(float(jnp.mean(u)), abs=1e-13)
    assert float(jax.grad(lambda s: grid.norm(s * uh))(0.0)) == 0.0


def test_dealiased_products_hold_no_aliases():
    n = 12
    cosines, sines = CosineGrid(n, 1.0), SineGrid(n, 1.0)
    m = 2 * n // 3 - 1
    square = cosines.dealias(cosines.fft(series(cosines, (m,)) ** 2))
    np.testing.assert_allclose(square[1:], 0, atol=1e-12)
    m = n // 2 - 1
    cube = sines.dealias(sines.fft(series(sines, (m,)) ** 3), order=3)
    # sin^3 = (3 sin - sin 3)/4.
    np.testing.assert_allclose(cube, sines.fft(0.75 * series(sines, (m,))), atol=1e-12)
    assert float(cosines.dealias_factors()[0].sum()) == 8


def test_transforms_under_vmap_and_grad_are_linear_maps(key):
    grid = make(SineGrid, (6, 5))
    u = jax.random.normal(key, (4, 6, 5))
    np.testing.assert_allclose(jax.vmap(grid.fft)(u), grid.fft(u), atol=1e-13)
    weight = jax.random.normal(key, (6, 5))
    loss = jax.jit(lambda u: jnp.sum(weight * grid.fft(u)))
    # The transform is linear: the gradient applied to a field is the loss of that field.
    assert jnp.vdot(jax.grad(loss)(u[0]), u[1]) == pytest.approx(float(loss(u[1])), abs=1e-11)


def test_a_lift_takes_the_values_at_the_walls():
    line = SineGrid(8, 2.0)
    value, laplacian = lift(line, lambda x: 1.0 + 3.0 * (x > 1.0))
    np.testing.assert_allclose(value, 1 + 3 * line.x[0] / 2, atol=1e-14)
    np.testing.assert_allclose(laplacian, 0, atol=1e-14)
    plane = SineGrid((6, 5), (2.0, 1.0))
    x, y = plane.x
    # Products of linear functions are their own transfinite interpolation.
    value, laplacian = lift(plane, lambda x, y: 1 + x + x * y + x**2)
    np.testing.assert_allclose(value, 1 + x + x * y + x**2, atol=1e-13)
    np.testing.assert_allclose(laplacian, 2, atol=1e-12)


def test_a_lift_of_slopes_has_them():
    grid = CosineGrid(6, 2.0)
    value, laplacian = lift_slopes(grid, 1.0, 4.0)
    np.testing.assert_allclose(value, grid.x[0] + 0.75 * grid.x[0] ** 2, atol=1e-13)
    np.testing.assert_allclose(laplacian, 1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_series_has_the_given_modes_and_strength(kind):
    grid = make(kind, (9, 8))
    draw = jax.vmap(lambda k: truncated_wall_series(k, grid, 3, std=0.5))
    u = draw(jax.random.split(jax.random.key(1), 500))
    assert float(jnp.sqrt(jnp.mean(u**2))) == pytest.approx(0.5, rel=0.03)
    m, n = grid.mode_numbers()
    np.testing.assert_allclose(grid.fft(u) * ((m > 3) | (n > 3)), 0, atol=1e-12)


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`shape` must be at least 4"):
        SineGrid(3, 1.0)
    with pytest.raises(ValueError, match="`parities` must have one entry"):
        MixedWallGrid((4, 4), (1.0, 1.0), ("sine",))
    with pytest.raises(ValueError, match="must be \\(4,\\)"):
        SineGrid(4, 1.0).fft(jnp.ones(5))
    with pytest.raises(TypeError, match="must be real"):
        CosineGrid(4, 1.0).ifft(jnp.ones(4, complex))
    with pytest.raises(ValueError, match="sines on every axis"):
        lift(CosineGrid(4, 1.0), lambda x: x)
    with pytest.raises(ValueError, match="`grid` must have one dimension"):
        lift_slopes(CosineGrid((4, 4), (1.0, 1.0)), 0.0, 1.0)
