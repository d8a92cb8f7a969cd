import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxsci.interop import linen_function, nnx_function


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Dense(4)(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dropout(0.5, deterministic=not train)(x)

    def twice(self, x):
        return 2 * self(x)


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.dropout(self.norm(x))


X = jnp.arange(6.0).reshape(2, 3)


@pytest.fixture(scope="module")
def variables():
    return Linen().init(jax.random.key(0), X)


def test_a_linen_function_is_apply_with_the_other_collections_fixed(variables):
    fn, params = linen_function(Linen(), variables)
    assert params is variables["params"]
    np.testing.assert_array_equal(fn(params, X), Linen().apply(variables, X))
    moved = jax.tree.map(lambda x: x + 1, params)
    np.testing.assert_array_equal(fn(moved, X), Linen().apply({**variables, "params": moved}, X))


def test_a_linen_function_takes_another_method_and_random_numbers(variables):
    fn, params = linen_function(Linen(), variables, method="twice")
    np.testing.assert_allclose(fn(params, X), 2 * Linen().apply(variables, X), rtol=1e-6)
    fn, params = linen_function(Linen(), variables, mutable=["batch_stats"])
    out, _ = fn(params, X, train=True, rngs={"dropout": jax.random.key(1)})
    assert 0 < jnp.sum(out == 0) < out.size


def test_an_nnx_function_is_the_model_with_its_parameters_replaced():
    model = NNX(nnx.Rngs(0))
    model.eval()
    fn, params = nnx_function(model)
    np.testing.assert_array_equal(fn(params, X), model(X))
    assert set(params) == {"layers", "norm"}
    zero = jax.tree.map(jnp.zeros_like, params)
    assert np.all(np.asarray(fn(zero, X)) == 0)
    np.testing.assert_array_equal(fn(params, X), model(X))


def test_an_nnx_function_can_be_mapped_and_differentiated():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    fn, params = nnx_function(model)
    grads = jax.vmap(jax.grad(lambda p, x: fn(p, x).sum()), (None, 0))(params, X)
    np.testing.assert_allclose(grads["kernel"], np.repeat(X[..., None], 2, axis=2), rtol=1e-6)


@pytest.mark.bad_input
def test_other_objects_are_refused(variables):
    with pytest.raises(TypeError, match="module"):
        linen_function(jnp.sin, variables)
    with pytest.raises(ValueError, match="params"):
        linen_function(Linen(), {"batch_stats": {}})
    with pytest.raises(TypeError, match="nnx"):
        nnx_function(Linen())


@pytest.mark.bad_input
def test_a_missing_flax_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    with pytest.raises(ImportError, match=r"jaxsci\[flax\]"):
        nnx_function(None)
