import functools
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxsci.curvature import BlockFisherInverse

M, DAMPING, B = 10, 0.2, 5
SHAPES = {"a": (3, 4), "b": (5,), "c": ()}
D = 18


def stack(dtype: Any = np.float64):
    rng = np.random.default_rng(0)
    return {k: jnp.asarray(rng.normal(size=(M, *s)), dtype) for k, s in SHAPES.items()}


def dense():
    g = np.concatenate([np.asarray(x).reshape(M, -1) for x in stack().values()], 1)
    owner = np.array(
        [(k, i // B) for k, s in SHAPES.items() for i in range(int(np.prod(s)))], dtype=object
    )
    same = np.array([[tuple(p) == tuple(q) for q in owner] for p in owner])
    return (DAMPING * np.eye(D) + g.T @ g / M) * same


@functools.cache
def operator():
    return BlockFisherInverse.from_gradients(stack(), DAMPING, B)


def tree_of(x):
    return ravel_pytree({k: jnp.zeros(s) for k, s in SHAPES.items()})[1](jnp.asarray(x))


def flat_of(tree):
    return np.asarray(ravel_pytree(tree)[0])


def test_products_and_diagonal_are_those_of_the_inverse_of_the_blocks():
    op, want = operator(), np.linalg.inv(dense())
    x = np.random.default_rng(1).normal(size=D)
    np.testing.assert_allclose(flat_of(op.mv(tree_of(x))), want @ x, atol=1e-10)
    np.testing.assert_allclose(flat_of(op.diagonal()), np.diag(want), atol=1e-10)
    np.testing.assert_allclose(op.as_matrix(), want, atol=1e-10)


def test_chunks_give_the_operator_of_all_gradients():
    whole = stack()
    chunks = (jax.tree.map(lambda x, i=i: x[i : i + 3], whole) for i in range(0, M, 3))
    op = BlockFisherInverse.from_chunks(chunks, DAMPING, B)
    np.testing.assert_allclose(op.as_matrix(), operator().as_matrix(), atol=1e-12)


def test_the_restricted_solution_is_stationary_on_the_kept_entries():
    rng = np.random.default_rng(2)
    keep, change = rng.random(D) < 0.5, rng.normal(size=D)
    got = flat_of(operator().restricted_solution(tree_of(keep), tree_of(change)))
    np.testing.assert_array_equal(got[~keep], 0)
    np.testing.assert_allclose((dense() @ np.where(keep, got, change))[keep], 0, atol=1e-10)


@pytest.mark.slow
def test_lineax_knows_it_is_positive():
    op = operator()
    assert lx.is_positive_semidefinite(op)
    x = np.random.default_rng(3).normal(size=D)
    solution = lx.linear_solve(op, tree_of(x), lx.CG(rtol=1e-12, atol=1e-12)).value
    np.testing.assert_allclose(flat_of(solution), dense() @ x, atol=1e-8)


def test_unit_noise_regression_recovers_the_second_moment_of_the_inputs():
    rng = np.random.default_rng(8)
    n = 200_000
    x = rng.normal(size=(n, 3)) @ np.array([[1, 0.3, 0], [0, 0.7, 0.2], [0, 0, 0.5]])
    residual = rng.normal(size=n)  # labels sampled from the model itself
    grads = jnp.asarray(residual[:, None] * x)
    chunks = (grads[i : i + 50_000] for i in range(0, n, 50_000))
    op = BlockFisherInverse.from_chunks(chunks, 1e-9, 3)
    np.testing.assert_allclose(np.linalg.inv(op.as_matrix()), x.T @ x / n, atol=0.02)


def test_float32_gradients_stay_float32():
    op = BlockFisherInverse.from_gradients(stack(np.float32), DAMPING, B)
    x = jax.tree.map(lambda g: g[0], stack(np.float32))
    outputs = jax.eval_shape(lambda: (op.mv(x), op.diagonal(), op.as_matrix()))
    dtypes = {v.dtype for v in jax.tree.leaves(outputs)}
    assert dtypes == {jnp.dtype(jnp.float32)}


@pytest.mark.bad_input
def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`block_size`"):
        BlockFisherInverse.from_gradients(stack(), DAMPING, 0)
    with pytest.raises(ValueError, match="`damping`"):
        BlockFisherInverse.from_gradients(stack(), 0.0, B)
    with pytest.raises(ValueError, match="`chunks`"):
        BlockFisherInverse.from_chunks([], DAMPING, B)
