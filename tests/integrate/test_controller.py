import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from integrate.semilinear_problems import KS, KS_GRID, ks_initial, reference
from jaxsci.integrate import (
    CNAB2,
    ETDRK4,
    IFRK4,
    nonfinite,
    rollout,
    SBDF2,
    SemilinearTerm,
    SpectralPIDController,
)
from jaxsci.pde import burgers, kuramoto_sivashinsky
from jaxsci.spectral import FourierGrid


def solve(term, u0, t1, controller, dt0=0.01):
    return diffrax.diffeqsolve(term, ETDRK4(), 0.0, t1, dt0, u0, stepsize_controller=controller)


@pytest.mark.slow
def test_the_number_of_steps_does_not_depend_on_the_resolution():
    counts = []
    for n in (64, 128, 256):
        grid = FourierGrid((n,), (2 * np.pi,))
        controller = SpectralPIDController(1e-5, 1e-9, grid.norm)
        sol = solve(burgers(grid, viscosity=0.2), ks_initial(grid), 1.0, controller)
        counts.append(int(sol.stats["num_steps"]))
    assert counts[0] == counts[1] == counts[2] > 3


def test_a_ten_times_smaller_tolerance_gives_a_smaller_error():
    @jax.jit
    def end(rtol):
        return solve(KS, ks_initial(), 2.0, SpectralPIDController(rtol, 0.0, KS_GRID.norm)).ys[0]

    errors = [
        float(jnp.max(jnp.abs(KS_GRID.ifft(end(r)) - reference()["ks"])))
        for r in (1e-4, 1e-5, 1e-6)
    ]
    for ratio in np.divide(errors[:-1], errors[1:]):
        assert 5 < ratio < 20


@pytest.mark.slow
def test_entrywise_control_depends_on_the_resolution_and_the_ratio_of_norms_does_not():
    solver = ETDRK4("cox-matthews")
    entrywise, ratios = [], []
    for n in (128, 256, 512):
        grid = FourierGrid((n,), KS_GRID.lengths)
        term = kuramoto_sivashinsky(grid)
        u0 = rollout(ETDRK4(), term, ks_initial(grid), dt=0.01, num_steps=500, save_every=500)[0]
        state = solver.init(term, 0.0, 0.05, u0, None)
        u1, error, _, _, _ = solver.step(term, 0.0, 0.05, u0, None, state, False)
        scale = 1e-12 + 1e-6 * jnp.maximum(jnp.abs(u0), jnp.abs(u1))
        entrywise.append(float(grid.norm(error / scale)))
        size = jnp.maximum(grid.norm(u0), grid.norm(u1))
        ratios.append(float(grid.norm(error) / (1e-12 + 1e-6 * size)))
    assert entrywise[0] > 1.5 * entrywise[1] > 2.25 * entrywise[2]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


@pytest.mark.parametrize("bad", [jnp.inf, jnp.nan])
def test_a_step_that_blew_up_is_rejected_and_shortened(bad):
    controller = SpectralPIDController(1e-3, 1e-6, jnp.linalg.norm)
    y = jnp.ones(3)
    _, state = controller.init(None, 0.0, 1.0, y, 0.1, None, None, 4)
    keep, t0, t1, _, _, _ = controller.adapt_step_size(
        0.0, 0.1, y, y * bad, None, y * bad, 4, state
    )
    assert not keep
    assert t0 == 0.0
    assert 0 < t1 < 0.1


def test_the_solve_recovers_from_a_first_step_that_is_far_too_long():
    sol = solve(KS, ks_initial(), 2.0, SpectralPIDController(1e-6, 0.0, KS_GRID.norm), 2.0)
    assert int(sol.stats["num_rejected_steps"]) > 0
    assert jnp.max(jnp.abs(KS_GRID.ifft(sol.ys[0]) - reference()["ks"])) < 1e-4


def test_a_solve_ends_at_the_first_nonfinite_state():
    term = SemilinearTerm(0.0, lambda t, u, args: u**2)
    run = lambda u0: diffrax.diffeqsolve(
        term, ETDRK4(), 0.0, 4.0, 0.01, u0, event=diffrax.Event(nonfinite), throw=False
    )
    sol = run(jnp.ones(2))
    assert sol.result == diffrax.RESULTS.event_occurred
    assert 1.0 < sol.ts[0] < 1.5  # 1/(1 - t) is singular at 1
    fine = run(-jnp.ones(2))
    assert fine.result == diffrax.RESULTS.successful
    np.testing.assert_allclose(fine.ys[0], -0.2, rtol=1e-8)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("rtol", "atol", "name"), [(-1.0, 0.0, "rtol"), (1e-3, float("nan"), "atol")]
)
def test_bad_tolerances_are_refused(rtol, atol, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        SpectralPIDController(rtol, atol, jnp.linalg.norm)


@pytest.mark.bad_input
def test_the_first_step_must_be_given():
    controller = SpectralPIDController(1e-3, 1e-6, jnp.linalg.norm)
    with pytest.raises(ValueError, match=r"needs `dt0`.*got None"):
        solve(SemilinearTerm(-1.0), jnp.ones(2), 1.0, controller, None)


@pytest.mark.bad_input
@pytest.mark.parametrize("solver", [SBDF2(), CNAB2(), IFRK4()])
def test_a_solver_without_an_error_estimate_is_refused(solver):
    controller = SpectralPIDController(1e-3, 1e-6, jnp.linalg.norm)
    with pytest.raises((ValueError, RuntimeError), match="error estimate"):
        diffrax.diffeqsolve(
            SemilinearTerm(-1.0), solver, 0.0, 1.0, 0.1, jnp.ones(2), stepsize_controller=controller
        )
