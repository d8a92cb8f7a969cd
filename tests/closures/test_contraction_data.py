import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from closures.theta_grid import smooth_density, ThetaGrid
from jaxsci.closures import (
    acquire_worst,
    ActiveFluid,
    ActiveFluidParams,
    BinghamClosure,
    contraction_data,
    contraction_errors,
    contraction_loss,
    IsotropicFourthHarmonic,
    LearnedFourthHarmonic,
    sine_mlp,
    TensorBasisClosure,
)
from jaxsci.spectral import FourierGrid

SHAPE, LENGTHS = (12, 10), (10.0, 8.0)


@pytest.fixture(scope="module")
def snapshots():
    reference = ThetaGrid(SHAPE, LENGTHS, 32)
    psis = [smooth_density(SHAPE, LENGTHS, 32, seed=seed, amplitude=0.3) for seed in range(3)]
    fluid = ActiveFluid(
        FourierGrid(SHAPE, LENGTHS), ActiveFluidParams(-3.0, zeta=0.5), 8, dealias="all"
    )
    states = [fluid.initial_state(jnp.asarray(reference.modes(p, fluid.orders))) for p in psis]
    ys = jax.tree.map(lambda *x: jnp.stack(x), *states)
    return reference, psis, eqx.filter_jit(contraction_data)(fluid, ys)


def test_the_target_is_s_contracted_with_t_by_quadrature(snapshots):
    reference, psis, data = snapshots
    for i, psi in enumerate(psis):
        u, _ = reference.flow(psi, -3.0, 0.8, 0.5, mask_stress=True)
        g = reference.grad(u)
        _, d, s = reference.moments(psi)
        t = (g + g.transpose(1, 0, 2, 3)) / 2 + d
        full = np.einsum("ijklxy,klxy->ijxy", s, t)
        want = [full[0, 0], full[0, 1], full[1, 1]]
        np.testing.assert_allclose(data.target[i], want, atol=1e-8)
    assert np.all(data.zeta == 0.5)


def test_points_are_the_same_data_one_sample_a_point(snapshots):
    _, _, data = snapshots
    points = data.points()
    assert points.c.shape == (360,)
    assert points.target.shape == (360, 3)
    i, x, y = 2, 7, 3
    at = (i * 12 + x) * 10 + y
    assert points.z[at] == data.z[i, x, y]
    assert np.all(points.target[at] == data.target[i, :, x, y])
    for closure in (BinghamClosure(), LearnedFourthHarmonic(sine_mlp(3, 3, key=jax.random.key(0)))):
        loss = eqx.filter_jit(contraction_loss)
        np.testing.assert_allclose(loss(closure, points), loss(closure, data), rtol=1e-12)


def test_the_metric_is_the_relative_squared_error_by_component_and_snapshot(snapshots):
    _, _, data = snapshots
    closure = BinghamClosure()
    strain, moment = closure.contractions(data.c, data.z, data.eps)
    st, mt = closure.traces(data.c, data.z, data.eps)
    trace, part = st + mt, strain + moment
    pred = np.stack([trace / 2 + part.real, part.imag, trace / 2 - part.real], axis=1)
    true = np.asarray(data.target)
    want = (((pred - true) ** 2).mean((2, 3)) / (true**2).mean((2, 3))).mean(1)
    np.testing.assert_allclose(contraction_errors(closure, data), want, rtol=1e-11)


def test_bingham_is_closer_to_the_kinetic_truth_than_no_fourth_harmonic(snapshots):
    _, _, data = snapshots
    errors = [
        contraction_errors(c, data).mean() for c in (BinghamClosure(), IsotropicFourthHarmonic())
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("kind", [TensorBasisClosure, LearnedFourthHarmonic])
def test_gradient_steps_lower_the_loss(snapshots, kind):
    _, _, data = snapshots
    outputs = 5 if kind is TensorBasisClosure else 3
    closure = kind(sine_mlp(3, outputs, width=16, depth=2, key=jax.random.key(0)))
    points = data.points()
    params, static = eqx.partition(closure, eqx.is_inexact_array)
    tx = optax.adam(1e-2)
    loss = lambda p: contraction_loss(eqx.combine(p, static), points)

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            value, grad = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grad, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, tx.init(params)), None, 150)

    (_, _), values = train(params)
    assert values[-1] < 0.9 * values[0]


def test_the_worst_unused_samples_are_acquired_in_order():
    errors = jnp.asarray([0.1, 0.9, 0.5, 0.7, 0.3])
    np.testing.assert_array_equal(acquire_worst(errors, jnp.asarray([1]), 3), [3, 2, 4])
    np.testing.assert_array_equal(acquire_worst(errors, jnp.asarray([], int), 2), [1, 3])


def test_a_sample_whose_error_is_nan_comes_first():
    errors = jnp.asarray([0.1, jnp.nan, 0.5])
    np.testing.assert_array_equal(acquire_worst(errors, jnp.asarray([2]), 2), [1, 0])


def test_a_selection_keeps_samples_together(snapshots):
    _, _, data = snapshots
    some = data.select(jnp.asarray([2, 0]))
    assert np.all(some.target[0] == data.target[2])
    assert np.all(some.c[1] == data.c[0])


@pytest.mark.bad_input
def test_data_of_a_closed_model_and_too_many_samples_are_rejected():
    fluid = ActiveFluid(
        FourierGrid(SHAPE, LENGTHS), ActiveFluidParams(-3.0), 1, closure=BinghamClosure()
    )
    with pytest.raises(ValueError, match="`fluid` must be a kinetic model"):
        contraction_data(fluid, {"a": jnp.zeros((1, 2, *SHAPE), complex)})
    with pytest.raises(ValueError, match="`num` must be at most the 1 unused samples, got 2"):
        acquire_worst(jnp.ones(3), jnp.asarray([0, 1]), 2)
    with pytest.raises(ValueError, match="`num` must be at least 1"):
        acquire_worst(jnp.ones(3), jnp.asarray([0, 1]), 0)
