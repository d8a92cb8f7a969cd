import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import CompositeObjective, hvp, MeanObjective

TARGET = jnp.asarray([1.0, -2.0, 0.5])


def model(p):
    return p["w"] * jnp.arange(3.0) + p["b"]


def losses(p):
    return (model(p) - TARGET) ** 2


P = {"w": jnp.asarray(0.7), "b": jnp.asarray(-0.3)}
VALUE = np.mean((0.7 * np.arange(3) - 0.3 - np.asarray(TARGET)) ** 2)
OBJECTIVES = [
    MeanObjective(losses),
    CompositeObjective(model, lambda y: jnp.mean((y - TARGET) ** 2)),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["mean", "composite"])
def test_an_objective_is_called_and_differentiated_like_the_plain_function(objective):
    np.testing.assert_allclose(objective(P), VALUE, rtol=1e-14)
    v = {"w": jnp.asarray(1.0), "b": jnp.asarray(0.0)}
    product = hvp(objective, P, v)
    np.testing.assert_allclose([product["w"], product["b"]], [2 * 5 / 3, 2.0], rtol=1e-14)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["mean", "composite"])
def test_a_change_of_parameters_keeps_the_kind_and_the_value(objective):
    moved = objective.precompose(lambda w: {"w": w, "b": P["b"]})
    assert type(moved) is type(objective)
    np.testing.assert_allclose(moved(P["w"]), VALUE, rtol=1e-14)
