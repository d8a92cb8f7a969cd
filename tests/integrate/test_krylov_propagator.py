import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.linalg

from jaxsci.integrate import (
    CNRK2,
    DiagonalPropagator,
    ETDRK2,
    ETDRK4,
    KrylovPropagator,
    rollout,
    SemilinearTerm,
)
from jaxsci.spectral import FourierGrid

N = 12
RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(N, N)) - 3 * np.eye(N)
VECTOR = RNG.normal(size=N)
COTANGENT = RNG.normal(size=N)
H = 0.3


class Matrix(eqx.Module):
    entries: jax.Array

    def __call__(self, u):
        return self.entries @ u


def dense_phis(matrix, u, h, num=4):
    """phi_j(h A) u from one exponential of a bordered matrix."""
    n = len(u)
    bordered = np.zeros((n + num, n + num))
    bordered[:n, :n], bordered[:n, n] = h * matrix, u
    bordered[n : n + num - 1, n + 1 :] = np.eye(num - 1)
    exponential = scipy.linalg.expm(bordered)
    return [exponential[:n, :n] @ u, *(exponential[:n, n + j] for j in range(num))]


@jax.jit
def combined(matrix, u, h):
    """exp(h A) u + .7 (2 M_0 - M_1/h + 3 M_2) u."""
    linear = KrylovPropagator(Matrix(matrix), krylov_dim=N)
    m0, m1, m2 = linear.moments(0.0, h, 3)
    moments = linear.act(2 * m0 - m1 / h + 3 * m2, u)
    return linear.act(linear.propagate(0.0, h), u) + 0.7 * moments


def dense_combined(matrix, u, h):
    p0, p1, p2, p3, _ = dense_phis(matrix, u, h)
    return p0 + 0.7 * (2 * h * p1 - h * p2 + 3 * h**3 * p3)


gradient = jax.jit(jax.grad(lambda *x: jnp.dot(COTANGENT, combined(*x)), argnums=(0, 1, 2)))


def slope(function, x, direction):
    return (function(x + 1e-6 * direction) - function(x - 1e-6 * direction)) / 2e-6


def test_actions_of_combined_coefficients_are_those_of_the_dense_functions():
    value = combined(MATRIX, VECTOR, H)
    np.testing.assert_allclose(value, dense_combined(MATRIX, VECTOR, H), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("matrix", "vector"),
    [(MATRIX, VECTOR), (np.diag(-np.arange(N) * 1.0), np.eye(N)[2])],
    ids=["full space", "invariant space"],
)
def test_gradients_are_central_differences_also_where_the_space_is_invariant(matrix, vector):
    loss = lambda *x: COTANGENT @ dense_combined(*x)
    by_matrix, by_vector, by_step = gradient(matrix, vector, H)
    da, du = RNG.normal(size=(N, N)), RNG.normal(size=N)
    np.testing.assert_allclose(
        jnp.sum(by_matrix * da), slope(lambda a: loss(a, vector, H), matrix, da), rtol=1e-7
    )
    np.testing.assert_allclose(
        by_vector @ du, slope(lambda u: loss(matrix, u, H), vector, du), rtol=1e-7
    )
    np.testing.assert_allclose(by_step, slope(lambda h: loss(matrix, vector, h), H, 1.0), rtol=1e-7)


def test_a_zero_state_and_a_zero_step_are_safe():
    assert not np.any(combined(MATRIX, np.zeros(N), H))
    assert np.all(np.isfinite(gradient(MATRIX, np.zeros(N), H)[1]))
    linear = KrylovPropagator(Matrix(jnp.asarray(MATRIX)), krylov_dim=4)
    np.testing.assert_allclose(linear.act(linear.propagate(1.0, 1.0), VECTOR), VECTOR, rtol=1e-14)
    assert not np.any(linear.act(linear.moments(1.0, 1.0, 1)[0], VECTOR))


def test_the_error_estimate_is_of_the_size_of_the_error():
    matrix = -np.diag(np.linspace(0, 40, 60))
    u = jnp.ones(60)
    linear = KrylovPropagator(Matrix(jnp.asarray(matrix)), krylov_dim=12)
    coefficient = linear.propagate(0.0, 1.0)
    value, estimate = jax.jit(
        lambda u: (linear.act(coefficient, u), linear.error_estimate(coefficient, u))
    )(u)
    error = np.linalg.norm(value - np.exp(np.diag(matrix)) * u)
    assert error / 5 < estimate < 20 * error


def test_apply_and_solve_take_lineax_operators_and_are_inverse_to_each_other():
    linear = KrylovPropagator(lx.MatrixLinearOperator(jnp.asarray(MATRIX)), rtol=1e-12)
    u = jnp.asarray(VECTOR)
    rhs = u - 0.1 * linear.apply(0.0, u)
    np.testing.assert_allclose(linear.solve(0.0, 0.1, rhs), u, rtol=1e-9)


GRID = FourierGrid((32,), (2 * np.pi,))
NUM_STEPS = (16, 32, 64)


class Diffusion(eqx.Module):
    """d_x (a(x) d_x u), a = 1 + contrast cos x, on the stored half of the spectrum."""

    contrast: jax.Array

    def __call__(self, uh):
        (x,) = GRID.x
        flux = (1 + self.contrast * jnp.cos(x)) * GRID.ifft(GRID.derivative(uh, 0))
        return GRID.derivative(GRID.fft(flux), 0)


def initial():
    (x,) = GRID.x
    return GRID.fft(jnp.exp(jnp.sin(x)))


def reaction(t, uh, args):
    u = GRID.ifft(uh)
    return GRID.fft(u - u**3)


def diffuse(solver, contrast, dt, num_steps):
    linear = KrylovPropagator(Diffusion(contrast), krylov_dim=24)
    term = SemilinearTerm(linear, reaction)
    uh = rollout(solver, term, initial(), dt=dt, num_steps=num_steps, save_every=num_steps)
    return GRID.ifft(uh[0])


def test_a_real_linear_operator_on_a_half_spectrum_is_exponentiated_exactly():
    diffusion = Diffusion(jnp.asarray(0.5))
    on_field = lambda u: GRID.ifft(diffusion(GRID.fft(u)))
    dense = jax.jacobian(on_field)(jnp.zeros(32))
    exact = scipy.linalg.expm(0.02 * np.asarray(dense)) @ np.asarray(GRID.ifft(initial()))
    linear = KrylovPropagator(diffusion, krylov_dim=30)
    act = jax.jit(lambda uh: GRID.ifft(linear.act(linear.propagate(0.0, 0.02), uh)))
    value = act(initial())
    np.testing.assert_allclose(value, exact, atol=1e-11)


@pytest.mark.parametrize(
    ("solver", "order"), [(ETDRK2(), 2), pytest.param(ETDRK4(), 4, marks=pytest.mark.slow)]
)
def test_methods_keep_their_order_for_diffusion_that_varies_in_space(solver, order):
    linear = KrylovPropagator(Diffusion(jnp.asarray(0.5)), krylov_dim=24)
    term = SemilinearTerm(linear, reaction)

    @jax.jit
    def solve(num_steps):
        h = 0.2 / num_steps
        coefficients = solver.coefficients(term, 0.0, h)

        def step(i, carry):
            u, history = carry
            u, _, _, history = solver.advance(term, coefficients, i * h, h, u, None, history)
            return u, history

        start = initial(), solver.start(term, 0.0, initial(), None)
        return GRID.ifft(jax.lax.fori_loop(0, num_steps, step, start)[0])

    coarse, middle, fine = (solve(n) for n in NUM_STEPS)
    differences = [float(jnp.max(jnp.abs(a - b))) for a, b in ((coarse, middle), (middle, fine))]
    np.testing.assert_allclose(np.log2(differences[0] / differences[1]), order, atol=0.25)


@pytest.mark.slow
def test_implicit_methods_solve_with_it_to_the_solution_of_the_exponential_ones():
    exact = diffuse(ETDRK4(), jnp.asarray(0.5), 0.0125, 8)
    value = diffuse(CNRK2(), jnp.asarray(0.5), 0.0125, 8)
    np.testing.assert_allclose(value, exact, atol=2e-3)


@pytest.mark.slow
def test_gradients_through_a_rollout_are_central_differences():
    @jax.jit
    def loss(contrast):
        return jnp.sum(diffuse(ETDRK2(), contrast, 0.05, 3) ** 2)

    central = (loss(0.5 + 1e-5) - loss(0.5 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(0.5)), central, rtol=1e-6)


@pytest.mark.slow
def test_it_may_be_batched_and_single_precision_stays_so():
    linear = KrylovPropagator(Matrix(jnp.asarray(MATRIX, jnp.float32)), krylov_dim=N)
    coefficient = linear.propagate(jnp.float32(0), jnp.float32(H))
    states = jnp.asarray(RNG.normal(size=(3, N)), jnp.float32)
    values = jax.vmap(lambda u: linear.act(coefficient, u))(states)
    assert values.dtype == jnp.float32
    exact = states @ scipy.linalg.expm(H * MATRIX).T
    np.testing.assert_allclose(values, exact, atol=1e-5)


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`krylov_dim` must be at least 1"):
        KrylovPropagator(lambda u: u, krylov_dim=0)
    with pytest.raises(TypeError, match="`operator` must be a function"):
        KrylovPropagator(3.0)
    linear = KrylovPropagator(lambda u: u[:2])
    with pytest.raises(ValueError, match="`operator` must return the structure and shapes"):
        linear.act(linear.propagate(0.0, 1.0), jnp.ones(3))


@pytest.mark.bad_input
def test_a_diagonal_propagator_names_the_alternatives_to_what_it_cannot_be():
    for operator in (lambda u: u, lx.MatrixLinearOperator(jnp.eye(3))):
        with pytest.raises(ValueError, match="`KrylovPropagator` for any other operator"):
            DiagonalPropagator(operator)
    with pytest.raises(ValueError, match="`KrylovPropagator` for any other operator"):
        DiagonalPropagator(jnp.eye(3)).apply(0.0, jnp.ones(3))
