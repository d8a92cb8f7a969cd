from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsci import train
from jaxsci.curvature import fit_kronecker

from .kronecker_oracles import dense_fisher, dense_operator, in_matrix_order, mlp, mlp_params

RNG = np.random.default_rng(0)
PARAMS = mlp_params(RNG)
X = jnp.asarray(RNG.normal(size=(9, 3)))
GRADS = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape)), PARAMS)


@cache
def curvature(factors="ekfac") -> Any:
    return fit_kronecker(mlp, "softmax", PARAMS, (X, None), factors=factors)


@cache
def fisher():
    return dense_fisher(mlp, "softmax", PARAMS, X)


@cache
def dense(factors="ekfac"):
    return dense_operator(curvature(factors).multiply, PARAMS)


@jax.jit
def precondition(c, vector, damping):
    return c.precondition(vector, damping)


def basis(block):
    """The eigenvectors of a block in the order of its matrix raveled by rows."""
    return np.kron(np.asarray(block.output_basis[0]), np.asarray(block.input_basis[0]))


def test_the_eigenvalues_of_ekfac_are_the_diagonal_of_the_fisher_matrix_in_its_basis():
    c = curvature()
    blocks = in_matrix_order(c.layers, PARAMS, fisher())
    for block, want in zip(c.blocks, blocks, strict=True):
        q = basis(block)
        np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-12)
        got = np.asarray(block.eigenvalues[0]).ravel()
        np.testing.assert_allclose(got, np.diag(q.T @ want @ q), atol=1e-13)
        np.testing.assert_allclose(np.sum(got), np.trace(want), rtol=1e-12)


def test_kfac_does_not_have_the_trace_of_the_fisher_matrix_but_ekfac_does():
    np.testing.assert_allclose(curvature().trace(), np.trace(fisher()), rtol=1e-12)
    np.testing.assert_allclose(curvature("diagonal").trace(), np.trace(fisher()), rtol=1e-12)
    assert abs(curvature("kfac").trace() - np.trace(fisher())) > 1e-3


def test_ekfac_is_nearer_to_the_fisher_matrix_than_kfac_in_the_frobenius_norm():
    blocks = in_matrix_order(curvature().layers, PARAMS, fisher())
    errors = {}
    for factors in ("ekfac", "kfac"):
        ours = in_matrix_order(curvature().layers, PARAMS, dense(factors))
        pairs = zip(ours, blocks, strict=True)
        errors[factors] = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]
    for ekfac, kfac in zip(errors["ekfac"], errors["kfac"], strict=True):
        assert ekfac < kfac


def test_kfac_is_the_kronecker_product_of_its_factors():
    c = curvature("kfac")
    for block, got in zip(c.blocks, in_matrix_order(c.layers, PARAMS, dense("kfac")), strict=True):
        want = np.kron(np.asarray(block.output_factor[0]), np.asarray(block.input_factor[0]))
        np.testing.assert_allclose(got, want, atol=1e-13)


@pytest.mark.parametrize("factors", ["ekfac", "kfac"])
def test_it_is_block_diagonal_over_layers_and_diagonal_over_the_other_leaves(factors):
    got, want = dense(factors).copy(), fisher()
    c = curvature(factors)
    places = ravel_pytree(PARAMS)[1](jnp.arange(float(len(got))))
    rest = np.asarray(places["scale"]).astype(int)
    assert c.layers.uncaptured == ("['scale']",)
    np.testing.assert_allclose(got[rest, rest], np.diag(want)[rest], rtol=1e-12)
    for matrix in c.layers.to_matrices(places)[0]:
        index = np.asarray(matrix).astype(int).ravel()
        got[np.ix_(index, index)] = 0
    got[rest, rest] = 0
    assert np.max(np.abs(got)) == 0


def test_the_diagonal_is_that_of_the_matrix_and_of_the_fisher_matrix_where_it_is_fitted():
    for factors in ("ekfac", "kfac", "diagonal"):
        got = ravel_pytree(curvature(factors).diagonal())[0]
        np.testing.assert_allclose(got, np.diag(dense(factors)), atol=1e-14)
    np.testing.assert_allclose(
        ravel_pytree(curvature("diagonal").diagonal())[0], np.diag(fisher()), atol=1e-14
    )


def test_the_preconditioned_gradient_solves_the_damped_system():
    flat = ravel_pytree(GRADS)[0]
    for factors in ("ekfac", "kfac", "diagonal"):
        got = ravel_pytree(precondition(curvature(factors), GRADS, 0.05))[0]
        matrix = dense(factors) + 0.05 * np.eye(flat.size)
        np.testing.assert_allclose(got, np.linalg.solve(matrix, flat), rtol=1e-9)


def test_by_default_a_layer_is_damped_by_a_tenth_of_its_mean_eigenvalue():
    c = curvature()
    got, _ = c.layers.to_matrices(c.precondition(GRADS))
    given, _ = c.layers.to_matrices(GRADS)
    blocks = in_matrix_order(c.layers, PARAMS, dense())
    for v, g, block in zip(got, given, blocks, strict=True):
        damping = 0.1 * np.trace(block) / len(block)
        want = np.linalg.solve(block + damping * np.eye(len(block)), np.ravel(g))
        np.testing.assert_allclose(np.ravel(v), want, rtol=1e-9)


def test_the_root_of_the_inverse_applied_twice_is_the_inverse_and_logdet_its_determinant():
    c = curvature()
    twice = jax.jit(lambda c, v: c.inverse_sqrt(c.inverse_sqrt(v, 0.1), 0.1))(c, GRADS)
    flat = ravel_pytree(precondition(c, GRADS, 0.1))[0]
    np.testing.assert_allclose(ravel_pytree(twice)[0], flat, rtol=1e-10)
    want = np.linalg.slogdet(dense() + 0.1 * np.eye(flat.size))[1]
    np.testing.assert_allclose(c.logdet(0.1), want, rtol=1e-12)


def test_the_identity_has_no_curvature_and_no_damping_of_its_own():
    c = curvature("identity")
    for got, want in zip(
        jax.tree.leaves(c.precondition(GRADS)), jax.tree.leaves(GRADS), strict=True
    ):
        np.testing.assert_array_equal(got, want)
    got = c.precondition(GRADS, 3.0)
    np.testing.assert_allclose(got["w"], GRADS["w"] / 4, rtol=1e-14)


def test_large_damping_leaves_the_gradient_divided_by_it():
    got = precondition(curvature(), GRADS, 1e9)
    np.testing.assert_allclose(1e9 * got["v"], GRADS["v"], rtol=1e-8)


@pytest.mark.slow
def test_its_operators_are_positive_semidefinite_lineax_operators():
    c = curvature()
    operator, inverse = c.operator(0.05), c.inverse(0.05)
    assert lx.is_positive_semidefinite(operator)
    assert lx.is_positive_semidefinite(inverse)
    solved = lx.linear_solve(operator, GRADS, lx.CG(rtol=1e-12, atol=1e-12)).value
    want = ravel_pytree(inverse.mv(GRADS))[0]
    np.testing.assert_allclose(ravel_pytree(solved)[0], want, rtol=1e-7)


def test_it_passes_through_jit_and_vmap():
    c = curvature()
    many = jax.tree.map(lambda g: jnp.stack([g, 2 * g]), GRADS)
    got = jax.jit(lambda c, v, d: jax.vmap(lambda v: c.precondition(v, d))(v))(c, many, 0.05)
    want = precondition(c, GRADS, 0.05)
    np.testing.assert_allclose(got["w"][1], 2 * want["w"], rtol=1e-12)


def test_it_is_saved_and_loaded(tmp_path):
    c = curvature()
    train.save(tmp_path / "curvature", c)
    empty = jax.tree.map(jnp.zeros_like, c)
    loaded = train.load(tmp_path / "curvature", empty)
    np.testing.assert_array_equal(loaded.precondition(GRADS)["w"], c.precondition(GRADS)["w"])
    eqx.tree_serialise_leaves(tmp_path / "curvature.eqx", c)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "curvature.eqx", empty)
    np.testing.assert_array_equal(loaded.trace(), c.trace())


@pytest.mark.bad_input
def test_a_negative_damping_and_a_zero_one_of_a_singular_matrix_are_refused():
    c = curvature("kfac")
    with pytest.raises(ValueError, match="`damping` must be at least zero"):
        c.inverse(-0.1)
    with pytest.raises(ValueError, match=r"`damping` must be positive, got 0.0: .*singular"):
        c.inverse(0.0)
    with pytest.raises(ValueError, match="singular"):
        c.precondition(GRADS, 0.0)


@pytest.mark.bad_input
def test_a_gradient_of_other_parameters_is_refused():
    with pytest.raises(ValueError, match="structure"):
        curvature().precondition({"w": GRADS["w"]})
    with pytest.raises(ValueError, match=r"shapes .* at \"\['w'\]\""):
        curvature().precondition({**GRADS, "w": GRADS["w"].T})
