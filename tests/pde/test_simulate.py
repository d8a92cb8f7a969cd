import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import integrate, pde
from jaxsci._base import RESULTS
from jaxsci.pde import simulate
from jaxsci.spectral import FourierGrid
from pde.calculus import solve

NU = 0.1
GRID = FourierGrid(48, 2 * np.pi)
# Tests that agree in the number of times and in `max_steps` share one compilation.
SHARED = {"dt": 0.1, "max_steps": 13}


def cole_hopf(t):
    (x,) = GRID.x
    decay = np.exp(-NU * t)
    return 2 * NU * decay * jnp.sin(x) / (3 + decay * jnp.cos(x))


@pytest.fixture(scope="module")
def burgers():
    return pde.Burgers(GRID, NU)


def test_a_field_without_channels_comes_back_without(burgers):
    ts = jnp.array([0.0, 0.5, 1.0])
    bare = simulate(burgers, cole_hopf(0.0), ts, dt=0.1)
    full = simulate(burgers, cole_hopf(0.0)[None], ts, dt=0.1)
    assert bare.ys.shape == (3, 48)
    assert full.ys.shape == (3, 1, 48)
    np.testing.assert_array_equal(bare.ys, full.ys[:, 0])
    np.testing.assert_array_equal(bare.ts, ts)
    np.testing.assert_allclose(bare.ys[0], cole_hopf(0.0), atol=1e-14)
    assert bool(bare.result == RESULTS.successful)


def test_constant_steps_are_those_of_rollout_and_of_diffrax(burgers):
    ts = jnp.array([0.0, 0.5, 1.0])
    u0 = cole_hopf(0.0)[None]
    sol = simulate(burgers, u0, ts, dt=0.1)
    term = burgers.term()
    uh = integrate.rollout(
        integrate.ETDRK4(), term, GRID.fft(u0), dt=0.1, num_steps=10, save_every=5
    )
    np.testing.assert_allclose(sol.ys[1:], GRID.ifft(uh), atol=1e-12)
    by_diffrax = diffrax.diffeqsolve(
        term, integrate.ETDRK4(), 0.0, 1.0, 0.1, GRID.fft(u0), saveat=diffrax.SaveAt(ts=ts)
    )
    np.testing.assert_allclose(sol.ys, GRID.ifft(by_diffrax.ys), atol=1e-12)
    assert int(sol.stats["num_steps"]) in (10, 11)
    assert int(sol.stats["num_rejected_steps"]) == 0


def test_times_between_steps_are_interpolated(burgers):
    ts = jnp.array([0.0, 0.13, 0.777])
    sol = simulate(burgers, cole_hopf(0.0), ts, **SHARED)
    exact = jnp.stack([cole_hopf(t) for t in np.asarray(ts)])
    np.testing.assert_allclose(sol.ys, exact, atol=1e-6)


def test_a_linear_equation_is_exact_at_any_time_without_a_warning():
    equation = pde.Heat(GRID, NU)
    (x,) = GRID.x
    ts = jnp.array([2.0, 2.3, 3.1, 4.0])
    with warnings.catch_warnings():
        # diffrax warns on complex states; none is shown to it.
        warnings.simplefilter("error")
        sol = simulate(equation, jnp.cos(3 * x), ts, dt=0.7)
    exact = jnp.exp(-9 * NU * (ts[:, None] - 2.0)) * jnp.cos(3 * x)
    np.testing.assert_allclose(sol.ys, exact, atol=1e-13)


@pytest.fixture(scope="module")
def adaptive(burgers):
    u0 = 4 * jnp.sin(GRID.x[0])
    ts = jnp.array([0.0, 0.4, 0.8])
    best = solve(burgers, u0, 0.8, 800)

    def run(**tolerances):
        sol = simulate(burgers, u0, ts, **tolerances)
        return float(jnp.max(jnp.abs(sol.ys[-1] - best))), int(sol.stats["num_accepted_steps"])

    return run


def test_tighter_tolerances_give_smaller_errors_and_more_steps(adaptive):
    loose, tight = (adaptive(rtol=rtol, atol=1e-10) for rtol in (1e-3, 1e-6))
    assert tight[0] < loose[0] / 20
    assert tight[1] > loose[1]
    assert tight[0] < 1e-5


def test_without_step_or_tolerance_the_documented_tolerances_hold(adaptive):
    assert adaptive() == adaptive(rtol=1e-4, atol=1e-6)
    assert adaptive() == adaptive(rtol=1e-4)
    assert adaptive() == adaptive(atol=1e-6)


def test_another_solver_is_used_if_given(burgers):
    ts = jnp.array([0.0, 1.0])
    sol = simulate(burgers, cole_hopf(0.0)[None], ts, dt=0.1, solver=integrate.SBDF2())
    (uh,) = integrate.rollout(
        integrate.SBDF2(),
        burgers.term(),
        GRID.fft(cole_hopf(0.0)[None]),
        dt=0.1,
        num_steps=10,
        save_every=10,
    )
    np.testing.assert_allclose(sol.ys[-1], GRID.ifft(uh), atol=1e-12)


def test_arguments_reach_the_nonlinear_function():
    class Forced(pde.Heat):
        def nonlinear(self, t, uh, args=None):
            return self.grid.fft(jnp.full((1, *self.grid.shape), args))

    sol = simulate(Forced(GRID, NU), jnp.zeros(48), jnp.array([0.0, 2.0]), dt=0.5, args=1.5)
    np.testing.assert_allclose(sol.ys[-1], 3.0, atol=1e-12)


def test_too_few_steps_are_reported_and_raised(burgers):
    ts = jnp.array([0.0, 0.5, 1.0])
    options = {"dt": 0.1, "max_steps": 7}
    sol = simulate(burgers, cole_hopf(0.0), ts, **options, throw=False)
    assert int(sol.stats["num_steps"]) == 7
    np.testing.assert_allclose(sol.ys[1], cole_hopf(0.5), atol=1e-4)
    with pytest.raises(RuntimeError, match=r"pde.simulate: The maximum number of steps"):
        simulate(burgers, cole_hopf(0.0), ts, **options)


def test_a_blow_up_is_reported_and_raised():
    # KS at a step far too long for the amplitude overflows.
    equation = pde.KuramotoSivashinsky(GRID)
    u0 = 1e6 * jnp.cos(GRID.x[0]) + 1e6 * jnp.sin(3 * GRID.x[0])
    ts = jnp.array([0.0, 10.0, 20.0])
    sol = simulate(equation, u0, ts, dt=1.0, throw=False)
    assert not bool(jnp.all(jnp.isfinite(sol.ys)))
    with pytest.raises(RuntimeError, match=r"pde.simulate: A non-finite value"):
        simulate(equation, u0, ts, dt=1.0)


def test_it_runs_under_jit_and_vmap_over_viscosity_and_field(burgers):
    ts = jnp.array([0.0, 0.5, 1.0])

    def run(nu, u0):
        equation = eqx.tree_at(lambda e: e.viscosity, burgers, nu)
        return simulate(equation, u0, ts, **SHARED).ys

    nus = jnp.array([0.05, 0.1, 0.3])
    fields = jnp.stack([s * cole_hopf(0.0) for s in (1.0, 3.0, -2.0)])
    batched = jax.jit(jax.vmap(run))(nus, fields)
    np.testing.assert_allclose(batched, [run(n, u) for n, u in zip(nus, fields)], atol=1e-13)


@pytest.mark.slow
def test_the_gradient_by_the_viscosity_matches_central_differences(burgers):
    ts = jnp.array([0.0, 0.5, 1.0])

    def loss(nu):
        equation = eqx.tree_at(lambda e: e.viscosity, burgers, nu)
        return jnp.mean(simulate(equation, 5 * cole_hopf(0.0), ts, **SHARED).ys[-1] ** 2)

    at = lambda nu: float(loss(jnp.asarray(nu)))
    difference = (at(NU + 1e-5) - at(NU - 1e-5)) / 2e-5
    assert jax.jit(jax.grad(loss))(NU) == pytest.approx(difference, rel=1e-6)


@pytest.mark.slow
def test_other_adjoints_give_the_same_gradient_through_navier_stokes():
    grid = FourierGrid((16, 16), (2 * np.pi, 2 * np.pi))
    x, y = grid.x
    w0 = jnp.cos(x) * jnp.cos(y) + jnp.sin(x + 0.3) * jnp.sin(2 * y)
    ts = jnp.array([0.0, 0.2])

    def loss(nu, adjoint):
        flow = pde.NavierStokes2D(grid, nu, forcing=pde.kolmogorov(2))
        sol = simulate(flow, w0, ts, dt=0.05, adjoint=adjoint)
        return jnp.mean(sol.ys[-1] ** 2)

    recursive = jax.grad(loss)(0.05, None)
    direct = jax.grad(loss)(0.05, diffrax.DirectAdjoint())
    difference = (loss(0.05 + 1e-5, None) - loss(0.05 - 1e-5, None)) / 2e-5
    assert recursive == pytest.approx(float(difference), rel=1e-6)
    assert direct == pytest.approx(float(recursive), rel=1e-10)


@pytest.mark.parametrize(
    "options", [SHARED, pytest.param({"rtol": 1e-4}, marks=pytest.mark.slow)], ids=str
)
def test_single_precision_stays_single_with_float64_enabled(burgers, options):
    ts = jnp.array([0.0, 0.5, 1.0], jnp.float64)
    sol = simulate(burgers, cole_hopf(0.0).astype(jnp.float32), ts, **options)
    assert sol.ys.dtype == jnp.float32
    assert sol.ts.dtype == jnp.float32
    np.testing.assert_allclose(sol.ys[-1], cole_hopf(1.0), atol=2e-4)


@pytest.mark.slow
def test_a_progress_bar_changes_nothing(burgers):
    ts = jnp.array([0.0, 0.5, 1.0])
    shown = simulate(burgers, cole_hopf(0.0), ts, dt=0.1, progress=True)
    silent = simulate(burgers, cole_hopf(0.0), ts, dt=0.1)
    np.testing.assert_allclose(shown.ys, silent.ys, atol=1e-14)


@pytest.mark.bad_input
def test_bad_fields_times_and_steps_are_named(burgers):
    u0, ts = jnp.zeros(48), jnp.array([0.0, 1.0])
    with pytest.raises(ValueError, match=r"`u0` must have shape \(1, 48\).*got \(47,\)"):
        simulate(burgers, jnp.zeros(47), ts, dt=0.1)
    with pytest.raises(ValueError, match=r"`u0` must have shape \(1, 48\).*got \(2, 48\)"):
        simulate(burgers, jnp.zeros((2, 48)), ts, dt=0.1)
    plane = pde.Burgers(FourierGrid((8, 8), (1.0, 1.0)))
    with pytest.raises(ValueError, match=r"`u0` must have shape \(2, 8, 8\).*got \(8, 8\)"):
        simulate(plane, jnp.zeros((8, 8)), ts, dt=0.1)
    with pytest.raises(ValueError, match=r"`ts` must be at least two times, got shape \(1,\)"):
        simulate(burgers, u0, jnp.zeros(1), dt=0.1)
    with pytest.raises(ValueError, match=r"`ts` must increase strictly"):
        simulate(burgers, u0, jnp.array([0.0, 1.0, 1.0]), dt=0.1)
    with pytest.raises(ValueError, match=r"`ts` must increase strictly"):
        simulate(burgers, u0, jnp.array([1.0, 0.0]), dt=0.1)
    with pytest.raises(ValueError, match=r"either `dt` or tolerances"):
        simulate(burgers, u0, ts, dt=0.1, rtol=1e-3)
    with pytest.raises(ValueError, match=r"either `dt` or tolerances"):
        simulate(burgers, u0, ts, dt=0.1, atol=1e-3)
    for dt in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"`dt` must be (positive|finite), got"):
            simulate(burgers, u0, ts, dt=dt)


@pytest.mark.bad_input
def test_bad_tolerances_and_complex_fields_are_named(burgers):
    u0, ts = jnp.zeros(48), jnp.array([0.0, 1.0])
    with pytest.raises(ValueError, match=r"`rtol` must be at least zero, got"):
        simulate(burgers, u0, ts, rtol=-1e-3)
    with pytest.raises(ValueError, match=r"`atol` must be finite, got"):
        simulate(burgers, u0, ts, atol=float("nan"))
    with pytest.raises(TypeError, match=r"A real grid transforms real fields"):
        simulate(burgers, u0 + 0j, ts, dt=0.1)


@pytest.mark.bad_input
def test_a_solver_without_error_estimate_asks_for_a_constant_step(burgers):
    u0, ts = jnp.ones(48), jnp.array([0.0, 1.0])
    with pytest.raises(ValueError, match=r"needs a solver with an error estimate"):
        simulate(burgers, u0, ts, solver=integrate.ETDRK1())


@pytest.mark.slow
def test_a_streamed_simulation_equals_the_one_in_memory_and_resumes(tmp_path):
    xarray = pytest.importorskip("xarray")
    grid = FourierGrid((8, 10), (2 * np.pi, 3.0))
    flow = pde.NavierStokes2D(grid, 0.02)
    x, y = grid.x
    w0 = jnp.sin(x) * jnp.cos(2 * np.pi * y / 3)
    ts = jnp.linspace(0.0, 0.5, 6)
    expected = pde.simulate(flow, w0, ts)
    files = {"store": tmp_path / "w.zarr", "checkpoint": tmp_path / "w.npz", "chunk": 2}
    part = pde.simulate(flow, w0, ts, max_steps=2, throw=False, **files)
    assert len(part.ts) < 6
    found = pde.simulate(flow, w0, ts, **files)
    np.testing.assert_allclose(found.ys[:], expected.ys, atol=1e-12)
    assert found.stats == {k: int(v) for k, v in expected.stats.items()}
    data = xarray.open_zarr(files["store"], consolidated=False, decode_times=False)
    assert data.u.dims == ("time", "x", "y")
    np.testing.assert_allclose(data.y, np.asarray(grid.x[1][0]))
    np.testing.assert_allclose(data.x, np.asarray(grid.x[0][:, 0]))
