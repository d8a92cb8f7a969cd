from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import block_columns, capture_layers, kronecker_statistics

RNG = np.random.default_rng(4)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(20, 3))),
    "b": jnp.asarray(RNG.normal(size=20)),
    "s": jnp.asarray(RNG.normal(size=20)),
}
X = jnp.asarray(RNG.normal(size=(6, 3)))
WEIGHTS = jnp.asarray([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])


def model(p, x):
    return (p["w"] @ x + p["b"]) * p["s"]


def statistics(x=X, **kwargs):
    run = jax.jit(lambda x: kronecker_statistics(model, "mse", PARAMS, x, labels="exact", **kwargs))
    return run(x)


def test_more_backward_passes_than_run_side_by_side_add_up_to_the_closed_form():
    a = np.concatenate([X, np.ones((6, 1))], axis=1)
    s = np.asarray(PARAMS["s"])
    got: Any = statistics(bases=((None, None),))
    np.testing.assert_allclose(got.input_grams[0][0], a.T @ a, rtol=1e-12)
    np.testing.assert_allclose(got.output_grams[0][0], 6 * np.diag(s**2), atol=1e-12)
    want = np.outer(s**2, np.sum(a**2, axis=0))
    np.testing.assert_allclose(got.squares[0][0], want, rtol=1e-12)
    f = np.asarray(X @ PARAMS["w"].T + PARAMS["b"])
    np.testing.assert_allclose(got.diagonal["['s']"], np.sum(f**2, axis=0), rtol=1e-12)
    assert (float(got.count), float(got.positions[0])) == (6, 6)


def test_an_example_of_weight_zero_does_not_count_and_leaves_select_columns():
    got: Any = statistics(weights=WEIGHTS, leaves=["['w']"])
    x = np.asarray(X)[np.asarray(WEIGHTS) > 0]
    np.testing.assert_allclose(got.input_grams[0][0], x.T @ x, rtol=1e-12)
    np.testing.assert_allclose(
        got.output_grams[0][0], 4 * np.diag(np.asarray(PARAMS["s"]) ** 2), atol=1e-12
    )
    assert float(got.count) == 4
    assert got.diagonal == {}


def test_the_columns_of_a_layer_are_those_of_its_weight_and_of_its_bias():
    (block,) = capture_layers(model, PARAMS, X[0]).blocks
    assert block_columns(block) == (0, 4)
    assert block_columns(block, ["['w']"]) == (0, 3)
    assert block_columns(block, ["['b']"]) == (3, 4)
    start, stop = block_columns(block, ["['s']"])
    assert start == stop


@pytest.mark.bad_input
def test_exact_labels_need_a_likelihood_with_a_root():
    class Poisson:
        def loss(self, outputs, labels):
            return jnp.sum(jnp.exp(outputs) - labels * outputs)

        def sample(self, key, outputs):
            return jax.random.poisson(key, jnp.exp(outputs))

    with pytest.raises(ValueError, match="`num_columns` and `root_column`"):
        kronecker_statistics(model, Poisson(), PARAMS, X, labels="exact")
    with pytest.raises(ValueError, match="`key` is needed"):
        kronecker_statistics(model, "mse", PARAMS, X)
