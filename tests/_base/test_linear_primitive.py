"""A small primitive, the cyclic first difference along the last axis, whose matrix is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from jax.test_util import check_grads

from jaxsci._base import linear_primitive


def shift(x, *, by):
    return x - jnp.roll(x, by, -1)


def partition(mesh, spec, *, by):
    out = PartitionSpec(*spec[:-1], None)
    return out, out, lambda x: shift(x, by=by)


def sharding_rule(ndim, *, by):
    axes = " ".join([*(f"b{i}" for i in range(ndim - 1)), "s"])
    return f"{axes} -> {axes}"


difference = linear_primitive(
    "cyclic_difference",
    local=shift,
    abstract=lambda aval, *, by: aval,
    transpose=lambda ct, *, by: difference(ct, by=-by),
    sharding_rule=sharding_rule,
    partition=partition,
)
MATRIX = np.eye(5) - np.roll(np.eye(5), 2, 0)
X = np.random.default_rng(0).normal(size=(3, 5))


def test_the_value_is_the_matrix_product_eagerly_and_compiled():
    want = X @ MATRIX.T
    np.testing.assert_allclose(difference(X, by=2), want, atol=1e-15)
    np.testing.assert_allclose(jax.jit(lambda x: difference(x, by=2))(X), want, atol=1e-15)


def test_the_primitive_carries_its_name():
    assert "cyclic_difference" in str(jax.make_jaxpr(lambda x: difference(x, by=2))(X))


def test_the_derivatives_are_the_matrix_and_its_transpose():
    f = lambda x: difference(x, by=2)
    np.testing.assert_allclose(jax.jacfwd(f)(X[0]), MATRIX, atol=1e-15)
    np.testing.assert_allclose(jax.jacrev(f)(X[0]), MATRIX, atol=1e-15)
    (back,) = jax.linear_transpose(f, X)(X)
    np.testing.assert_allclose(back, X @ MATRIX, atol=1e-15)
    check_grads(lambda x: jnp.sum(f(x) ** 3), (X,), order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_batch_axis_may_stand_anywhere(axis):
    batch = np.random.default_rng(1).normal(size=(4, 3, 5))
    got = jax.vmap(lambda x: difference(x, by=2), in_axes=axis)(np.moveaxis(batch, 0, axis))
    np.testing.assert_allclose(got, batch @ MATRIX.T, atol=1e-15)
