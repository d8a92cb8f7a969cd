"""Observed orders of ETDRK2 and ETDRK4 for every equation: an equation that is not smooth in its
coefficients, or whose linear part is treated wrongly, loses order here."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde
from jaxsci.integrate import ETDRK2, ETDRK4
from jaxsci.spectral import FourierGrid

LINE = FourierGrid(16, 2 * np.pi)
PLANE = FourierGrid((8, 9), (2 * np.pi, 2 * np.pi))

# name: (equation, end of time, numbers of steps)
CASES = {
    "burgers_1d": (pde.Burgers(LINE, 0.1), 1.0, (16, 32)),
    "burgers_2d": (pde.Burgers(PLANE, 0.1), 1.0, (16, 32)),
    "korteweg_de_vries": (pde.KortewegDeVries(LINE, 0.9, 0.05, 0.0), 1.0, (32, 64)),
    "kuramoto_sivashinsky_1d": (pde.KuramotoSivashinsky(LINE), 0.5, (32, 64)),
    "kuramoto_sivashinsky_2d": (pde.KuramotoSivashinsky(PLANE), 0.5, (32, 64)),
    "allen_cahn": (pde.AllenCahn(PLANE, 0.1, 1.2), 1.0, (16, 32)),
    "navier_stokes_2d": (
        pde.NavierStokes2D(PLANE, 0.05, drag=0.1, forcing=pde.kolmogorov(2)),
        1.0,
        (16, 32),
    ),
    "fisher_kpp": (pde.FisherKPP(PLANE, 0.1, 1.5), 1.0, (16, 32)),
    "swift_hohenberg": (pde.SwiftHohenberg(LINE, 0.5, 1.0, 0.6), 0.5, (32, 64)),
    "cahn_hilliard": (pde.CahnHilliard(LINE, 0.1), 0.25, (32, 64)),
    "general_convection": (
        pde.GeneralConvection(PLANE, (0.0, -0.3, 0.1, 0.02), 0.9, single_channel=True),
        1.0,
        (16, 32),
    ),
    "general_gradient_norm": (
        pde.GeneralGradientNorm(PLANE, (0.0, 0.2, 0.1)),
        1.0,
        (16, 32),
    ),
    "general_polynomial": (
        pde.GeneralPolynomial(LINE, (0.5, 0.2, 0.1), (0.1, 0.0, 0.3, -0.5)),
        1.0,
        (16, 32),
    ),
    "general_nonlinear": (
        pde.GeneralNonlinear(LINE, (0.0, 0.2, 0.1), -0.3, 0.8, 0.4),
        1.0,
        (16, 32),
    ),
}
# Equations without nonlinear part: every step size is exact.
LINEAR = {
    "heat": pde.Heat(PLANE, 0.3),
    "advection_diffusion": pde.AdvectionDiffusion(PLANE, 0.8, 0.1),
    "hyper_diffusion": pde.HyperDiffusion(PLANE, 0.05),
    "dispersion": pde.Dispersion(PLANE, 0.1),
    "general_linear": pde.GeneralLinear(PLANE, (-0.1, -0.3, 0.1, 0.05)),
}


def field(equation):
    """A smooth field with values between 0 and 1, different in each channel."""
    x = equation.grid.x
    return jnp.stack(
        [
            0.5 + 0.3 * jnp.sin(x[0] + 0.4 * i) + 0.2 * jnp.cos(2 * x[-1] - x[0])
            for i in range(equation.channels)
        ]
    )


@eqx.filter_jit
def solutions(equation, t1, num_steps):
    """The fields at t1 by both solvers; compiles once for all numbers of steps."""
    grid, term, dt = equation.grid, equation.term(), t1 / num_steps
    uh = grid.fft(field(equation))
    ends = []
    for solver in (ETDRK2(), ETDRK4()):
        coefficients = solver.coefficients(term, 0.0, dt)

        def step(i, carry, solver=solver, coefficients=coefficients):
            y, history = carry
            y, _, _, history = solver.advance(term, coefficients, i * dt, dt, y, None, history)
            return y, history

        start = uh, solver.start(term, 0.0, uh, None)
        ends.append(grid.ifft(jax.lax.fori_loop(0, num_steps, step, start)[0]))
    return ends


@pytest.mark.parametrize("name", CASES)
def test_etdrk2_converges_at_order_two_and_etdrk4_at_order_four(name):
    equation, t1, steps = CASES[name]
    run = lambda n: solutions(equation, jnp.asarray(t1), jnp.asarray(n))
    exact = run(16 * steps[-1])[1]
    errors = np.array([[float(jnp.max(jnp.abs(u - exact))) for u in run(n)] for n in steps])
    second, fourth = np.log2(errors[0] / errors[1])
    assert second == pytest.approx(2, abs=0.25), errors
    assert fourth == pytest.approx(4, abs=0.4), errors
    assert errors[1, 1] < 0.1 * errors[1, 0]


@pytest.mark.parametrize("name", LINEAR)
def test_linear_equations_are_solved_exactly_by_steps_of_any_size(name):
    equation = LINEAR[name]
    grid = equation.grid
    exact = grid.ifft(jnp.exp(0.7 * equation.symbol()) * grid.fft(field(equation)))
    for n in (1, 5):
        for u in solutions(equation, jnp.asarray(0.7), jnp.asarray(n)):
            np.testing.assert_allclose(u, exact, atol=1e-13)
