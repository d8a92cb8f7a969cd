from functools import cache

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optax
import pytest

from jaxsci.integrate import (
    ETDRK4,
    LocalRegularization,
    SemilinearTerm,
    SpectralPIDController,
    step_estimates,
)

Y0 = jnp.array([1.0, 0.5])
ADJOINTS = {
    "checkpointed": diffrax.RecursiveCheckpointAdjoint(),
    "direct": diffrax.DirectAdjoint(),
    "backsolve": diffrax.BacksolveAdjoint(),
    "forward": diffrax.ForwardMode(),
}
REVERSE = ("checkpointed", "backsolve", pytest.param("direct", marks=pytest.mark.slow))
OUTPUTS = {
    "end": diffrax.SaveAt(t1=True),
    "times": diffrax.SaveAt(ts=(0.2, 0.7), t0=True, t1=True),
    "all": diffrax.SaveAt(steps=True, dense=True, solver_state=True, controller_state=True),
}


def pid(tol):
    return diffrax.PIDController(rtol=tol, atol=tol)


def tanh_field(t, y, theta):
    return jnp.tanh(theta * y) * jnp.cos(8 * t)


def call(theta, field=tanh_field):
    return diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.1, Y0, theta


@cache
def regularized(regularization, adjoint="checkpointed", output="times", tol=1e-6):
    @jax.jit
    def run(theta, key):
        return regularization.solve(
            *call(theta),
            key=key,
            saveat=OUTPUTS[output],
            stepsize_controller=pid(tol),
            adjoint=ADJOINTS[adjoint],
            max_steps=64,
        )

    return run


@cache
def bare(adjoint="checkpointed", output="times"):
    @jax.jit
    def run(theta):
        return diffrax.diffeqsolve(
            *call(theta),
            saveat=OUTPUTS[output],
            stepsize_controller=pid(1e-6),
            adjoint=ADJOINTS[adjoint],
            max_steps=64,
        )

    return run


def assert_same_solution(sol, reference):
    assert jax.tree.structure(sol) == jax.tree.structure(reference)
    for a, b in zip(jax.tree.leaves(sol), jax.tree.leaves(reference)):
        np.testing.assert_array_equal(a, b)


@cache
def with_gradients(adjoint):
    """The solution, the gradient of the penalty, and of the solution with and without it."""
    key, run = jax.random.key(3), regularized(LocalRegularization("error"), adjoint)

    def both(theta):
        sol, penalty = run(theta, key)
        return (penalty, sol.ys.sum()), sol

    _, pullback, sol = jax.vjp(both, 1.3, has_aux=True)
    bare_gradient = jax.grad(lambda x: bare(adjoint)(x).ys.sum())(1.3)
    return sol, pullback((1.0, 0.0))[0], pullback((0.0, 1.0))[0], bare_gradient


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", REVERSE)
def test_the_solution_is_bit_identical_to_the_bare_one(adjoint):
    assert_same_solution(with_gradients(adjoint)[0], bare(adjoint)(1.3))


@pytest.mark.parametrize("adjoint", REVERSE)
def test_all_adjoints_give_the_same_gradient_of_the_penalty(adjoint):
    gradient = with_gradients(adjoint)[1]
    assert gradient != 0
    np.testing.assert_allclose(gradient, with_gradients("checkpointed")[1], rtol=1e-12)


@pytest.mark.parametrize("adjoint", REVERSE)
def test_the_gradient_of_the_solution_is_that_of_the_bare_solve(adjoint):
    _, _, found, expected = with_gradients(adjoint)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.slow
def test_forward_mode_gives_the_gradient_of_reverse_mode():
    run = regularized(LocalRegularization("error"), "forward")
    _, tangent = jax.jvp(lambda x: run(x, jax.random.key(3))[1], (1.3,), (1.0,))
    np.testing.assert_allclose(tangent, with_gradients("checkpointed")[1], rtol=1e-9)


def test_dense_output_steps_and_states_are_kept_as_asked():
    run = regularized(LocalRegularization("stiffness", "biased"), output="all")
    sol, reference = run(1.3, jax.random.key(1))[0], bare(output="all")(1.3)
    assert_same_solution(sol, reference)
    np.testing.assert_array_equal(sol.evaluate(0.37), reference.evaluate(0.37))


@pytest.mark.slow
def test_the_gradient_is_that_of_the_step_alone_unless_it_goes_through_the_solution():
    key, step = jax.random.key(5), 1e-3
    tau = float(jax.random.uniform(key, dtype=float))
    controller = diffrax.PIDController(rtol=0.0, atol=1e-8)

    def penalty(theta, through):
        term = diffrax.ODETerm(lambda t, y, args: args * y)
        start = term, diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.array(1.0), theta
        regularization = LocalRegularization(step=0.1, through_solution=through)
        return regularization.solve(*start, key=key, stepsize_controller=controller)[1]

    local = jax.jit(jax.value_and_grad(lambda x: penalty(x, False)))(1.0)
    whole = jax.jit(jax.value_and_grad(lambda x: penalty(x, True)))
    np.testing.assert_allclose(local[0], whole(1.0)[0], rtol=1e-12)
    # The penalty is proportional to y(tau) = e^(theta tau): tau is all that is missing.
    np.testing.assert_allclose((whole(1.0)[1] - local[1]) / local[0], tau, rtol=1e-4)
    high, low = whole(1.0 + step)[0], whole(1.0 - step)[0]
    np.testing.assert_allclose(whole(1.0)[1], (high - low) / (2 * step), rtol=1e-4)


@pytest.mark.slow
def test_the_mean_over_keys_is_the_mean_over_time():
    term = diffrax.ODETerm(lambda t, y, args: -y)
    regularization = LocalRegularization(step=0.1)

    @jax.jit
    @jax.vmap
    def penalty(key):
        return regularization.solve(
            term,
            diffrax.Tsit5(),
            0.0,
            1.0,
            0.1,
            jnp.array(1.0),
            key=key,
            stepsize_controller=pid(1e-3),
            max_steps=32,
        )[1]

    @jax.jit
    @jax.vmap
    def exact(tau, h):
        return (
            h * step_estimates(term, diffrax.Tsit5(), tau, jnp.exp(-tau), h, None, pid(1e-3)).error
        )

    taus = (jnp.arange(1000) + 0.5) / 1000
    np.testing.assert_allclose(exact(taus, jnp.full(1000, 0.1)).mean(), 1.6801906e-7, rtol=1e-6)
    values = penalty(jax.random.split(jax.random.key(0), 2000))
    expected = exact(taus, jnp.minimum(0.1, 1 - taus)).mean()  # no step goes beyond the end
    assert abs(values.mean() - expected) < 3 * values.std() / np.sqrt(2000)


def test_biased_samples_are_uniform_over_the_accepted_steps():
    regularization = LocalRegularization("stiffness", "biased")
    term = diffrax.ODETerm(lambda t, y, args: -(1 + 30 * t) * y)
    options = {"stepsize_controller": pid(1e-4), "max_steps": 64}
    start = (diffrax.Tsit5(), 0.0, 1.0, 0.01, jnp.array(1.0))

    @jax.jit
    @jax.vmap
    def penalties(key):
        return regularization.solve(term, *start, key=key, **options)[1]

    sol = diffrax.diffeqsolve(term, *start, saveat=diffrax.SaveAt(t0=True, steps=True), **options)
    accepted = int(sol.stats["num_accepted_steps"])
    starts = np.asarray(sol.ts[:accepted])
    # The rate at the end of the step is what the two last stages see.
    expected = (1 + 30 * np.asarray(sol.ts[1 : accepted + 1])) / 3.5068
    found = np.asarray(penalties(jax.random.split(jax.random.key(0), 1000)))
    np.testing.assert_allclose(np.unique(found.round(9)), expected.round(9), rtol=1e-6)
    counts = np.array([np.sum(np.isclose(found, e, rtol=1e-6)) for e in expected])
    assert counts.sum() == 1000
    chi2 = np.sum((counts - 1000 / accepted) ** 2) / (1000 / accepted)
    assert chi2 < accepted + 4 * np.sqrt(2 * accepted)
    assert len(starts) > 5


def test_the_error_penalty_of_an_accepted_step_is_at_most_its_length():
    run = regularized(LocalRegularization("error", "biased"))
    sol = bare(output="all")(1.3)
    ends = sol.ts[: int(sol.stats["num_accepted_steps"])]
    longest = float(np.max(np.diff(ends, prepend=0.0)))
    for i in range(5):
        assert 0 < run(1.3, jax.random.key(i))[1] <= longest


def test_the_same_key_gives_the_same_penalty_and_another_key_another():
    run = regularized(LocalRegularization("error"))
    a, b, c = (run(1.3, jax.random.key(i))[1] for i in (0, 0, 1))
    assert a == b != c


@pytest.mark.slow
def test_the_initial_step_is_that_of_the_controller():
    key, tol = jax.random.key(2), 1e-6
    term, solver = diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5()
    found = LocalRegularization(step="initial").solve(
        term, solver, 0.0, 1.0, 0.1, jnp.array(1.0), key=key, stepsize_controller=pid(tol)
    )[1]
    # Hairer, Norsett and Wanner, II.4: with y' = -y all derivatives have the size of y.
    tau = float(jax.random.uniform(key, dtype=float))
    y = np.exp(-tau)
    h = min((0.01 * (tol + tol * y) / y) ** (1 / 5), 1 - tau)
    expected = h * step_estimates(term, solver, tau, jnp.array(y), h, None, pid(tol)).error
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_the_penalty_costs_one_step_from_scratch():
    count = []

    def field(t, y, args):
        jax.debug.callback(lambda: count.append(1))
        return -y

    options = {"stepsize_controller": pid(1e-4)}
    start = call(None, field)
    diffrax.diffeqsolve(*start, **options)
    jax.effects_barrier()
    without = len(count)
    LocalRegularization("error").solve(*start, key=jax.random.key(0), **options)
    jax.effects_barrier()
    assert 6 <= len(count) - 2 * without <= 7


@pytest.mark.slow
def test_a_weight_of_zero_reproduces_the_training_without_penalty():
    def trained(loss):
        tx = optax.adam(0.05)

        @jax.jit
        def step(theta, state, key):
            updates, state = tx.update(jax.grad(loss)(theta, key), state, theta)
            return optax.apply_updates(theta, updates), state

        theta, state = jnp.array(1.3), tx.init(jnp.array(1.3))
        for i in range(5):
            theta, state = step(theta, state, jax.random.key(i))
        return theta

    def with_penalty(theta, key):
        sol, penalty = regularized(LocalRegularization("error"))(theta, key)
        return sol.ys.sum() ** 2 + 0.0 * penalty

    without = lambda theta, key: bare()(theta).ys.sum() ** 2
    assert trained(with_penalty) == trained(without)


@pytest.mark.slow
def test_a_solve_that_ends_before_tau_has_no_penalty():
    key = jax.random.key(0)
    tau = float(jax.random.uniform(key, dtype=float))
    stop = diffrax.Event(lambda t, y, args, **kwargs: t > 0.5 * tau)
    start = diffrax.ODETerm(tanh_field), diffrax.Tsit5(), 0.0, 1.0, tau / 8, Y0, 1.3
    sol, value = LocalRegularization("stiffness", step=0.01).solve(*start, key=key, event=stop)
    assert sol.result == diffrax.RESULTS.event_occurred
    assert value == 0


@pytest.mark.slow
def test_a_batch_by_vmap_is_the_solves_one_by_one():
    run = regularized(LocalRegularization("error"))
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(run)(jnp.array([1.0, 1.1, 1.2]), keys)[1]
    alone = [run(t, k)[1] for t, k in zip((1.0, 1.1, 1.2), keys)]
    np.testing.assert_allclose(together, alone, rtol=1e-8)


@pytest.mark.slow
def test_float32_stays_float32():
    f32 = jnp.float32
    sol, penalty = LocalRegularization("error").solve(
        diffrax.ODETerm(tanh_field),
        diffrax.Tsit5(),
        f32(0),
        f32(1),
        f32(0.1),
        Y0.astype(f32),
        f32(1.3),
        key=jax.random.key(0),
        stepsize_controller=pid(1e-3),
    )
    assert sol.ys.dtype == penalty.dtype == f32


@pytest.mark.slow
def test_errors_relative_to_the_state_scale_with_the_tolerance_removed():
    key = jax.random.key(4)
    solve = lambda normalize, tol: LocalRegularization(step=0.1, normalize=normalize).solve(
        *call(1.3), key=key, stepsize_controller=pid(tol)
    )[1]
    np.testing.assert_allclose(solve("state", 1e-5), 1e-5 * solve("tolerance", 1e-5), rtol=1e-9)


@pytest.mark.slow
def test_an_exponential_solver_is_regularised_by_its_norm():
    term = SemilinearTerm(jnp.array([-1.0, -50.0]), lambda t, u, args: args * jnp.sin(u))
    controller = SpectralPIDController(1e-4, 1e-6, jnp.linalg.norm)

    @jax.jit
    def penalty(theta):
        return LocalRegularization("error", "biased").solve(
            term,
            ETDRK4(),
            0.0,
            1.0,
            0.1,
            jnp.ones(2),
            theta,
            key=jax.random.key(0),
            stepsize_controller=controller,
            max_steps=64,
        )[1]

    value, gradient = jax.value_and_grad(penalty)(0.7)
    assert 0 < value <= 1
    assert gradient != 0
    assert jnp.isfinite(gradient)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "sampling"),
    [(diffrax.SPaRK(), "biased"), (diffrax.HalfSolver(diffrax.EulerHeun()), "unbiased")],
    ids=["spark", "half"],
)
def test_a_stochastic_penalty_repeats_with_its_key_and_is_deterministic_without_noise(
    solver, sampling
):
    drift = diffrax.ODETerm(lambda t, y, args: -(y**3) + jnp.cos(6 * t))

    @jax.jit
    def penalty(noise, key, path_key):
        levy = diffrax.SpaceTimeLevyArea
        path = diffrax.VirtualBrownianTree(0.0, 1.0, 1e-3, (2,), path_key, levy_area=levy)
        diffusion = diffrax.ControlTerm(
            lambda t, y, args: lineax.DiagonalLinearOperator(args * y), path
        )
        start = diffrax.MultiTerm(drift, diffusion), solver, 0.0, 1.0, 0.05, Y0, noise
        regularization = LocalRegularization("error", sampling, 0.05)
        options = {"stepsize_controller": pid(1e-2), "max_steps": 256}
        return regularization.solve(*start, key=key, **options)[1]

    key, *paths = jax.random.split(jax.random.key(0), 3)
    assert penalty(0.3, key, paths[0]) == penalty(0.3, key, paths[0]) > 0
    assert penalty(0.3, key, paths[0]) != penalty(0.3, key, paths[1])
    assert penalty(0.0, key, paths[0]) == penalty(0.0, key, paths[1]) > 0
    slope = (penalty(0.3001, key, paths[0]) - penalty(0.2999, key, paths[0])) / 2e-4
    assert jnp.isfinite(slope)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "jerk"}, "`kind` must be one of 'error', 'stiffness'"),
        ({"sampling": "random"}, "`sampling` must be one of"),
        ({"step": "last"}, "`step` must be one of"),
        ({"step": -0.1}, "`step` must be positive"),
        ({"normalize": "no"}, "`normalize` must be one of"),
        ({"stability_size": 0.0}, "`stability_size` must be positive"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LocalRegularization(**options)


def solve_with(regularization=None, key=0, terms=None, solver=None, t1=1.0, **options):
    return (regularization or LocalRegularization()).solve(
        terms or diffrax.ODETerm(tanh_field),
        solver or diffrax.Tsit5(),
        0.0,
        t1,
        0.1,
        Y0,
        1.3,
        key=None if key is None else jax.random.key(key),
        **{"stepsize_controller": pid(1e-4), **options},
    )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": diffrax.Euler()}, r"`solver` must have an error estimate.*Euler.*Tsit5"),
        (
            {"regularization": LocalRegularization("stiffness"), "solver": diffrax.Bosh3()},
            r"two stages at the end of its step.*Tsit5.*got Bosh3",
        ),
        ({"t1": 0.0}, "`t1` must be greater than `t0`"),
        ({"key": None}, "`key` must be a random key, got None"),
        (
            {"stepsize_controller": diffrax.ConstantStepSize()},
            r'must have tolerances.*normalize="state"',
        ),
        (
            {
                "regularization": LocalRegularization(through_solution=True),
                "adjoint": diffrax.BacksolveAdjoint(),
            },
            "`through_solution` must be False with BacksolveAdjoint",
        ),
        ({"adjoint": diffrax.ImplicitAdjoint()}, "got ImplicitAdjoint"),
        (
            {"regularization": LocalRegularization(step="initial"), "terms": SemilinearTerm(-1.0)},
            r'step="initial" needs a `diffrax.ODETerm`.*got SemilinearTerm',
        ),
    ],
)
def test_calls_that_cannot_work_say_why(options, message):
    with pytest.raises(ValueError, match=message):
        solve_with(**options)


@pytest.mark.bad_input
def test_biased_sampling_of_equal_steps_warns():
    regularization = LocalRegularization("error", "biased", normalize="state")
    with pytest.warns(UserWarning, match="all steps are equally long"):
        solve_with(regularization, stepsize_controller=diffrax.ConstantStepSize())


@pytest.mark.bad_input
def test_constant_steps_need_a_first_step():
    with pytest.raises(ValueError, match="please pass a value for `dt0`"):
        LocalRegularization("stiffness").solve(
            diffrax.ODETerm(tanh_field),
            diffrax.Tsit5(),
            0.0,
            1.0,
            None,
            Y0,
            1.3,
            key=jax.random.key(0),
        )
