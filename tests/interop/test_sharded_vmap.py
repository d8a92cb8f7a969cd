"""Ensembles over eight simulated devices in a process of its own, and on one device here."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.interop import sharded_vmap
from simulated_devices import on_eight_devices


@pytest.fixture(scope="module")
def ensembles():
    return on_eight_devices(Path(__file__).with_name("sharded_ensembles.py"))


MESHES = pytest.mark.parametrize("mesh", ["auto", "explicit"])


@pytest.mark.slow
@MESHES
def test_an_adaptive_ensemble_equals_vmap_and_each_sample_takes_its_own_steps(ensembles, mesh):
    case = ensembles[mesh]
    assert case["value"] < 1e-12
    assert case["steps"]
    assert case["cut"]


@pytest.mark.slow
@MESHES
def test_an_adaptive_ensemble_communicates_nothing(ensembles, mesh):
    assert set(ensembles[mesh]["hlo"].values()) == {0}


@pytest.mark.slow
@MESHES
def test_gradients_of_mapped_and_shared_arguments_equal_those_of_vmap(ensembles, mesh):
    case = ensembles[mesh]
    assert case["grad"] < 1e-12
    assert case["grad_hlo"]["all-gather"] == case["grad_hlo"]["all-to-all"] == 0


@pytest.mark.slow
@MESHES
def test_shared_models_keywords_and_results_that_are_no_arrays_pass(ensembles, mesh):
    case = ensembles[mesh]
    assert case["held"] < 1e-12
    assert case["shorter"] < 1e-12
    assert case["name"] == "each"


@pytest.mark.slow
@MESHES
def test_any_axis_may_hold_the_batch_and_other_mesh_axes_are_left_alone(ensembles, mesh):
    case = ensembles[mesh]
    for name in ("turned", "negative", "from the context", "two axes"):
        assert case[name] < 1e-14, name


@pytest.mark.slow
@MESHES
def test_a_batch_that_the_devices_do_not_divide_is_refused(ensembles, mesh):
    assert "multiple of the 8 devices along mesh axis 'batch', got 12" in ensembles[mesh]["uneven"]


def one_device():
    return jax.make_mesh((1,), ("batch",))


def test_on_one_device_it_is_vmap():
    x = jnp.arange(6.0).reshape(3, 2)
    mapped = sharded_vmap(lambda scale, x: scale * jnp.sum(x), one_device(), in_axes=(None, 0))
    np.testing.assert_array_equal(mapped(2.0, x), 2 * jnp.sum(x, 1))
    np.testing.assert_array_equal(jax.jit(mapped)(jnp.asarray(2.0), x), 2 * jnp.sum(x, 1))
    gradient = jax.grad(lambda s: jnp.sum(mapped(s, x)))(jnp.asarray(2.0))
    np.testing.assert_array_equal(gradient, jnp.sum(x))


@pytest.mark.bad_input
def test_misuse_names_the_argument():
    x = jnp.ones((4, 2))
    with pytest.raises(ValueError, match="`mesh` must be given"):
        sharded_vmap(jnp.sin)(x)
    with pytest.raises(ValueError, match="`axis` must be one of 'batch', got 'b'"):
        sharded_vmap(jnp.sin, one_device(), "b")(x)
    with pytest.raises(ValueError, match="one entry a positional argument"):
        sharded_vmap(jnp.sin, one_device(), in_axes=(0, 0))(x)
    with pytest.raises(ValueError, match="one batch size"):
        sharded_vmap(jnp.add, one_device())(x, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="must be axes of the mapped arrays"):
        sharded_vmap(jnp.sin, one_device(), in_axes=2)(x)
    with pytest.raises(TypeError, match="`fn` must be a function"):
        sharded_vmap(3, one_device())
