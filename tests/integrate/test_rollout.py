import chex
import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import (
    CNRK4,
    ETDMultistep,
    ETDRK1,
    ETDRK4,
    IFRK4,
    rollout,
    SBDF2,
    SemilinearTerm,
)
from jaxsci.pde import burgers, navier_stokes_2d
from jaxsci.spectral import FourierGrid

GRID = FourierGrid((32,), (2 * np.pi,))
FLOW = FourierGrid((16, 16), (2 * np.pi, 2 * np.pi))


def initial(dtype=float):
    (x,) = GRID.x
    return GRID.fft((jnp.sin(x) + 0.3 * jnp.cos(2 * x)).astype(dtype))


def energy(viscosity, u0, checkpoint="none", num_steps=11, save_every=1, dt=0.02, **options):
    term = burgers(GRID, viscosity=viscosity)
    steps = {"dt": dt, "num_steps": num_steps, "save_every": save_every}
    u = rollout(ETDRK4(), term, u0, checkpoint=checkpoint, **steps, **options)
    return jnp.sum(GRID.ifft(u) ** 2)


SOLVERS = [ETDRK4(), ETDMultistep(3), IFRK4(), SBDF2(), CNRK4(), diffrax.Heun()]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
def test_it_takes_the_steps_of_diffeqsolve(solver, dtype, tolerance):
    u0, term = initial(dtype), burgers(GRID, viscosity=0.1)
    u = rollout(solver, term, u0, dt=0.02, num_steps=12, save_every=4)
    assert u.dtype == u0.dtype
    # diffrax promotes the state to the precision of the times.
    t0, t1, dt = (jnp.asarray(t, dtype) for t in (0.0, 0.24, 0.02))
    sol = diffrax.diffeqsolve(term, solver, t0, t1, dt, u0, saveat=diffrax.SaveAt(steps=True))
    assert sol.ys.dtype == u0.dtype
    np.testing.assert_allclose(
        GRID.ifft(u), GRID.ifft(sol.ys[jnp.array([3, 7, 11])]), atol=4 * tolerance
    )


@pytest.mark.slow
def test_a_navier_stokes_rollout_equals_diffeqsolve():
    x, y = FLOW.x
    u0 = FLOW.fft(jnp.cos(x) * jnp.sin(2 * y) + jnp.sin(x + y))
    term = navier_stokes_2d(FLOW, viscosity=0.01)
    u = rollout(ETDRK4(), term, u0, dt=0.05, num_steps=10, save_every=10)[0]
    sol = diffrax.diffeqsolve(term, ETDRK4(), 0.0, 0.5, 0.05, u0)
    np.testing.assert_allclose(u, sol.ys[0], atol=1e-11)


@pytest.mark.parametrize(
    ("num_steps", "save_every"),
    [(12, 4), *(pytest.param(*n, marks=pytest.mark.slow) for n in [(11, 1), (14, 7), (12, 12)])],
)
def test_checkpoints_change_neither_values_nor_gradients(num_steps, save_every):
    value_and_grad = jax.jit(
        jax.value_and_grad(energy),
        static_argnames=("checkpoint", "num_steps", "save_every", "snapshots"),
    )
    run = lambda mode, **options: value_and_grad(
        0.1, initial(), checkpoint=mode, num_steps=num_steps, save_every=save_every, **options
    )
    value, slope = run("none")
    for found in (run("step"), run("sqrt"), run("binomial"), run("binomial", snapshots=3)):
        np.testing.assert_allclose(found, (value, slope), rtol=1e-12)


@pytest.mark.parametrize(("save_every", "window"), [(1, 4), (3, 2), (6, 12), (12, 5)])
def test_windowed_gradients_stop_at_the_starts_of_windows(save_every, window):
    steps = {"dt": 0.1, "num_steps": 12, "save_every": save_every}

    def solve(nu, u, **options):
        term = SemilinearTerm(-nu * jnp.arange(3.0), lambda t, u, args: u[::-1] ** 2)
        return rollout(ETDRK1(), term, u, **options)

    u0 = jnp.array([0.3, -0.2, 0.5])

    def windowed(nu):
        return jnp.sum(solve(nu, u0, checkpoint="windowed", window=window, **steps) ** 2)

    def by_hand(nu):
        u, total = u0, 0.0
        for i in range(12):
            if i % window == 0:
                u = jax.lax.stop_gradient(u)
            u = solve(nu, u, dt=0.1, num_steps=1)[0]
            if (i + 1) % save_every == 0:
                total += jnp.sum(u**2)
        return total

    found, expected, full = jax.jit(
        lambda nu: (
            jax.value_and_grad(windowed)(nu),
            jax.value_and_grad(by_hand)(nu),
            jax.value_and_grad(lambda nu: jnp.sum(solve(nu, u0, **steps) ** 2))(nu),
        )
    )(0.4)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found[0], full[0], rtol=1e-14)
    if window < 12:
        assert abs(found[1] - full[1]) > 1e-3 * abs(full[1])


def test_saving_options():
    term, u0 = SemilinearTerm(-1.0), jnp.asarray([1.0, 2.0])
    u = rollout(ETDRK4(), term, u0, dt=0.5, num_steps=6, save_every=2, include_initial=True)
    np.testing.assert_allclose(u, np.exp(-np.arange(4.0))[:, None] * u0, rtol=1e-14)
    save = lambda t, y, args: {"t": t, "sum": args * jnp.sum(y)}
    out = rollout(ETDRK4(), term, u0, dt=-0.5, num_steps=4, t0=1.0, save=save, args=2.0)
    np.testing.assert_allclose(out["t"], [0.5, 0.0, -0.5, -1.0])
    np.testing.assert_allclose(out["sum"], 6 * np.exp([0.5, 1.0, 1.5, 2.0]), rtol=1e-14)


def test_the_finite_mask_marks_states_before_a_blow_up():
    term = SemilinearTerm(0.0, lambda t, u, args: u**2)
    u, finite = rollout(ETDRK4(), term, jnp.ones(2), dt=0.1, num_steps=60, return_finite=True)
    np.testing.assert_array_equal(finite, np.all(np.isfinite(u), axis=1))
    assert finite[0]
    assert not finite[-1]


def test_other_values_of_step_and_viscosity_do_not_recompile():
    traced = jax.jit(chex.assert_max_traces(lambda nu, dt: energy(nu, initial(), dt=dt), n=1))
    values = [traced(jnp.asarray(nu), jnp.asarray(dt)) for nu, dt in ((0.1, 0.02), (0.2, 0.01))]
    np.testing.assert_allclose(values[1], energy(0.2, initial(), dt=0.01), rtol=1e-12)


@pytest.mark.slow
def test_it_maps_over_initial_states_and_viscosities():
    viscosities, states = jnp.asarray([0.1, 0.3]), jnp.stack([initial(), 2 * initial()])
    batched = jax.vmap(energy)(viscosities, states)
    np.testing.assert_allclose(
        batched, [energy(v, u) for v, u in zip(viscosities, states)], rtol=1e-12
    )


@pytest.mark.slow
def test_derivatives_agree_with_central_differences():
    f = jax.jit(lambda nu: energy(nu, initial()))
    h = 1e-5
    slope = (f(0.1 + h) - f(0.1 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(f)(0.1), slope, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(f, (0.1,), (1.0,))[1], slope, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["none", "sqrt"])
def test_hessian_vector_products_agree_with_differences_of_gradients(checkpoint):
    f = lambda u: energy(0.1, GRID.fft(u), checkpoint=checkpoint, num_steps=4)
    gradient = jax.jit(jax.grad(f))
    u, v = jnp.sin(GRID.x[0]), jnp.cos(3 * GRID.x[0])
    product = jax.jvp(gradient, (u,), (v,))[1]
    h = 1e-5
    difference = (gradient(u + h * v) - gradient(u - h * v)) / (2 * h)
    np.testing.assert_allclose(product, difference, atol=1e-6)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0.0}, "`dt` must not be zero"),
        ({"dt": float("nan")}, "`dt` must be finite, got nan"),
        ({"num_steps": 0}, "`num_steps` must be at least 1, got 0"),
        ({"save_every": 0}, "`save_every` must be at least 1, got 0"),
        ({"save_every": 3}, "`num_steps` must be a multiple of `save_every`, got 4 and 3"),
        ({"checkpoint": "all"}, "`checkpoint` must be one of 'none', 'step', 'sqrt'.*, got 'all'"),
        ({"snapshots": 3}, "`snapshots` goes with `checkpoint='binomial'`, not with 'none'"),
        ({"checkpoint": "binomial", "snapshots": 0}, "`snapshots` must be at least 1, got 0"),
        ({"checkpoint": "windowed"}, "`checkpoint='windowed'` needs `window`"),
        ({"checkpoint": "step", "window": 2}, "`window` goes with `checkpoint='windowed'`"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        rollout(
            ETDRK4(), SemilinearTerm(-1.0), jnp.ones(2), **{"dt": 0.1, "num_steps": 4, **options}
        )
