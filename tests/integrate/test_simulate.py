"""Solves in pieces: the same as in one go, streamed, interrupted and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import ETDRK4, SemilinearTerm, simulate, SpectralPIDController, ZarrStore
from jaxsci.pde import burgers
from jaxsci.spectral import FourierGrid

GRID = FourierGrid(16, 2 * np.pi)
TS = np.linspace(0.0, 1.0, 12)


def problem():
    term = burgers(GRID, viscosity=0.1)
    controller = SpectralPIDController(rtol=1e-5, atol=1e-8, norm=GRID.norm)
    u0 = GRID.fft(jnp.sin(GRID.x[0]) + 0.3)
    return term, u0, controller


def field(t, y, args):
    return GRID.ifft(y)


def run(**options):
    term, u0, controller = problem()
    options = {"stepsize_controller": controller, "save": field, "chunk": 5, **options}
    return simulate(term, ETDRK4(), TS, u0, dt0=0.05, **options)


@pytest.fixture(scope="module")
def whole():
    """The solve in one piece."""
    return run(chunk=len(TS), chunk_steps=10_000)


def test_it_takes_the_steps_and_gives_the_values_of_diffeqsolve(whole):
    term, u0, controller = problem()
    sol = diffrax.diffeqsolve(
        term,
        ETDRK4(),
        TS[0],
        TS[-1],
        0.05,
        u0,
        saveat=diffrax.SaveAt(ts=jnp.asarray(TS), fn=field),
        stepsize_controller=controller,
    )
    assert whole.stats == {k: int(sol.stats[k]) for k in whole.stats}
    np.testing.assert_allclose(whole.ys, sol.ys, atol=1e-13)
    np.testing.assert_array_equal(whole.ts, TS)


@pytest.mark.parametrize(("chunk", "chunk_steps"), [(1, 10_000), (5, 3)])
def test_pieces_of_any_size_give_the_same_bits(whole, chunk, chunk_steps):
    found = run(chunk=chunk, chunk_steps=chunk_steps)
    np.testing.assert_array_equal(found.ys, whole.ys)
    np.testing.assert_array_equal(found.y, whole.y)
    assert found.stats == whole.stats


def test_a_runge_kutta_solver_with_a_pytree_state_runs_in_pieces():
    term = diffrax.ODETerm(lambda t, y, args: {"x": y["v"], "v": -args * y["x"]})
    y0 = {"x": jnp.asarray(1.0), "v": jnp.asarray(0.0)}
    found = simulate(
        term,
        diffrax.Tsit5(),
        np.linspace(0, 3, 7),
        y0,
        dt0=None,
        args=jnp.asarray(4.0),
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8),
        chunk=2,
    )
    np.testing.assert_allclose(found.ys["x"], np.cos(2 * found.ts), atol=1e-6)
    np.testing.assert_allclose(found.ys["v"], -2 * np.sin(2 * found.ts), atol=1e-6)


def test_an_interrupted_solve_goes_on_to_the_same_bits(whole, tmp_path):
    files = {"store": tmp_path / "u.zarr", "checkpoint": tmp_path / "u.npz"}
    part = run(max_steps=7, throw=False, chunk_steps=3, **files)
    assert "maximum number of steps" in str(part.result)
    assert 0 < len(part.ts) < len(TS)
    # As if the process had died between output and checkpoint.
    store = ZarrStore(files["store"])
    arrays = store.open(np.zeros((16,)), 5, len(part.ts))
    store.append(arrays, np.array([9.0]), np.full((1, 16), np.nan))
    found = run(chunk_steps=3, **files)
    np.testing.assert_array_equal(found.ys[:], whole.ys)
    np.testing.assert_array_equal(found.y, whole.y)
    assert found.stats == whole.stats
    again = run(chunk_steps=3, **files)
    np.testing.assert_array_equal(again.ys[:], whole.ys)


def test_xarray_reads_the_store_with_coordinates_and_units(whole, tmp_path):
    xarray = pytest.importorskip("xarray")
    store = ZarrStore(
        tmp_path / "u.zarr",
        name="u",
        dims=("x",),
        coords={"x": np.asarray(GRID.x[0])},
        units={"u": "m/s", "x": "m", "time": "s"},
        attrs={"equation": "Burgers"},
    )
    run(store=store)
    data = xarray.open_zarr(tmp_path / "u.zarr", consolidated=False, decode_times=False)
    assert data.u.dims == ("time", "x")
    assert (data.u.units, data.x.units, data.time.units) == ("m/s", "m", "s")
    assert data.attrs["equation"] == "Burgers"
    np.testing.assert_array_equal(data.u.values, whole.ys)
    np.testing.assert_array_equal(data.time.values, TS)
    np.testing.assert_array_equal(data.u.sel(x=GRID.x[0][3], method="nearest"), whole.ys[:, 3])


def test_the_leaves_of_a_pytree_are_arrays_of_the_store(tmp_path):
    save = lambda t, y, args: {"fields": {"u": GRID.ifft(y)}, "energy": GRID.norm(y)}
    found = run(save=save, store=tmp_path / "s.zarr")
    assert found.ys["fields"]["u"].shape == (len(TS), 16)
    assert found.ys["energy"].shape == (len(TS),)
    assert sorted(os.listdir(tmp_path / "s.zarr")) == ["energy", "fields.u", "time", "zarr.json"]


def test_failures_are_reported(tmp_path):
    blow_up = SemilinearTerm(jnp.zeros(1), lambda t, u, args: u**2)
    solve = lambda **options: simulate(
        blow_up, ETDRK4(), np.array([0.0, 1.0, 60.0]), jnp.ones(1), dt0=0.25, **options
    )
    found = solve(throw=False)
    assert "non-finite" in str(found.result)
    assert len(found.ts) == 2
    with pytest.raises(RuntimeError, match="non-finite"):
        solve()


def test_a_checkpoint_of_another_solve_is_refused(tmp_path):
    files = {"store": tmp_path / "u.zarr", "checkpoint": tmp_path / "u.npz"}
    run(max_steps=3, throw=False, **files)
    term, u0, controller = problem()
    options = {"dt0": 0.05, "stepsize_controller": controller, "save": field, **files}
    with pytest.raises(ValueError, match="initial state"):
        simulate(term, ETDRK4(), TS, 2 * u0, **options)
    with pytest.raises(ValueError, match="times"):
        simulate(term, ETDRK4(), 2 * TS, u0, **options)
    with pytest.raises(ValueError, match="term, solver or controller"):
        simulate(burgers(GRID, viscosity=0.2), ETDRK4(), TS, u0, **options)


def against_diffeqsolve(term, solver, controller, dt0, end=2.0):
    ts, y0 = np.linspace(0.0, end, 9), jnp.asarray([2.0, 0.0])
    found = simulate(
        term, solver, ts, y0, dt0=dt0, stepsize_controller=controller, chunk=2, chunk_steps=7
    )
    saveat = diffrax.SaveAt(ts=jnp.asarray(ts))
    sol = diffrax.diffeqsolve(
        term, solver, 0.0, end, dt0, y0, saveat=saveat, stepsize_controller=controller
    )
    assert found.stats == {k: int(sol.stats[k]) for k in found.stats}
    np.testing.assert_allclose(found.ys, sol.ys, atol=1e-12)


def van_der_pol(t, y, args):
    return jnp.stack([y[1], 3 * (1 - y[0] ** 2) * y[1] - y[0]])


@pytest.mark.slow
def test_an_implicit_solver_takes_the_tolerances_of_the_controller():
    controller = diffrax.PIDController(rtol=1e-5, atol=1e-5)
    against_diffeqsolve(diffrax.ODETerm(van_der_pol), diffrax.Kvaerno3(), controller, 0.01)


def test_the_first_step_is_guessed_as_by_diffeqsolve():
    controller = diffrax.PIDController(rtol=1e-6, atol=1e-6)
    against_diffeqsolve(diffrax.ODETerm(van_der_pol), diffrax.Dopri5(), controller, None)


@pytest.mark.slow
def test_steps_are_clipped_at_jumps_as_by_diffeqsolve():
    controller = diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=1e-5, atol=1e-5), step_ts=[0.7], jump_ts=[1.1]
    )
    against_diffeqsolve(diffrax.ODETerm(van_der_pol), diffrax.Tsit5(), controller, 0.01)


@pytest.mark.slow
def test_a_stochastic_equation_with_a_typed_key_runs_in_pieces():
    path = diffrax.VirtualBrownianTree(0.0, 2.0, 1e-3, (2,), jax.random.key(1))
    noise = diffrax.ControlTerm(lambda t, y, args: 0.1 * jnp.eye(2), path)
    term = diffrax.MultiTerm(diffrax.ODETerm(van_der_pol), noise)
    against_diffeqsolve(term, diffrax.Heun(), diffrax.ConstantStepSize(), 0.02)


def test_nothing_that_another_wrote_is_erased(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for checkpoint in (None, tmp_path / "other.npz"):
        for _ in range(2):
            with pytest.raises(FileExistsError, match="already"):
                run(store=other, checkpoint=checkpoint)
    assert (other / "notes.txt").read_text() == "mine"
    finished = tmp_path / "u.zarr"
    whole = run(store=finished).ys[:]
    with pytest.raises(FileExistsError, match="already"):
        run(store=finished)
    np.testing.assert_array_equal(ZarrStore(finished).open(np.zeros(16), 5, len(TS))["y"], whole)


def test_a_crash_before_the_first_output_is_survived(whole, tmp_path, monkeypatch):
    files = {"store": tmp_path / "u.zarr", "checkpoint": tmp_path / "u.npz"}

    def crash(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ZarrStore, "append", crash)
        with pytest.raises(KeyboardInterrupt):
            run(**files)
    np.testing.assert_array_equal(run(**files).ys[:], whole.ys)


@pytest.mark.slow
def test_three_kills_leave_no_trace(tmp_path):
    """A process that runs this solve is killed three times at random."""
    reference = tmp_path / "reference"
    script = Path(__file__).with_name("simulate_run.py")
    command = [sys.executable, str(script)]
    subprocess.run([*command, str(reference)], check=True)
    rng, killed = np.random.default_rng(0), tmp_path / "killed"
    kills = 0
    while kills < 3:
        process = subprocess.Popen([*command, str(killed)])
        while not (killed / "u.npz").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0.0, 1.5)))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills == 3
    subprocess.run([*command, str(killed)], check=True)
    a, b = (np.load(d / "end.npz") for d in (reference, killed))
    assert set(a.files) == set(b.files)
    for name in a.files:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ts": np.array([0.0])}, "`ts` must be at least two times"),
        ({"ts": np.array([0.0, 1.0, 0.5])}, "`ts` must increase strictly"),
        ({"dt0": -0.1}, "`dt0` must be positive"),
        ({"chunk": 0}, "`chunk` must be at least 1, got 0"),
        ({"chunk_steps": 0}, "`chunk_steps` must be at least 1, got 0"),
        ({"max_steps": 0}, "`max_steps` must be at least 1, got 0"),
        ({"checkpoint": "x.npz"}, "`checkpoint` needs `store`"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    options = {"ts": TS, "dt0": 0.1, **options}
    with pytest.raises(ValueError, match=message):
        simulate(SemilinearTerm(-1.0), ETDRK4(), y0=jnp.ones(2), **options)
