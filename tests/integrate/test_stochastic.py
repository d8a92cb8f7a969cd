import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import (
    ETDRK1,
    ETDRK2,
    ExponentialEulerMaruyama,
    KrylovPropagator,
    LordRougemont,
    NoiseTerm,
    rollout,
    ScaledPropagator,
    SemilinearTerm,
    SpectralBrownianPath,
)
from jaxsci.spectral import FourierGrid

GRID = FourierGrid((16,), (2 * np.pi,))
DECAY = 0.1 * GRID.k2 + 0.5
AMPLITUDE = 3.0 / (1 + GRID.k2)
KEYS = jax.random.split(jax.random.key(1), 3000)


def tree(key, tol=2.0**-9, grid=GRID):
    return SpectralBrownianPath(grid, key, t0=0.0, t1=1.0, tol=tol)


def spectrum_matches(samples, exact):
    """Mean squares over samples within four standard errors in every mode."""
    measured = np.mean(np.abs(samples) ** 2, axis=0)
    # |z|^2 of a real Gaussian varies by sqrt(2) of its mean, of a complex one by its mean.
    spread = np.where(GRID.mode_weights() == 1, np.sqrt(2), 1) / np.sqrt(len(samples))
    assert np.all(np.abs(measured / exact - 1) < 4 * spread)


def test_increments_of_every_mode_have_the_length_of_the_interval_as_mean_square():
    sample = jax.vmap(lambda key: SpectralBrownianPath(GRID, key).evaluate(0.2, 0.7)[0])
    increments = sample(KEYS)
    spectrum_matches(increments, 0.5)
    np.testing.assert_allclose(GRID.project_real(increments[0]), increments[0], atol=1e-14)


@pytest.mark.slow
def test_increments_on_a_complex_grid_have_that_mean_square_too():
    grid = GRID.with_layout(real=False)
    sample = jax.vmap(lambda key: SpectralBrownianPath(grid, key).evaluate(0.0, 2.0)[0])
    increments = np.asarray(sample(KEYS))
    np.testing.assert_allclose(np.mean(np.abs(increments) ** 2, axis=0) / 2, 1, atol=0.08)
    assert np.max(np.abs(np.mean(increments**2, axis=0))) < 0.16


@pytest.mark.slow
def test_increments_of_a_resolved_path_add_up():
    path = tree(jax.random.key(2))
    parts = path.evaluate(0.1, 0.4) + path.evaluate(0.4, 0.8)
    np.testing.assert_allclose(parts, path.evaluate(0.1, 0.8), atol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_heat_equation_has_the_exact_variance_at_any_step(num_steps):
    time = 4.0

    @jax.jit
    @jax.vmap
    def solve(key):
        path = SpectralBrownianPath(GRID, key)
        terms = diffrax.MultiTerm(SemilinearTerm(-DECAY), NoiseTerm(AMPLITUDE, path))
        u0 = jnp.zeros((1, *GRID.spectral_shape), complex)
        solver = ExponentialEulerMaruyama()
        return rollout(
            solver, terms, u0, dt=time / num_steps, num_steps=num_steps, save_every=num_steps
        )[0, 0]

    stationary = AMPLITUDE**2 / (2 * DECAY)
    spectrum_matches(solve(KEYS), stationary * (1 - np.exp(-2 * DECAY * time)))


@pytest.mark.slow
def test_a_linear_part_that_varies_in_time_has_the_exact_variance():
    # L = -(1 + t) DECAY: int_0^1 exp(-2 DECAY (3/2 - s - s^2/2)) ds by quadrature.
    @jax.jit
    @jax.vmap
    def solve(key):
        linear = ScaledPropagator(lambda t: 1 + t, -DECAY)
        path = SpectralBrownianPath(GRID, key)
        terms = diffrax.MultiTerm(SemilinearTerm(linear), NoiseTerm(AMPLITUDE, path))
        u0 = jnp.zeros((1, *GRID.spectral_shape), complex)
        return rollout(ExponentialEulerMaruyama(), terms, u0, dt=0.5, num_steps=2)[-1, 0]

    nodes, weights = np.polynomial.legendre.leggauss(60)
    s = (nodes + 1) / 2
    decay = np.asarray(DECAY)[:, None]
    variance = np.asarray(AMPLITUDE) ** 2 * (
        np.exp(-2 * decay * (1.5 - s - s**2 / 2)) @ weights / 2
    )
    spectrum_matches(solve(KEYS), variance)


def nonlinear(t, uh, args):
    return GRID.fft(jnp.sin(GRID.ifft(uh)))


def initial():
    (x,) = GRID.x
    return GRID.fft(jnp.cos(x))[None]


def end(solver, key, num_steps, amplitude=AMPLITUDE, real_state=False):
    term = SemilinearTerm(-DECAY, nonlinear, real_state=real_state)
    terms = diffrax.MultiTerm(term, NoiseTerm(amplitude, tree(key), real_state=real_state))
    u0 = term.encode(initial())
    return term.decode(
        rollout(solver, terms, u0, dt=1 / num_steps, num_steps=num_steps, save_every=num_steps)[0]
    )


def test_without_noise_it_is_the_method_of_the_drift():
    for drift in (ETDRK1(), ETDRK2()):
        term = SemilinearTerm(-DECAY, nonlinear)
        noise = NoiseTerm(0.0 * AMPLITUDE, SpectralBrownianPath(GRID, jax.random.key(0)))
        terms = diffrax.MultiTerm(term, noise)
        solver = ExponentialEulerMaruyama(drift)
        value = rollout(solver, terms, initial(), dt=1 / 8, num_steps=8, save_every=8)[0]
        exact = rollout(drift, term, initial(), dt=1 / 8, num_steps=8, save_every=8)[0]
        np.testing.assert_allclose(value, exact, rtol=1e-13, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [LordRougemont(), ExponentialEulerMaruyama()])
def test_the_strong_order_is_one_on_a_given_path(solver):
    keys = KEYS[:100]

    def ends(num_steps):
        return jax.jit(jax.vmap(lambda key: end(solver, key, num_steps)))(keys)

    exact = ends(256)
    norm = lambda u: np.sqrt(np.mean(jax.vmap(GRID.norm)(u) ** 2))
    errors = [norm(ends(n) - exact) for n in (4, 16)]
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]) / 2, 1, atol=0.2)
    assert solver.strong_order(None) == 1


def test_the_mean_is_conserved_where_the_mean_is_neither_forced_nor_damped():
    amplitude = AMPLITUDE.at[0].set(0)
    path = SpectralBrownianPath(GRID, jax.random.key(3))
    terms = diffrax.MultiTerm(SemilinearTerm(-GRID.k2), NoiseTerm(amplitude, path))
    u0 = initial() + GRID.fft(jnp.ones(16))
    for solver in (LordRougemont(), ExponentialEulerMaruyama()):
        us = rollout(solver, terms, u0, dt=0.1, num_steps=5)
        np.testing.assert_array_equal(us[:, 0, 0], u0[0, 0])
        np.testing.assert_allclose(GRID.project_real(us), us, atol=1e-12)


@pytest.mark.parametrize(
    "solver",
    [ExponentialEulerMaruyama(), LordRougemont()],
)
@pytest.mark.slow
def test_diffeqsolve_with_a_real_state_takes_the_steps_of_rollout(solver):
    term = SemilinearTerm(-DECAY, nonlinear, real_state=True)
    noise = NoiseTerm(AMPLITUDE, tree(jax.random.key(4)), real_state=True)
    solution = diffrax.diffeqsolve(
        diffrax.MultiTerm(term, noise), solver, 0.0, 1.0, 0.125, term.encode(initial())
    )
    exact = end(solver, jax.random.key(4), 8)
    np.testing.assert_allclose(term.decode(solution.ys[-1]), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_the_noise_term_works_with_the_solvers_of_diffrax():
    def solve(num_steps):
        term = SemilinearTerm(-DECAY, nonlinear, real_state=True)
        noise = NoiseTerm(AMPLITUDE, tree(jax.random.key(5)), real_state=True)
        terms = diffrax.MultiTerm(term, noise)
        y0 = term.encode(initial())
        dt = 1 / num_steps
        return term.decode(
            rollout(diffrax.Euler(), terms, y0, dt=dt, num_steps=num_steps, save_every=num_steps)[0]
        )

    exact = end(ExponentialEulerMaruyama(), jax.random.key(5), 256)
    error = lambda n: float(GRID.norm(solve(n) - exact))
    assert error(128) < 0.3 * error(16) < 0.3


@pytest.mark.slow
def test_gradients_of_the_amplitude_are_central_differences():
    @jax.jit
    def loss(strength):
        u = end(ExponentialEulerMaruyama(), jax.random.key(6), 4, strength * AMPLITUDE)
        return GRID.norm(u) ** 2

    central = (loss(1 + 1e-5) - loss(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(loss)(1.0), central, rtol=1e-7)


def test_single_precision_stays_so():
    path = SpectralBrownianPath(GRID, jax.random.key(7), dtype=jnp.float32)
    terms = diffrax.MultiTerm(SemilinearTerm(-DECAY), NoiseTerm(AMPLITUDE, path))
    u0 = initial().astype(jnp.complex64)
    for solver in (LordRougemont(), ExponentialEulerMaruyama()):
        assert rollout(solver, terms, u0, dt=0.1, num_steps=2).dtype == jnp.complex64


@pytest.mark.bad_input
def test_misuse_is_refused():
    with pytest.raises(ValueError, match="Give all of `t0`, `t1` and `tol` or none"):
        SpectralBrownianPath(GRID, jax.random.key(0), t0=0.0)
    with pytest.raises(ValueError, match="`amplitude` must be finite"):
        NoiseTerm(jnp.nan, SpectralBrownianPath(GRID, jax.random.key(0)))
    path = SpectralBrownianPath(GRID, jax.random.key(0))
    linear = KrylovPropagator(lambda u: -u)
    terms = diffrax.MultiTerm(SemilinearTerm(linear), NoiseTerm(AMPLITUDE, path))
    with pytest.raises(TypeError, match="use `LordRougemont`"):
        rollout(ExponentialEulerMaruyama(), terms, initial(), dt=0.1, num_steps=1)


@pytest.mark.parametrize("solver", [ExponentialEulerMaruyama(), LordRougemont()])
def test_rounding_that_no_real_field_has_does_not_grow_under_noise(solver, key):
    grid = FourierGrid((8, 8), (6.0, 6.0))
    term = SemilinearTerm(jnp.asarray(1.0), projection=grid.project_real)
    noise = NoiseTerm(jnp.asarray(0.0), SpectralBrownianPath(grid, key))
    uh = jnp.zeros((1, *grid.spectral_shape), complex).at[0, 1, 0].set(1e-4)
    (found,) = rollout(
        solver, diffrax.MultiTerm(term, noise), uh, dt=0.5, num_steps=40, save_every=40
    )
    real = float(jnp.max(jnp.abs(grid.project_real(uh)))) * np.exp(20)
    np.testing.assert_allclose(jnp.max(jnp.abs(found)), real, rtol=1e-9)
    np.testing.assert_allclose(found, grid.project_real(found), atol=1e-6 * real)
