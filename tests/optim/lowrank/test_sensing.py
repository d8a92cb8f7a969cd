"""Sensing operators against their definitions, entry by entry."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsci.optim.lowrank import EntrySampling, GaussianSensing, Identity, RankOneSensing

SHAPE = (5, 4)
MASK = np.random.default_rng(1).random(SHAPE) < 0.6
OPERATORS = {
    "gaussian": lambda: GaussianSensing(jax.random.key(0), 7, SHAPE),
    "rank one": lambda: RankOneSensing.gaussian(jax.random.key(1), 7, SHAPE),
    "entries": lambda: EntrySampling(MASK, scale=1.5),
    "identity": lambda: Identity(SHAPE),
}


@pytest.fixture(params=OPERATORS, scope="module")
def op(request):
    return OPERATORS[request.param]()


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_the_transpose_is_the_adjoint(op):
    z = draw(*SHAPE)
    u = draw(*op.out_structure().shape, seed=1)
    np.testing.assert_allclose(jnp.vdot(op.mv(z), u), jnp.vdot(z, op.T.mv(u)), rtol=1e-12)
    (by_jax,) = jax.linear_transpose(op.mv, z)(u)
    np.testing.assert_allclose(op.T.mv(u), by_jax, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(op.T.T.mv(z), op.mv(z))


def test_a_product_is_measured_as_the_matrix_it_is(op):
    left, right = draw(5, 3), draw(4, 3, seed=1)
    np.testing.assert_allclose(op.mv_product(left, right), op.mv(left @ right.T), atol=1e-13)


def test_its_structures_and_its_matrix_agree_with_its_product(op):
    z = draw(*SHAPE)
    y = op.mv(z)
    assert op.in_structure() == jax.ShapeDtypeStruct(z.shape, z.dtype)
    assert op.out_structure() == jax.ShapeDtypeStruct(y.shape, y.dtype)
    assert op.T.in_structure() == op.out_structure()
    np.testing.assert_allclose(op.as_matrix() @ z.ravel(), y.ravel(), atol=1e-13)
    np.testing.assert_allclose(op.T.as_matrix(), op.as_matrix().T, atol=0)


@pytest.mark.slow
def test_lineax_solves_with_it_for_the_matrix_of_least_norm(op):
    y = op.mv(draw(*SHAPE))
    solver = lx.Normal(lx.CG(rtol=1e-12, atol=1e-12))
    # Wide operators: M = A* (A A*)^-1 y.
    dual = lx.linear_solve(op.T, op.T.mv(y), solver).value
    want = np.linalg.lstsq(np.asarray(op.as_matrix()), np.asarray(op.mv(op.T.mv(dual))).ravel())[0]
    np.testing.assert_allclose(np.asarray(op.T.mv(dual)).ravel(), want, atol=1e-8)


def test_single_precision_stays_single(op):
    low = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, op)
    z = draw(*SHAPE).astype(jnp.float32)
    assert low.mv(z).dtype == jnp.float32
    assert low.T.mv(low.mv(z)).dtype == jnp.float32
    assert low.mv_product(z, z[:4]).dtype == jnp.float32


def test_gaussian_matrices_have_variance_one_over_m_and_preserve_norms_in_mean():
    op = GaussianSensing(jax.random.key(2), 4000, (6, 6))
    z, matrices = draw(6, 6), np.asarray(op.matrices)
    y = np.asarray(op.mv(z))
    assert abs(np.var(matrices) * 4000 - 1) < 0.02
    np.testing.assert_allclose(np.sum(y**2), np.sum(np.square(z)), rtol=0.1)
    np.testing.assert_allclose(y[3], np.sum(matrices[3] * z), rtol=1e-12)


def test_rank_one_measurements_are_bilinear_forms_and_preserve_norms_in_mean():
    op = RankOneSensing.gaussian(jax.random.key(2), 20000, (6, 3))
    z, left, right = (np.asarray(x) for x in (draw(6, 3), op.left, op.right))
    y = np.asarray(op.mv(jnp.asarray(z)))
    np.testing.assert_allclose(y[5], left[5] @ z @ right[5], rtol=1e-12)
    np.testing.assert_allclose(np.sum(y**2), np.sum(z**2), rtol=0.1)


def test_entry_sampling_takes_entries_in_row_major_order_and_puts_them_back():
    z = draw(*SHAPE)
    op = EntrySampling(MASK)
    np.testing.assert_array_equal(op.mv(z), np.asarray(z)[MASK])
    np.testing.assert_array_equal(op.T.mv(op.mv(z)), np.where(MASK, z, 0))


def test_operators_pass_through_jit_and_vmap(op):
    batch = draw(3, *SHAPE)
    got = jax.jit(lambda op, z: jax.vmap(op.mv)(z))(op, batch)
    np.testing.assert_allclose(got, jnp.stack([op.mv(z) for z in batch]), atol=1e-14)


@pytest.mark.bad_input
def test_bad_operators_are_refused():
    with pytest.raises(ValueError, match="`m` must be at least 1"):
        GaussianSensing(jax.random.key(0), 0, SHAPE)
    with pytest.raises(ValueError, match="`shape` must be two positive sizes"):
        GaussianSensing(jax.random.key(0), 3, (4, 0))
    with pytest.raises(ValueError, match="same number of rows"):
        RankOneSensing(jnp.ones((3, 2)), jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="`mask` must be a boolean matrix"):
        EntrySampling(np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="`mask` must be concrete"):
        jax.jit(lambda mask: EntrySampling(mask).mv(jnp.ones((2, 2))))(np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="give it a `shape`"):
        Identity().in_structure()
