import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import ETDRK2, ETDRK4, num_function_evaluations, SBDF2, SemilinearTerm


def counted(solver, controller):
    """Evaluations as counted by a callback in the vector field, and as computed."""
    count = []

    def field(t, y, args):
        jax.debug.callback(lambda: count.append(1))
        return -(y**2)

    semilinear = isinstance(solver, ETDRK2 | ETDRK4 | SBDF2)
    term = SemilinearTerm(-1.0, field) if semilinear else diffrax.ODETerm(field)
    sol = diffrax.diffeqsolve(
        term, solver, 0.0, 1.0, 0.05, jnp.ones(1), stepsize_controller=controller
    )
    jax.effects_barrier()
    return len(count), int(num_function_evaluations(sol, solver))


@pytest.mark.parametrize(
    "solver",
    [
        diffrax.Tsit5(),
        diffrax.Heun(),
        diffrax.HalfSolver(diffrax.Euler()),
        ETDRK4(),
    ],
)
def test_the_number_is_that_of_the_calls_in_an_adaptive_solve(solver):
    true, computed = counted(solver, diffrax.PIDController(rtol=1e-4, atol=1e-4))
    assert computed == true


@pytest.mark.parametrize("solver", [diffrax.Euler(), SBDF2()])
def test_the_number_is_that_of_the_calls_with_a_constant_step(solver):
    true, computed = counted(solver, diffrax.ConstantStepSize())
    assert computed == true == 20


def test_a_batch_of_solves_has_a_batch_of_numbers():
    term = diffrax.ODETerm(lambda t, y, args: -y)
    stats = {"num_steps": np.array([3, 18])}
    sol = diffrax.diffeqsolve(term, diffrax.Euler(), 0.0, 1.0, 1.0, jnp.ones(1))
    sol = diffrax.Solution(**{**vars(sol), "stats": stats})
    np.testing.assert_array_equal(num_function_evaluations(sol, diffrax.Tsit5()), [19, 109])
    np.testing.assert_array_equal(num_function_evaluations(sol, diffrax.SPaRK()), [9, 54])


@pytest.mark.bad_input
def test_implicit_methods_are_refused():
    term = diffrax.ODETerm(lambda t, y, args: -y)
    sol = diffrax.diffeqsolve(term, diffrax.Euler(), 0.0, 1.0, 1.0, jnp.ones(1))
    with pytest.raises(ValueError, match=r"fixed number of times a step.*Kvaerno5"):
        num_function_evaluations(sol, diffrax.Kvaerno5())
