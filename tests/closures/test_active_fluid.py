import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special as sp

from closures.theta_grid import smooth_density, ThetaGrid
from jaxsci.closures import (
    ActiveFluid,
    ActiveFluidParams,
    BinghamClosure,
    Closure,
    ConjugateGradientStokes,
    LearnedFourthHarmonic,
    order_parameter,
    QuadraticFourthHarmonic,
    QuadraticTensorClosure,
    sine_mlp,
    TensorBasisClosure,
)
from jaxsci.integrate import ETDRK4, rollout, SBDF2
from jaxsci.spectral import FourierGrid

SHAPE, LENGTHS, NUM_ANGLES = (20, 24), (10.0, 7.0), 64
CONSTANTS = {"alpha": -3.0, "beta": 0.8, "zeta": 0.5, "d_t": 0.05, "d_r": 0.04}
TIGHT = ConjugateGradientStokes(1e-14)


@eqx.filter_jit
def rate_of(fluid, y):
    return fluid.term().vf(0.0, y, None)


@eqx.filter_jit
def views_of(fluid, y):
    """Everything a fluid says of a state, compiled once."""
    return {
        "fields": fluid.fields(y),
        "velocity": fluid.velocity(y),
        "stress": fluid.stress(y),
        "spectrum": fluid.velocity_spectrum(y),
        "max_dt": fluid.max_dt(y),
    }


@pytest.fixture(scope="module")
def kinetic():
    """A state of the kinetic model together with the density it comes from."""
    reference = ThetaGrid(SHAPE, LENGTHS, NUM_ANGLES)
    psi = smooth_density(SHAPE, LENGTHS, NUM_ANGLES, amplitude=0.12)
    params = ActiveFluidParams(**CONSTANTS)
    grid = FourierGrid(SHAPE, LENGTHS)
    fluid = ActiveFluid(grid, params, 12, stokes=TIGHT, dealias="all")
    y = fluid.initial_state(jnp.asarray(reference.modes(psi, fluid.orders)))
    return reference, psi, fluid, y


@pytest.mark.parametrize(
    ("v0", "dealias"), [(0.0, "flux"), (0.7, "flux"), (0.7, "all"), (0, "none")]
)
def test_the_right_hand_side_equals_the_tensor_form_on_a_grid_of_angles(v0, dealias):
    """Stokes there by plain Picard sweeps, moments by quadrature, all derivatives in theta too."""
    # Without dealiasing the two forms treat Nyquist modes differently: there an odd grid has none.
    shape = SHAPE if dealias != "none" else (21, 25)
    reference = ThetaGrid(shape, LENGTHS, NUM_ANGLES)
    psi = smooth_density(shape, LENGTHS, NUM_ANGLES, polar=v0 != 0, amplitude=0.06)
    flags = {"dealias": dealias != "none", "mask_stress": dealias == "all"}
    want = reference.rate(psi, **CONSTANTS, v0=v0, **flags)
    params = ActiveFluidParams(**CONSTANTS, v0=v0)
    grid = FourierGrid(shape, LENGTHS)
    fluid = ActiveFluid(grid, params, 14, stokes=TIGHT, dealias=dealias)
    y = fluid.initial_state(jnp.asarray(reference.modes(psi, fluid.orders)))
    got = np.fft.ifft2(rate_of(fluid, y)["a"])
    np.testing.assert_allclose(got, reference.modes(want, fluid.orders), rtol=0, atol=1e-13)


def test_velocity_and_stress_equal_those_of_the_tensor_form(kinetic):
    reference, psi, fluid, y = kinetic
    u, sigma = reference.flow(psi, -3.0, 0.8, 0.5, mask_stress=True)
    trace = np.einsum("iixy->xy", sigma) / 2
    views = views_of(fluid, y)
    np.testing.assert_allclose(views["velocity"], u, atol=1e-12)
    np.testing.assert_allclose(
        views["stress"], sigma - np.eye(2)[..., None, None] * trace, atol=1e-12
    )


def test_density_and_moments_are_recovered_from_the_state(kinetic):
    reference, psi, fluid, y = kinetic
    np.testing.assert_allclose(
        fluid.density(y, jnp.asarray(reference.theta)), np.moveaxis(psi, -1, 0), atol=1e-10
    )
    c, d, _ = reference.moments(psi)
    got_c, got_d = fluid.moments_to_tensor(y)
    np.testing.assert_allclose(got_c, c, atol=1e-13)
    np.testing.assert_allclose(got_d, d, atol=1e-13)
    np.testing.assert_allclose(fluid.physical(y), reference.modes(psi, fluid.orders), atol=1e-13)


def test_viscous_dissipation_balances_the_power_of_the_stress(kinetic):
    """<2 E:E> = -<E:Sigma> at every instant."""
    _, _, fluid, y = kinetic
    views = views_of(fluid, y)
    f = views["fields"]
    e = np.array([[f.eps.real, f.eps.imag], [f.eps.imag, -f.eps.real]])
    dissipation = np.mean(np.sum(2 * e * e, axis=(0, 1)))
    power = np.mean(np.sum(e * np.asarray(views["stress"]), axis=(0, 1)))
    np.testing.assert_allclose(dissipation, -power, rtol=1e-12)


def test_the_entropy_balance_holds(kinetic):
    """d/dt <int psi log psi> = 2<E:D> + 4 zeta <D:D - c^2/2> - dissipations by diffusion."""
    reference, psi, fluid, y = kinetic
    fluid = ActiveFluid(fluid.grid, fluid.params, 12, stokes=TIGHT, dealias="none")
    angles = jnp.asarray(reference.theta)
    psi_t = np.moveaxis(np.asarray(fluid.density(rate_of(fluid, y), angles)), 0, -1)
    dth = reference.dtheta

    def average(f):
        return f.sum(-1).mean() * dth if f.ndim == 3 else f.mean()

    m = np.fft.fftfreq(NUM_ANGLES, 1 / NUM_ANGLES)
    d_theta = np.fft.ifft(1j * m * np.fft.fft(psi, axis=-1), axis=-1).real
    grad = [reference.dx(psi, axis) for axis in range(2)]
    c, d, _ = reference.moments(psi)
    f = views_of(fluid, y)["fields"]
    e = np.array([[f.eps.real, f.eps.imag], [f.eps.imag, -f.eps.real]])
    want = (
        2 * average(np.sum(e * d, axis=(0, 1)))
        + 4 * CONSTANTS["zeta"] * average(np.sum(d * d, axis=(0, 1)) - c**2 / 2)
        - CONSTANTS["d_r"] * average(d_theta**2 / psi)
        - CONSTANTS["d_t"] * average((grad[0] ** 2 + grad[1] ** 2) / psi)
    )
    got = average(psi_t * (1 + np.log(psi)))
    np.testing.assert_allclose(got, want, atol=1e-9)


def growth_rates(alpha, beta, zeta, k2):
    """Of Im z and Re z for a wave along x about the isotropic state."""
    aligned = zeta - 4 * 0.05 - 0.05 * k2
    return (zeta * beta - 2 * alpha) / (8 + beta) + aligned, aligned


@pytest.fixture(scope="module")
def measure_growth():
    """Rates of Im z and Re z of the waves n = 1, 2, 3, from runs to T = 1 started at 1e-8."""
    grid = FourierGrid((16, 4), (10.0, 10.0))

    @eqx.filter_jit
    def run(params, closure):
        modes = 4 if closure is None else 1
        fluid = ActiveFluid(grid, params, modes, closure, polar=False)
        x = grid.x[0]
        waves = sum(jnp.sin(2 * np.pi * n * x / 10) for n in (1, 2, 3))
        a = jnp.zeros((modes + 1, 16, 4), complex).at[0].set(1)
        a = a.at[1].set(1e-8 * (1 + 1j) * waves)
        y = rollout(
            SBDF2(), fluid.term(), fluid.initial_state(a), dt=1e-3, num_steps=1000, save_every=1000
        )
        z = fluid.physical({"a": y["a"][0]})[1, :, 0] / 1e-8
        modes = jnp.fft.fft(z.imag)[1:4], jnp.fft.fft(z.real)[1:4]
        return [jnp.log(jnp.abs(m) * 2 / 16) for m in modes]

    def measure(alpha, zeta, closure):
        params = ActiveFluidParams(alpha=jnp.asarray(alpha), zeta=jnp.asarray(zeta))
        return [np.asarray(r) for r in run(params, closure)]

    return measure


@pytest.mark.parametrize("closure", [None, BinghamClosure(), QuadraticFourthHarmonic()])
def test_waves_about_isotropy_grow_at_the_exact_rates(measure_growth, closure):
    table = {
        (-1.0, 0.0): ([0.007534, -0.051684, -0.150380], [-0.219739, -0.278957, -0.377653]),
        (-1.0, 0.3): ([0.334806, 0.275589, 0.176893], None),
        (-3.0, 0.0): ([0.462079, 0.402861, 0.304165], None),
        (1.0, 0.3): ([-0.119739, None, None], None),
    }
    for (alpha, zeta), (shear, _) in table.items():
        measured = measure_growth(alpha, zeta, closure)
        for n in (1, 2, 3):
            exact = growth_rates(alpha, 0.8, zeta, (2 * np.pi * n / 10) ** 2)
            if shear[n - 1] is not None:
                np.testing.assert_allclose(exact[0], shear[n - 1], atol=6e-7)
            np.testing.assert_allclose([m[n - 1] for m in measured], exact, atol=1e-6)
    aligned = [growth_rates(-1, 0.8, 0, (2 * np.pi * n / 10) ** 2)[1] for n in (1, 2, 3)]
    np.testing.assert_allclose(aligned, table[(-1.0, 0.0)][1], atol=6e-7)


def test_the_quadratic_tensor_closure_grows_at_another_wrong_rate(measure_growth):
    measured = measure_growth(-1.0, 0.3, QuadraticTensorClosure())[0][0]
    k2 = (2 * np.pi / 10) ** 2
    wrong = (0.3 * 0.8 + 1) / 2 + 2 * 0.3 - 4 * 0.05 - 0.05 * k2
    # SBDF2 errs by about rate^3 dt^2 per unit time, 1e-6 at this faster growth.
    np.testing.assert_allclose(measured, wrong, atol=5e-6)
    assert abs(measured - growth_rates(-1, 0.8, 0.3, k2)[0]) > 0.5


NEMATIC = {0.21: 0.303689, 0.3: 0.724159, 0.5: 0.876823, 1.0: 0.945542, 2.0: 0.973984}


@pytest.mark.parametrize("closure", [None, BinghamClosure()])
def test_the_nematic_state_is_the_root_of_the_self_consistency_equation(closure):
    """s = I_1/I_0(zeta s/(2 d_r)) is a fixed point of the equations, at the tabulated orders."""
    grid = FourierGrid((4, 4), (1.0, 1.0))
    modes = 24 if closure is None else 1
    residual = jax.jit(lambda f, y: f.term().vf(0.0, y, None)["a"][:, 0, 0] / 16)
    for zeta, tabulated in NEMATIC.items():
        s = tabulated
        for _ in range(2000):
            kappa = zeta * s / 0.1
            s = sp.ive(1, kappa) / sp.ive(0, kappa)
        np.testing.assert_allclose(s, tabulated, atol=6e-7)
        kappa = zeta * s / 0.1
        orders = np.arange(modes + 1)
        a = (sp.ive(orders, kappa) / sp.ive(0, kappa))[:, None, None] * np.exp(0.6j * orders)[
            :, None, None
        ]
        params = ActiveFluidParams(alpha=-3.0, zeta=zeta)
        fluid = ActiveFluid(grid, params, modes, closure)
        y = fluid.initial_state(jnp.asarray(a * np.ones((1, 4, 4))))
        # Only the last modes feel that higher ones are cut off.
        np.testing.assert_allclose(residual(fluid, y)[:2], 0, atol=1e-13)


@pytest.mark.parametrize("closure", [None, BinghamClosure()])
def test_a_homogeneous_state_settles_at_the_nematic_order(closure):
    grid = FourierGrid((4, 4), (1.0, 1.0))
    modes = 24 if closure is None else 1
    fluid = ActiveFluid(grid, ActiveFluidParams(alpha=-3.0, zeta=0.5), modes, closure)
    a = jnp.zeros((modes + 1, 4, 4), complex).at[0].set(1).at[1].set(0.3 + 0.2j)

    @jax.jit
    def settle(y):
        return rollout(ETDRK4(), fluid.term(), y, dt=0.1, num_steps=1000, save_every=1000)["a"][0]

    final = fluid.physical({"a": settle(fluid.initial_state(a))})
    s = order_parameter(final[0].real, final[1])
    exact = NEMATIC[0.5]
    for _ in range(200):
        exact = sp.ive(1, 5 * exact) / sp.ive(0, 5 * exact)
    np.testing.assert_allclose(s, exact, atol=1e-8)


SYMMETRIC = {
    "kinetic": (None, 6),
    "bingham": (BinghamClosure(), 1),
    "tensor basis": (TensorBasisClosure(sine_mlp(3, 5, width=8, key=jax.random.key(0))), 1),
    "learned": (LearnedFourthHarmonic(sine_mlp(3, 3, width=8, key=jax.random.key(1))), 1),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_quarter_turns_and_reflections_of_the_box_commute_with_the_dynamics(name):
    closure, modes = SYMMETRIC[name]
    grid = FourierGrid((12, 12), (10.0, 10.0))
    fluid = ActiveFluid(grid, ActiveFluidParams(alpha=-3.0, zeta=0.5), modes, closure)
    psi = smooth_density((12, 12), (10.0, 10.0), 32, amplitude=0.2)
    a = ThetaGrid((12, 12), (10.0, 10.0), 32).modes(psi, fluid.orders)
    m = np.array(fluid.orders)[:, None, None]
    at = np.arange(12)
    turned = np.exp(1j * m * np.pi / 2) * a[:, at[None, :], (-at)[:, None]]
    mirrored = a[:, :, -at].conj()

    @jax.jit
    def rate(a):
        return fluid.grid.ifft(fluid.nonlinear(0.0, fluid.initial_state(a))["a"])

    plain = np.asarray(rate(jnp.asarray(a)))
    scale = np.abs(plain).max()
    of_turned, of_mirrored = rate(jnp.asarray(turned)), rate(jnp.asarray(mirrored))
    turned_rate = np.exp(1j * m * np.pi / 2) * plain[:, at[None, :], (-at)[:, None]]
    # The default tolerance of the Stokes solver bounds the agreement.
    np.testing.assert_allclose(of_turned, turned_rate, atol=1e-8 * scale)
    np.testing.assert_allclose(of_mirrored, plain[:, :, -at].conj(), atol=1e-8 * scale)


def smooth_state(n, fluid):
    """z = .28 [cos(X + .3) cos 2Y + i sin X cos(Y + 1)], X = 2 pi x/L, c = 1."""
    x, y = (2 * np.pi * c / 10 for c in FourierGrid((n, n), (10.0, 10.0)).x)
    z = 0.28 * (jnp.cos(x + 0.3) * jnp.cos(2 * y) + 1j * jnp.sin(x) * jnp.cos(y + 1))
    return fluid.initial_state(jnp.stack([jnp.ones_like(z), z]))


def bingham_fluid(n, **options):
    params = ActiveFluidParams(alpha=-3.0, zeta=0.5)
    grid = FourierGrid((n, n), (10.0, 10.0))
    return ActiveFluid(grid, params, 1, BinghamClosure(), **options)


@pytest.mark.parametrize(("solver", "order", "steps"), [(SBDF2(), 2, 25), (ETDRK4(), 4, 5)])
def test_the_time_steppers_converge_at_their_order(solver, order, steps):
    fluid = bingham_fluid(16, stokes=ConjugateGradientStokes(1e-12))
    y0 = smooth_state(16, fluid)

    @jax.jit
    def run(dt):
        term = fluid.term()
        sol = diffrax.diffeqsolve(term, solver, 0.0, 1.0, dt, y0, max_steps=2000)
        return sol.ys["a"]

    exact = run(1 / (16 * steps))
    errors = [float(jnp.abs(run(1 / n) - exact).max()) for n in (steps, 2 * steps, 4 * steps)]
    observed = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(observed - order) < 0.25), observed


@pytest.mark.slow
def test_sbdf2_has_the_tabulated_observed_orders():
    fluid = bingham_fluid(32)
    y0 = smooth_state(32, fluid)
    run = eqx.filter_jit(
        lambda n: rollout(SBDF2(), fluid.term(), y0, dt=1 / n, num_steps=n, save_every=n)["a"]
    )
    exact = run(1600)
    errors = [float(jnp.abs(run(n) - exact).max()) for n in (25, 50, 100)]
    observed = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(observed, [1.95, 1.98], atol=0.06)


@pytest.mark.slow
def test_the_solution_converges_spectrally_in_space():
    def z_at_one(n):
        fluid = bingham_fluid(n)
        y0 = smooth_state(n, fluid)
        run = lambda y: rollout(ETDRK4(), fluid.term(), y, dt=0.02, num_steps=50, save_every=50)
        return np.asarray(fluid.physical({"a": jax.jit(run)(y0)["a"][0]})[1])

    coarse = np.abs(z_at_one(32) - z_at_one(64)[::2, ::2]).max()
    fine = np.abs(z_at_one(48) - z_at_one(96)[::2, ::2]).max()
    assert coarse < 3e-4
    assert fine < 6e-6
    assert fine < coarse / 20


@pytest.fixture(scope="module")
def kinetic_run():
    """A resolved kinetic run through the growth of the instability, states of four times."""
    grid = FourierGrid((24, 24), (10.0, 10.0))
    fluid = ActiveFluid(grid, ActiveFluidParams(alpha=-3.0, zeta=0.5), 16)
    y0 = fluid.random_state(jax.random.key(3), max_mode=4, amplitude=0.24, uniform_density=False)
    run = lambda y: rollout(
        SBDF2(), fluid.term(), y, dt=0.02, num_steps=300, save_every=100, include_initial=True
    )
    return fluid, jax.jit(run)(y0)


def test_the_mean_concentration_is_conserved_to_rounding(kinetic_run):
    fluid, ys = kinetic_run
    mean = ys["a"][:, 0, 0, 0] / fluid.grid.num_points
    np.testing.assert_allclose(mean, 1, atol=1e-13)
    physical = np.fft.ifft2(ys["a"][:, 0])
    assert np.abs(physical.imag).max() < 1e-14


def test_the_moments_stay_those_of_a_density_along_a_kinetic_run(kinetic_run):
    _, ys = kinetic_run
    a = np.fft.ifft2(ys["a"])
    c, z, a4 = a[:, 0].real, a[:, 1], a[:, 2]
    assert np.abs(z).max() > 0.5, "the run should have left the isotropic state"
    assert np.all(np.abs(z) <= c)
    assert np.all(np.abs(a4 - z**2 / c) <= c - np.abs(z) ** 2 / c)


@pytest.mark.parametrize(
    "name", ["bingham", "tensor basis", pytest.param("kinetic", marks=pytest.mark.slow)]
)
def test_reverse_mode_through_the_solver_equals_central_differences(name):
    closure, modes = SYMMETRIC[name]
    grid = FourierGrid((8, 8), (10.0, 10.0))
    fluid = ActiveFluid(grid, ActiveFluidParams(alpha=-3.0, zeta=0.5), modes, closure)
    y0 = fluid.random_state(jax.random.key(0), max_mode=2, amplitude=0.24)

    @jax.jit
    def loss(p):
        params = ActiveFluidParams(alpha=p[0], zeta=p[1])
        f = fluid.with_params(params)
        y = rollout(SBDF2(), f.term(), y0, dt=0.02, num_steps=20, save_every=20)
        return 100 * jnp.sum(jnp.abs(f.physical({"a": y["a"][0]})[1]) ** 2)

    p = jnp.asarray([-3.0, 0.5])
    reverse = jax.jit(jax.grad(loss))(p)
    h = 2e-3
    # Central differences of order 4.
    odd = lambda step: loss(p + step) - loss(p - step)
    difference = [(8 * odd(h * e) - odd(2 * h * e)) / (12 * h) for e in jnp.eye(2)]
    np.testing.assert_allclose(reverse, difference, rtol=1e-6)


def test_diffeqsolve_and_rollout_take_the_same_steps():
    fluid = bingham_fluid(8)
    y0 = fluid.random_state(jax.random.key(0), max_mode=2)
    one = rollout(SBDF2(), fluid.term(), y0, dt=0.02, num_steps=10, save_every=10)["a"][0]
    term = fluid.term(real_state=True)
    sol = diffrax.diffeqsolve(term, SBDF2(), 0.0, 0.2, 0.02, term.encode(y0))
    two = term.decode(jax.tree.map(lambda x: x[-1], sol.ys))["a"]
    np.testing.assert_allclose(one, two, atol=1e-12)


@pytest.mark.parametrize("name", ["kinetic", "tensor basis"])
def test_float32_stays_float32_with_x64_on_and_agrees_with_float64(name):
    closure, modes = SYMMETRIC[name]
    fluid = ActiveFluid(
        FourierGrid((12, 12), (10.0, 10.0)), ActiveFluidParams(-3.0, zeta=0.5), modes, closure
    )
    y = fluid.random_state(jax.random.key(0), max_mode=3, dtype=jnp.float32)
    assert y["a"].dtype == jnp.complex64
    f = jax.eval_shape(lambda y: fluid.fields(y), y)
    assert all(x.dtype in (jnp.float32, jnp.complex64) for x in f if x is not None)
    out = eqx.filter_jit(fluid.nonlinear)(0.0, y)["a"]
    assert out.dtype == jnp.complex64
    double = eqx.filter_jit(fluid.nonlinear)(0.0, {"a": y["a"].astype(complex)})["a"]
    assert np.abs(out - double).max() < 1e-4 * np.abs(double).max()


@pytest.mark.slow
def test_a_batch_of_states_is_mapped_over():
    fluid = bingham_fluid(8)
    ys = jax.vmap(lambda k: fluid.random_state(k, max_mode=2))(jax.random.split(jax.random.key(0)))
    rate = lambda y: fluid.nonlinear(0.0, y)["a"]
    batch, single = jax.jit(jax.vmap(rate))(ys), jax.jit(rate)
    for i in range(2):
        np.testing.assert_allclose(batch[i], single({"a": ys["a"][i]}), atol=1e-7)


def test_the_velocity_spectrum_sums_to_the_kinetic_energy(kinetic):
    _, _, fluid, y = kinetic
    views = views_of(fluid, y)
    _, spectrum = views["spectrum"]
    energy = np.mean(np.sum(np.asarray(views["velocity"]) ** 2, axis=0)) / 2
    np.testing.assert_allclose(spectrum.sum(), energy, rtol=1e-12)


def test_the_step_limit_is_the_smaller_of_alignment_and_courant(kinetic):
    _, _, fluid, y = kinetic
    views = views_of(fluid, y)
    f = views["fields"]
    u, v = np.abs(f.velocity)
    courant = (u / (10 / 20) + v / (7 / 24)).max()
    alignment = 12 * np.abs(f.eps + 0.5 * f.z).max()
    np.testing.assert_allclose(views["max_dt"], 0.5 / max(courant, alignment), rtol=1e-12)
    fluid.check_dt(y, 0.49 / max(courant, alignment))


class _Wrong(Closure):
    shape_error: bool = eqx.field(static=True)
    linear_in_strain = True

    def contractions(self, c, z, eps):
        return (z[0], z) if self.shape_error else (z, c)


GRID = FourierGrid((8, 8), (1.0, 1.0))
PARAMS = {"alpha": -1.0, "zeta": 0.3}


def isotropic(modes):
    return np.zeros((modes + 1, 8, 8), complex) + np.eye(modes + 1)[0][:, None, None]


@pytest.mark.bad_input
def test_model_arguments_that_do_not_fit_are_named():
    params = ActiveFluidParams(**PARAMS)
    polar = ActiveFluidParams(**PARAMS, v0=0.5)
    with pytest.raises(ValueError, match="`grid` must be two-dimensional"):
        ActiveFluid(FourierGrid(8, 1.0), params, 4)
    with pytest.raises(ValueError, match="`lengths` must have one entry an axis"):
        FourierGrid((8, 8), (1.0,))
    with pytest.raises(ValueError, match="`modes` must be at least 1, got 0"):
        ActiveFluid(GRID, params, 0)
    with pytest.raises(ValueError, match="`modes` = 1 leaves a_4 unknown"):
        ActiveFluid(GRID, params, 1)
    with pytest.raises(ValueError, match="`modes` must be 1 with a `closure`, got 4"):
        ActiveFluid(GRID, params, 4, BinghamClosure())
    with pytest.raises(TypeError, match="`closure` must be a `Closure`"):
        ActiveFluid(GRID, params, 1, lambda c, z, eps: z)
    with pytest.raises(ValueError, match=r"`params\.v0`"):
        ActiveFluid(GRID, polar, 1, BinghamClosure())
    with pytest.raises(ValueError, match=r"`params\.v0`"):
        ActiveFluid(GRID, polar, 4, polar=False)
    with pytest.raises(ValueError, match="`dealias` must be one of"):
        ActiveFluid(GRID, params, 4, dealias="some")


@pytest.mark.bad_input
def test_initial_modes_that_no_density_has_are_named():
    fluid = ActiveFluid(GRID, ActiveFluidParams(**PARAMS), 2)
    with pytest.raises(TypeError, match="`a` must be complex"):
        fluid.initial_state(jnp.ones((3, 8, 8)))
    with pytest.raises(ValueError, match=r"`a` must have shape \(3, 8, 8\), got \(4, 8, 8\)"):
        fluid.initial_state(jnp.asarray(isotropic(3)))
    with pytest.raises(ValueError, match="odd modes"):
        fluid.initial_state(jnp.asarray(isotropic(4)))
    with pytest.raises(ValueError, match=r"`a\[0\]` must be real, got an imaginary part of 0.2"):
        fluid.initial_state(jnp.asarray(isotropic(2) + 0.2j))
    with pytest.raises(ValueError, match=r"`a\[0\]` must have a positive mean, got -1"):
        fluid.initial_state(jnp.asarray(-isotropic(2)))
    a = isotropic(2)
    a[1, 3, 5] = 1.25j
    with pytest.raises(ValueError, match=r"\|a_2\| = 1.25 with a_0 = 1 at the point \(3, 5\)"):
        fluid.initial_state(jnp.asarray(a))
    a[1, 3, 5] = np.nan
    with pytest.raises(ValueError, match="`a` must be finite"):
        fluid.initial_state(jnp.asarray(a))


@pytest.mark.bad_input
@pytest.mark.parametrize("shape_error", [True, False])
def test_a_closure_of_the_wrong_shape_or_dtype_is_named(shape_error):
    fluid = ActiveFluid(GRID, ActiveFluidParams(**PARAMS), 1, _Wrong(shape_error))
    y = fluid.initial_state(jnp.asarray(isotropic(1)))
    with pytest.raises(ValueError, match="`closure` must return a complex128 field of shape"):
        fluid.nonlinear(0.0, y)


@pytest.mark.bad_input
def test_a_step_beyond_the_explicit_limit_is_named():
    fluid = ActiveFluid(GRID, ActiveFluidParams(**PARAMS), 4)
    a = isotropic(4)
    a[1] = 0.5
    y = fluid.initial_state(jnp.asarray(a))
    with pytest.raises(ValueError, match="`dt` must be at most"):
        fluid.check_dt(y, 1.0)


@pytest.mark.bad_input
def test_a_traced_speed_needs_an_explicit_choice():
    def build(v0):
        params = dataclasses.replace(ActiveFluidParams(**PARAMS), v0=v0)
        return ActiveFluid(GRID, params, 4).params.v0

    with pytest.raises(ValueError, match="`polar` must be given"):
        jax.jit(build)(jnp.asarray(0.0))
