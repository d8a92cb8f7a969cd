import jax
import jax.numpy as jnp
import numpy as np

from jaxsci._base import NonTrainable, parameter_mask


def test_a_value_that_is_not_trained_is_a_node_of_the_pytree():
    table = NonTrainable({"a": jnp.arange(3.0), "b": jnp.ones(2)})
    assert len(jax.tree.leaves(table)) == 2
    doubled = jax.tree.map(lambda x: 2 * x, table)
    assert isinstance(doubled, NonTrainable)
    np.testing.assert_array_equal(doubled.value["a"], [0, 2, 4])


def test_a_value_that_is_not_trained_passes_through_jit_and_vmap():
    table = NonTrainable(jnp.arange(6.0).reshape(3, 2))
    total = jax.jit(jax.vmap(lambda t: jnp.sum(t.value)))(table)
    np.testing.assert_array_equal(total, [1, 5, 9])


def test_parameters_are_the_floating_arrays_outside_nontrainable():
    model = {"w": jnp.ones(2), "fixed": NonTrainable(jnp.ones(2)), "n": jnp.arange(2), "f": jnp.sin}
    mask = parameter_mask(model)
    assert mask["w"] is True
    assert not any(jax.tree.leaves({**mask, "w": False}))
