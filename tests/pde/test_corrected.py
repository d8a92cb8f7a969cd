"""Corrections inside the nonlinearity."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import integrate, pde
from jaxsci.spectral import FourierGrid

GRID = FourierGrid(32, 2 * np.pi)


class Reaction(eqx.Module):
    rate: jax.Array

    def __call__(self, u):
        return self.rate * (u - u**3)


def solve(equation, u0, checkpoint="none"):
    step = {"dt": 0.02, "num_steps": 6, "save_every": 6, "checkpoint": checkpoint}
    (uh,) = integrate.rollout(integrate.ETDRK2(), equation.term(), GRID.fft(u0), **step)
    return GRID.ifft(uh)


def field():
    return (0.5 * jnp.sin(GRID.x[0]) + 0.2 * jnp.cos(2 * GRID.x[0]))[None]


def test_a_correction_of_zero_changes_nothing():
    base = pde.Burgers(GRID, 0.1)
    equation = pde.CorrectedEquation(base, jnp.zeros_like)
    np.testing.assert_array_equal(solve(equation, field()), solve(base, field()))
    uh = GRID.fft(field())
    assert equation.invariants(uh) == base.invariants(uh)
    assert (equation.grid, equation.channels) == (base.grid, base.channels)
    np.testing.assert_array_equal(
        equation.initial(jax.random.key(1)), base.initial(jax.random.key(1))
    )


def test_heat_corrected_by_a_reaction_is_allen_cahn():
    u = field()
    corrected = pde.CorrectedEquation(pde.Heat(GRID, 0.1), Reaction(jnp.asarray(0.7)), order=0)
    uh = GRID.fft(u)
    found = corrected.term().vf(jnp.asarray(0.0), uh, None)
    expected = pde.AllenCahn(GRID, 0.1, 0.7).term().vf(jnp.asarray(0.0), uh, None)
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_the_result_is_dealiased_for_the_order_given():
    rough = lambda u: jnp.cos(11 * GRID.x[0])[None] + 0 * u
    uh = GRID.fft(field())
    kept = pde.CorrectedEquation(pde.Heat(GRID), rough, order=0).nonlinear(0.0, uh)
    cut = pde.CorrectedEquation(pde.Heat(GRID), rough).nonlinear(0.0, uh)
    assert float(jnp.abs(kept[0, 11])) == pytest.approx(16)
    np.testing.assert_allclose(cut, 0, atol=1e-13)


def test_the_gradient_by_the_correction_is_the_same_in_every_checkpoint_mode():
    u0 = field()

    def loss(rate, checkpoint):
        return jnp.sum(
            solve(pde.CorrectedEquation(pde.Heat(GRID, 0.1), Reaction(rate)), u0, checkpoint) ** 2
        )

    modes = ("none", "step", "sqrt")
    gradient = jax.jit(lambda r: [jax.grad(loss)(r, m) for m in modes])
    found = gradient(jnp.asarray(0.7))
    value = jax.jit(lambda r: loss(r, "none"))
    difference = float(value(0.7 + 1e-5) - value(0.7 - 1e-5)) / 2e-5
    assert float(found[0]) == pytest.approx(difference, rel=1e-7)
    np.testing.assert_allclose(found[1:], found[0], rtol=1e-12)


@pytest.mark.bad_input
def test_bad_corrections_are_refused():
    with pytest.raises(TypeError, match="correction"):
        pde.CorrectedEquation(pde.Heat(GRID), 1.0)
    with pytest.raises(ValueError, match="order"):
        pde.CorrectedEquation(pde.Heat(GRID), jnp.sin, order=-1)
    wrong = pde.CorrectedEquation(pde.Heat(GRID), lambda u: u[0])
    with pytest.raises(ValueError, match="correction"):
        wrong.nonlinear(0.0, GRID.fft(field()))
