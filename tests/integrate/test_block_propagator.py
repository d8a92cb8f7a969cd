from functools import cache

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

from jaxsci.integrate import (
    BlockPropagator,
    CNAB2,
    CNRK2,
    CNRK4,
    DiagonalPropagator,
    ETDMultistep,
    ETDRK1,
    ETDRK2,
    ETDRK3,
    ETDRK4,
    IFRK4,
    rollout,
    SBDF2,
    SemilinearTerm,
)

# Damped oscillators, one of them strongly; one block at which neither is alone; a Jordan block.
BLOCKS = np.array([[[0, 0, -30, 0], [1, 1, 2, 1.0]], [[-4, -900, 1, 0], [-0.4, -60, -5, 0]]], float)
U0 = np.array([[1.0, -0.5, 0.3, 2.0], [0.2, 0.7, -1.0, 0.5]])


def exact(t):
    return np.stack([scipy.linalg.expm(t * BLOCKS[:, :, i]) @ U0[:, i] for i in range(4)], axis=-1)


@pytest.mark.parametrize(
    "solver", [ETDRK1(), ETDRK2(), ETDRK3(), ETDRK4(), ETDMultistep(3), IFRK4()], ids=repr
)
def test_the_linear_problem_is_exact_for_any_step(solver):
    term = SemilinearTerm(BlockPropagator(BLOCKS))
    found = jax.jit(lambda dt: rollout(solver, term, jnp.asarray(U0), dt=dt, num_steps=4))
    for dt in (0.01, 0.37, -0.02):
        expected = np.stack([exact(dt * (n + 1)) for n in range(4)])
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(found(dt), expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.slow
def test_output_between_steps_is_exact_as_well():
    term = SemilinearTerm(BlockPropagator(BLOCKS))
    ts = jnp.array([0.0, 0.11, 0.4, 0.97, 1.0])
    sol = diffrax.diffeqsolve(
        term, ETDRK4(), 0.0, 1.0, 0.3, jnp.asarray(U0), saveat=diffrax.SaveAt(ts=ts)
    )
    np.testing.assert_allclose(sol.ys, [exact(t) for t in ts], rtol=0, atol=1e-12)


def force(t, u, args=None):
    return jnp.stack([-u[0] * u[1] ** 2, jnp.sin(t) - 3 * u[0] ** 3])


@cache
def reference():
    def rate(t, y):
        u = y.reshape(2, 4)
        n = np.stack([-u[0] * u[1] ** 2, np.sin(t) - 3 * u[0] ** 3])
        return (np.einsum("ijn,jn->in", BLOCKS / 4, u) + n).ravel()

    solve = scipy.integrate.solve_ivp
    sol = solve(rate, (0, 1), U0.ravel() / 2, method="Radau", rtol=1e-12, atol=1e-13)
    return sol.y[:, -1].reshape(2, 4)


@pytest.mark.parametrize(
    ("solver", "order", "steps"),
    [
        (ETDRK2(), 2, 160),
        (ETDRK3(), 3, 80),
        (ETDRK4(), 4, 80),
        (ETDMultistep(3), 3, 160),
        (SBDF2(), 2, 640),
        (CNRK4(), 2, 640),
    ],
    ids=repr,
)
def test_orders_hold_with_coupled_linear_parts(solver, order, steps):
    term = SemilinearTerm(BlockPropagator(BLOCKS / 4), force)

    @jax.jit
    def solve(num_steps):
        dt = 1 / num_steps
        coefficients = solver.coefficients(term, 0.0, dt)

        def step(i, carry):
            u, history = carry
            u, _, _, history = solver.advance(term, coefficients, i * dt, dt, u, None, history)
            return u, history

        u0 = jnp.asarray(U0) / 2
        return jax.lax.fori_loop(0, num_steps, step, (u0, solver.start(term, 0.0, u0, None)))[0]

    errors = [np.max(np.abs(solve(n) - reference())) for n in (steps, 2 * steps)]
    assert errors[1] > 1e-12
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("solver", [ETDRK4(), CNAB2(), CNRK2()], ids=repr)
def test_diagonal_blocks_give_what_the_diagonal_gives(solver):
    diagonal = np.array([[-1.0, -30.0, 0.2], [-3.0, 0.0, -0.5]])
    blocks = np.einsum("ij,in->ijn", np.eye(2), diagonal)
    run = lambda linear: rollout(
        solver,
        SemilinearTerm(linear, force),
        jnp.asarray(U0[:, :3]) / 2,
        dt=0.05,
        num_steps=3,
    )
    found, expected = run(BlockPropagator(blocks)), run(DiagonalPropagator(diagonal))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("c", [1, 2, 3])
@pytest.mark.parametrize("dtype", [float, complex])
def test_apply_and_solve_are_those_of_each_matrix(c, dtype):
    rng = np.random.default_rng(c)
    draw = lambda *shape: (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(complex)
    blocks, u = draw(c, c, 1, 5), draw(c, 4, 5)
    if dtype is float:
        blocks = blocks.real
    linear = BlockPropagator(blocks)
    each = np.broadcast_to(blocks, (c, c, 4, 5))
    np.testing.assert_allclose(
        linear.apply(0.0, jnp.asarray(u)), np.einsum("ijxy,jxy->ixy", each, u), rtol=1e-13
    )
    matrices = np.eye(c) - 0.3 * np.moveaxis(each, (0, 1), (-2, -1))
    expected = np.moveaxis(
        np.linalg.solve(matrices, np.moveaxis(u, 0, -1)[..., None])[..., 0], -1, 0
    )
    np.testing.assert_allclose(linear.solve(0.0, 0.3, jnp.asarray(u)), expected, rtol=1e-11)


def test_one_block_serves_all_points_and_the_state_sets_the_precision():
    linear = BlockPropagator(jnp.array([[0.0, 1.0], [-1.0, 0.0]]))
    u = jnp.ones((2, 3, 4), jnp.complex64)
    for x in (linear.apply(0.0, u), linear.solve(0.0, 0.1, u)):
        assert x.dtype == jnp.complex64
        assert x.shape == u.shape
    turned = linear.act(linear.propagate(0.0, np.pi / 2), jnp.ones((2, 3)))
    np.testing.assert_allclose(turned, [[1.0] * 3, [-1.0] * 3], rtol=1e-15)
    assert linear.constant


def test_derivatives_reach_the_parameters_of_a_symbol_function():
    class Oscillator(eqx.Module):
        rate: jax.Array

        def symbol(self):
            return jnp.array([[0.0, 1.0], [0.0, 0.0]]).at[1, 0].set(-self.rate)

    def end(rate):
        term = SemilinearTerm(BlockPropagator(Oscillator(rate).symbol))
        return rollout(ETDRK4(), term, jnp.array([0.3, 1.0]), dt=0.7, num_steps=1)[0, 0]

    # u = .3 cos(w t) + sin(w t)/w, also in the limit w -> 0 of the defective block.
    slope = jax.jit(jax.grad(end))
    w, t = 1.3, 0.7
    by_w = -0.3 * t * np.sin(w * t) + t * np.cos(w * t) / w - np.sin(w * t) / w**2
    np.testing.assert_allclose(slope(w**2), by_w / (2 * w), rtol=1e-12)
    np.testing.assert_allclose(slope(0.0), -0.3 * t**2 / 2 - t**3 / 6, rtol=1e-12)


@pytest.mark.bad_input
def test_blocks_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"`symbol` must consist of square blocks.*\(2, 3\)"):
        BlockPropagator(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`symbol` must consist of square blocks.*\(4,\)"):
        BlockPropagator(lambda: jnp.ones(4)).propagate(0.0, 1.0)
    linear = BlockPropagator(jnp.ones((2, 2, 5)))
    for shape in [(3, 5), (2, 4), (2,), (5, 2)]:
        with pytest.raises(ValueError, match=r"\(2, 2, 5\) needs a state \(2, \*space\)"):
            linear.apply(0.0, jnp.ones(shape))
    with pytest.raises(ValueError, match="acts on one array"):
        linear.apply(0.0, (jnp.ones(5), jnp.ones(5)))
