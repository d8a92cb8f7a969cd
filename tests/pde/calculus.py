"""Right-hand sides by automatic differentiation of formulas in x, and orders of convergence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxsci import integrate


def points(grid):
    """Grid points `(num_points, ndim)`."""
    return jnp.stack([x.ravel() for x in grid.x], axis=-1)


def on_grid(function, grid):
    """Values of `function(point)` of any output shape, `(..., *grid.shape)`."""
    values = jax.jit(jax.vmap(function))(points(grid))
    return jnp.moveaxis(values, 0, -1).reshape(*values.shape[1:], *grid.shape)


def laplacian(function):
    """Laplacian of a function of a point, scalar or vector."""
    return lambda x: jnp.trace(jax.hessian(function)(x), axis1=-2, axis2=-1)


def wave(grid, phase=0.3):
    """A smooth periodic function of a point with a mean, mode numbers at most one an axis."""

    def function(x):
        theta = 2 * np.pi * x / jnp.asarray(grid.lengths)
        total = 0.4 + 0.7 * jnp.sin(jnp.sum(theta) + phase)
        for i in range(grid.ndim):
            total = total + (0.5 - 0.2 * i) * jnp.cos(theta[i] - phase * (i + 1))
        return total

    return function


@eqx.filter_jit
def right_hand_side(equation, u):
    """L u + N(0, u) at the grid points."""
    grid = equation.grid
    return grid.ifft(equation.term().vf(jnp.asarray(0.0), grid.fft(u), None))


def solve(equation, u0, t1, num_steps):
    """The field at t1 after `num_steps` steps of ETDRK4; compiles once for all `num_steps`."""
    bare = u0.shape == equation.grid.shape
    dt = jnp.asarray(t1 / max(num_steps, 1))
    u1 = _steps(equation, u0[None] if bare else u0, dt, jnp.asarray(num_steps))
    return u1[0] if bare else u1


@eqx.filter_jit
def _steps(equation, u0, dt, num_steps):
    grid, term, solver = equation.grid, equation.term(), integrate.ETDRK4()

    def step(i, carry):
        uh, _, _, state, _ = solver.step(
            term, i * dt, (i + 1) * dt, carry[0], None, carry[1], False
        )
        return uh, state

    uh = grid.fft(u0)
    start = uh, solver.init(term, 0 * dt, dt, uh, None)
    return grid.ifft(jax.lax.fori_loop(0, num_steps, step, start)[0])


def errors(equation, u0, t1, steps, exact):
    """Largest errors at t1."""
    return [float(jnp.max(jnp.abs(solve(equation, u0, t1, n) - exact))) for n in steps]


def orders(errors):
    """Observed orders of errors at step sizes that halve."""
    return np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))
