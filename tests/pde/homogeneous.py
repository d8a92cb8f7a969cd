"""Reaction systems without space: the ordinary differential equation of their rates."""

import diffrax
import jax.numpy as jnp
import numpy as np

from pde.calculus import solve


def check_homogeneous(equation, rate, u0, t1, num_steps, atol):
    """A uniform field follows u' = rate(u), solved by an adaptive explicit method."""
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: jnp.stack(rate(*y))),
        diffrax.Tsit5(),
        0.0,
        t1,
        1e-3,
        jnp.asarray(u0),
        stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-12),
        max_steps=100_000,
    )
    shape = equation.grid.shape
    uniform = lambda y: jnp.broadcast_to(y.reshape(2, *(1,) * len(shape)), (2, *shape))
    u = solve(equation, uniform(jnp.asarray(u0)), t1, num_steps)
    np.testing.assert_allclose(u, uniform(sol.ys[0]), rtol=0, atol=atol)
