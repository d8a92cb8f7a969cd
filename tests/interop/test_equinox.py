import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci._base import NonTrainable
from jaxsci.interop import equinox_function


class Model(eqx.Module):
    linear: eqx.nn.Linear
    mean: NonTrainable
    steps: jax.Array

    def __call__(self, x, scale=1.0):
        return scale * self.linear(x - self.mean.value) * self.steps


MODEL = Model(
    eqx.nn.Linear(3, 2, key=jax.random.key(0)), NonTrainable(jnp.ones(3)), jnp.array(2, jnp.int32)
)


def test_the_function_is_the_model_with_its_parameters_replaced():
    fn, params = equinox_function(MODEL)
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(fn(params, x, scale=3.0), MODEL(x, scale=3.0))
    zero = jax.tree.map(jnp.zeros_like, params)
    np.testing.assert_array_equal(fn(zero, x), np.zeros(2))


def test_statistics_and_integers_are_not_parameters():
    _, params = equinox_function(MODEL)
    assert len(jax.tree.leaves(params)) == 2
    assert params.linear.weight is MODEL.linear.weight


@pytest.mark.bad_input
def test_a_model_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="callable"):
        equinox_function({"w": jnp.ones(3)})
