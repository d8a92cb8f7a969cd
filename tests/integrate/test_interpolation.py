import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

from integrate.test_solver import manufactured
from jaxsci.integrate import ETDMultistep, ETDRK2, ETDRK4, SBDF2, SemilinearTerm

DENSE = diffrax.SaveAt(dense=True)
SYMBOL = np.array([-50.0, 3j, -1 + 1j])


@pytest.mark.parametrize("solver", [ETDRK2(), ETDRK4(), ETDMultistep(3)])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), pytest.param(1.0, 0.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("real_state", [False, True])
def test_output_between_steps_is_exact_for_linear_problems(solver, t0, t1, real_state):
    symbol = SYMBOL if t1 > t0 else SYMBOL.imag * 1j
    term = SemilinearTerm(symbol, real_state=real_state)
    y0 = term.encode(jnp.asarray([1 + 0j, 2.0, 1j]))
    sol = diffrax.diffeqsolve(term, solver, t0, t1, (t1 - t0) / 4, y0, saveat=DENSE)
    for t in (0.1, 0.33, 0.5, 0.9):
        expected = np.exp((t - t0) * symbol) * np.array([1, 2, 1j])
        np.testing.assert_allclose(term.decode(sol.evaluate(t)), expected, atol=1e-13)


@pytest.mark.slow
def test_output_between_steps_converges_for_nonlinear_problems():
    term, exact = manufactured()
    times = np.linspace(0.013, 0.97, 17)
    for solver, order in ((ETDRK2(), 2), (ETDRK4(), 3), (SBDF2(), 2)):
        errors = []
        for n in (10, 20, 40):
            sol = diffrax.diffeqsolve(term, solver, 0.0, 1.0, 1 / n, exact(0.0), saveat=DENSE)
            errors.append(max(float(jnp.max(jnp.abs(sol.evaluate(t) - exact(t)))) for t in times))
        assert np.log2(errors[1] / errors[2]) > order - 0.35


@pytest.mark.slow
def test_increments_are_differences_of_states():
    term, exact = manufactured()
    sol = diffrax.diffeqsolve(term, ETDRK4(), 0.0, 1.0, 0.25, exact(0.0), saveat=DENSE)
    np.testing.assert_allclose(
        sol.evaluate(0.3, 0.45), sol.evaluate(0.45) - sol.evaluate(0.3), rtol=1e-12
    )
