import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import GlobalRegularization, LocalRegularization, step_estimates

Y0 = jnp.array([1.0, 0.5])
CONTROLLER = diffrax.PIDController(rtol=1e-5, atol=1e-5)
OPTIONS = {"stepsize_controller": CONTROLLER, "max_steps": 64}


def field(t, y, theta):
    return jnp.tanh(theta * y) * jnp.cos(8 * t)


def call(theta):
    return diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.1, Y0, theta


def steps(theta):
    """Starts, lengths and states of the accepted steps."""
    saveat = diffrax.SaveAt(t0=True, steps=True)
    sol = diffrax.diffeqsolve(*call(theta), saveat=saveat, **OPTIONS)
    n = int(sol.stats["num_accepted_steps"])
    return sol.ts[:n], np.diff(sol.ts[: n + 1]), sol.ys[:n]


@pytest.mark.parametrize("kind", ["error", pytest.param("stiffness", marks=pytest.mark.slow)])
def test_the_penalty_is_the_sum_over_the_accepted_steps(kind):
    @jax.jit
    def one(t, h, y):
        found = step_estimates(*call(1.3)[:2], t, y, h, 1.3, CONTROLLER)
        return found.error * h if kind == "error" else found.stiffness

    solve = jax.jit(lambda theta: GlobalRegularization(kind).solve(*call(theta), **OPTIONS))
    sol, penalty = solve(1.3)
    expected = sum(one(t, h, y) for t, h, y in zip(*steps(1.3)))
    np.testing.assert_allclose(penalty, expected, rtol=1e-9)
    bare = jax.jit(lambda theta: diffrax.diffeqsolve(*call(theta), **OPTIONS))(1.3)
    assert jax.tree.structure(sol) == jax.tree.structure(bare)
    np.testing.assert_array_equal(sol.ys, bare.ys)


@pytest.mark.slow
def test_the_gradient_is_that_of_central_differences_with_the_steps_held_fixed():
    # Constant steps: then nothing but the parameter moves.
    @jax.jit
    def penalty(theta):
        return GlobalRegularization("error", normalize="state").solve(*call(theta), max_steps=64)[1]

    h = 1e-4
    expected = (penalty(1.3 + h) - penalty(1.3 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(penalty)(1.3), expected, rtol=1e-6)


@pytest.mark.slow
def test_the_local_penalty_times_the_number_of_steps_is_the_global_one_on_average():
    @jax.jit
    @jax.vmap
    def local(key):
        return LocalRegularization("error", "biased").solve(*call(1.3), key=key, **OPTIONS)[1]

    sol, total = GlobalRegularization("error").solve(*call(1.3), **OPTIONS)
    values = int(sol.stats["num_accepted_steps"]) * local(jax.random.split(jax.random.key(0), 400))
    assert abs(values.mean() - total) < 3 * values.std() / 20


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("regularization", "options", "message"),
    [
        (
            GlobalRegularization(),
            {"adjoint": diffrax.BacksolveAdjoint()},
            r"`adjoint` must differentiate the solver itself.*LocalRegularization",
        ),
        (
            GlobalRegularization(),
            {"stepsize_controller": diffrax.ConstantStepSize()},
            r'must have tolerances.*normalize="state"',
        ),
        (GlobalRegularization(), {"solver": diffrax.Euler()}, "must have an error estimate"),
        (
            GlobalRegularization("stiffness"),
            {"solver": diffrax.Heun()},
            "two stages at the end of its step",
        ),
    ],
)
def test_calls_that_cannot_work_say_why(regularization, options, message):
    term, solver, *rest = call(1.3)
    solver = options.pop("solver", solver)
    with pytest.raises(ValueError, match=message):
        regularization.solve(term, solver, *rest, **{**OPTIONS, **options})


@pytest.mark.bad_input
def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="`kind` must be one of"):
        GlobalRegularization("jerk")
    with pytest.raises(ValueError, match="`normalize` must be one of"):
        GlobalRegularization(normalize="rtol")
