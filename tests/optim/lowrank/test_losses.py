"""The losses of the factors against the analytic gradients."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsci.optim.lowrank import (
    asymmetric_loss,
    EntrySampling,
    GaussianSensing,
    Identity,
    RankOneSensing,
    symmetric_loss,
)

N = 5
MASK = np.random.default_rng(1).random((N, N)) < 0.6
OPERATORS = {
    "gaussian": lambda: GaussianSensing(jax.random.key(0), 7, (N, N)),
    "rank one": lambda: RankOneSensing.gaussian(jax.random.key(1), 7, (N, N)),
    "entries": lambda: EntrySampling(MASK),
    "identity": lambda: Identity(),
}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_are_the_analytic_forms(name):
    op = OPERATORS[name]()
    left, right = draw(N, 3), draw(N, 3, seed=1)
    y = op.mv(draw(N, N, seed=2))
    d = op.adjoint(op.mv(left @ right.T) - y)
    by_left, by_right = jax.jit(jax.grad(asymmetric_loss, (0, 1)))(left, right, op, y)
    np.testing.assert_allclose(by_left, d @ right, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(by_right, d.T @ left, rtol=1e-11, atol=1e-12)
    d = op.adjoint(op.mv(left @ left.T) - y)
    by_left = jax.jit(jax.grad(symmetric_loss))(left, op, y)
    np.testing.assert_allclose(by_left, (d + d.T) / 2 @ left, rtol=1e-11, atol=1e-12)


def test_values_are_half_and_a_quarter_of_the_squared_residual():
    left, right, m = draw(N, 2), draw(N, 2, seed=1), draw(N, N, seed=2)
    half = np.sum((np.asarray(left @ right.T) - m) ** 2) / 2
    quarter = np.sum((np.asarray(left @ left.T) - m) ** 2) / 4
    np.testing.assert_allclose(asymmetric_loss(left, right, Identity(), m), half, rtol=1e-13)
    np.testing.assert_allclose(symmetric_loss(left, Identity(), m), quarter, rtol=1e-13)


def test_callables_and_lineax_operators_on_matrices_or_raveled_entries_serve_alike():
    op = GaussianSensing(jax.random.key(0), 7, (N, N))
    left, right, y = draw(N, 3), draw(N, 3, seed=1), draw(7, seed=2)
    want = asymmetric_loss(left, right, op, y)
    structure = jax.ShapeDtypeStruct((N, N), jnp.float64)
    for other in (
        lambda z: jnp.einsum("mij,ij->m", op.matrices, z),
        lx.FunctionLinearOperator(op.mv, structure),
        lx.MatrixLinearOperator(op.matrices.reshape(7, -1)),
    ):
        np.testing.assert_allclose(asymmetric_loss(left, right, other, y), want, rtol=1e-12)


@pytest.mark.bad_input
def test_shapes_that_do_not_fit_are_named():
    op = GaussianSensing(jax.random.key(0), 7, (N, N))
    with pytest.raises(ValueError, match="`y` must have the shape"):
        asymmetric_loss(draw(N, 3), draw(N, 3), op, draw(6))
    with pytest.raises(ValueError, match="`op` measures matrices of shape"):
        asymmetric_loss(draw(4, 3), draw(N, 3), op, draw(7))
    with pytest.raises(ValueError, match="same number of columns"):
        asymmetric_loss(draw(N, 3), draw(N, 2), op, draw(7))
    with pytest.raises(ValueError, match="`op` must take a matrix"):
        asymmetric_loss(draw(N, 3), draw(N, 3), lx.MatrixLinearOperator(draw(7, 3)), draw(7))
