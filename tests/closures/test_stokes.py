import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closures import theta_grid
from jaxsci.closures import ConjugateGradientStokes, PicardStokes, StokesFlow
from jaxsci.spectral import FourierGrid

GRID = FourierGrid((12, 10), (3.0, 2.0))
TIGHT = {"cg": ConjugateGradientStokes(1e-13), "picard": PicardStokes(1e-13)}


def smooth(seed, size=1.0):
    rng = np.random.default_rng(seed)
    x, y = (np.arange(n) / n for n in GRID.shape)
    waves = [np.exp(2j * np.pi * (k * x[:, None] + m * y)) for k in (-1, 0, 1) for m in (-1, 0, 1)]
    weights = rng.normal(size=9) + 1j * rng.normal(size=9)
    return size * sum(w * f for w, f in zip(weights, waves))


DRIVING = jnp.asarray(smooth(0))
A4 = jnp.asarray(0.3 * smooth(1) / np.abs(smooth(1)).max())
C = jnp.asarray(1 + 0.3 * smooth(2).real / np.abs(smooth(2)).max())


def stress(eps, beta, driving=DRIVING):
    return driving + beta * (C * eps + A4 * eps.conj()) / 4


def cubic(eps, beta, driving=DRIVING):
    return driving + beta * (C * eps + jnp.tanh(eps.real**2) * eps) / 4


@eqx.filter_jit
def solve(solver, beta, driving=DRIVING, law=stress):
    stiffness = beta * jnp.max(C) / 4
    f = lambda eps: law(eps, beta, driving)
    return solver(StokesFlow(GRID), f, stiffness, jnp.float64, jnp.float64)


def residual(vorticity, beta, law=stress):
    flow = StokesFlow(GRID)
    return jnp.abs(vorticity - flow.vorticity(law(flow.strain(vorticity), beta))).max()


def test_the_flow_of_a_stress_solves_the_stokes_equation():
    """-Lap u + grad Pi = div sigma, div u = 0, by an independent Leray projection."""
    sigma = smooth(3)
    s = np.array([[sigma.real, sigma.imag], [sigma.imag, -sigma.real]])
    kx, ky = theta_grid.box_wavenumbers(GRID.shape, GRID.lengths, nyquist=False)
    k = np.array([kx, ky])
    k2 = kx**2 + ky**2
    inverse = np.where(k2 > 0, 1 / np.where(k2 > 0, k2, 1), 0)
    force = np.einsum("jxy,ijxy->ixy", 1j * k, np.fft.fft2(s))
    uh = (force - k * np.einsum("ixy,ixy->xy", k, force) * inverse) * inverse
    grad = np.fft.ifft2(1j * k[None] * uh[:, None]).real
    flow = StokesFlow(GRID)
    vorticity = flow.vorticity(jnp.asarray(sigma))
    velocity, w, eps = flow.fields(vorticity)
    np.testing.assert_allclose(velocity, np.fft.ifft2(uh).real, atol=1e-14)
    np.testing.assert_allclose(w, grad[1, 0] - grad[0, 1], atol=1e-13)
    np.testing.assert_allclose(eps.real, grad[0, 0], atol=1e-13)
    np.testing.assert_allclose(eps.imag, (grad[0, 1] + grad[1, 0]) / 2, atol=1e-13)
    np.testing.assert_allclose(flow.strain(vorticity), eps, atol=1e-14)


@pytest.mark.parametrize("name", TIGHT)
@pytest.mark.parametrize("beta", [0.8, 20.0])
def test_the_solution_equals_a_dense_solve(name, beta):
    n = GRID.num_points
    flow = StokesFlow(GRID)

    def matrix_column(v):
        eps = jax.lax.complex(v[:n], v[n:]).reshape(GRID.shape)
        response = stress(eps, beta) - DRIVING
        out = eps - flow.strain(flow.vorticity(response))
        return jnp.concatenate([out.real.ravel(), out.imag.ravel()])

    matrix = np.asarray(jax.jit(jax.vmap(matrix_column))(jnp.eye(2 * n))).T
    rhs = flow.strain(flow.vorticity(DRIVING))
    dense = np.linalg.solve(matrix, np.concatenate([rhs.real.ravel(), rhs.imag.ravel()]))
    got = flow.strain(solve(TIGHT[name], jnp.asarray(beta)))
    np.testing.assert_allclose(got.real.ravel(), dense[:n], atol=1e-11)
    np.testing.assert_allclose(got.imag.ravel(), dense[n:], atol=1e-11)


@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
@pytest.mark.parametrize("name", TIGHT)
def test_the_residual_is_within_the_tolerance_asked_for(name, rtol):
    solver = {"cg": ConjugateGradientStokes, "picard": PicardStokes}[name](rtol)
    vorticity = solve(solver, jnp.asarray(0.8))
    assert residual(vorticity, 0.8) <= 3 * rtol * jnp.abs(vorticity).max()


def test_picard_solves_a_stress_that_is_nonlinear_in_the_strain():
    vorticity = solve(TIGHT["picard"], jnp.asarray(0.8), law=cubic)
    assert residual(vorticity, 0.8, cubic) <= 1e-11 * jnp.abs(vorticity).max()


@pytest.mark.parametrize(("name", "law"), [("cg", stress), ("picard", cubic)])
def test_forward_and_reverse_derivatives_equal_central_differences(name, law):

    @jax.jit
    def energy(beta, size):
        w = solve(TIGHT[name], beta, size * DRIVING, law)
        return jnp.sum(jnp.abs(w) ** 2) / GRID.num_points**2

    beta, size, h = jnp.asarray(0.8), jnp.asarray(1.0), 1e-4
    reverse = jax.grad(energy, (0, 1))(beta, size)
    forwards = jax.jacfwd(energy, (0, 1))(beta, size)
    for i, (db, ds) in enumerate([(1.0, 0.0), (0.0, 1.0)]):
        plus, minus = energy(beta + h * db, size + h * ds), energy(beta - h * db, size - h * ds)
        difference = (plus - minus) / (2 * h)
        forward = forwards[i]
        np.testing.assert_allclose(reverse[i], difference, rtol=1e-6)
        np.testing.assert_allclose(forward, difference, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIGHT)
def test_second_derivatives_equal_differences_of_first_ones(name):
    law = stress if name == "cg" else cubic

    def energy(beta):
        w = solve(TIGHT[name], beta, law=law)
        return jnp.sum(jnp.abs(w) ** 2) / GRID.num_points**2

    slope = jax.jit(jax.grad(energy))
    beta, h = jnp.asarray(0.8), 1e-4
    second = jax.jit(jax.jacfwd(jax.grad(energy)))(beta)
    np.testing.assert_allclose(second, (slope(beta + h) - slope(beta - h)) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("solver", [ConjugateGradientStokes, PicardStokes])
def test_an_iteration_cut_short_gives_nan(solver):
    vorticity = solve(solver(1e-12, max_steps=2), jnp.asarray(0.8))
    assert np.all(np.isnan(vorticity))


@pytest.mark.parametrize("name", TIGHT)
def test_no_stress_no_flow(name):
    assert np.all(solve(TIGHT[name], jnp.asarray(0.8), 0 * DRIVING) == 0)


def test_a_dealiased_stress_drives_kept_modes_only():
    rng = np.random.default_rng(0)
    sigma = jnp.asarray(rng.normal(size=GRID.shape) + 1j * rng.normal(size=GRID.shape))
    vorticity = StokesFlow(GRID, dealias=True).vorticity(sigma)
    nx, ny = GRID.mode_numbers()
    cut = (np.abs(nx) >= 4) | (np.abs(ny) >= 10 / 3)
    assert np.all(np.asarray(vorticity)[cut] == 0)


@pytest.mark.bad_input
@pytest.mark.parametrize("solver", [ConjugateGradientStokes, PicardStokes])
def test_tolerances_must_be_positive_and_some_steps_allowed(solver):
    with pytest.raises(ValueError, match="`rtol` must be positive"):
        solver(rtol=0.0)
    with pytest.raises(ValueError, match="`max_steps` must be at least 1"):
        solver(max_steps=0)


@pytest.mark.bad_input
def test_the_flow_needs_a_real_plane():
    with pytest.raises(ValueError, match="`grid` must be two-dimensional and real"):
        StokesFlow(GRID.with_layout(real=False))
