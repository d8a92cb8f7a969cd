import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.optim.pruning import gradual_sparsity


def test_the_cubic_schedule_is_that_of_zhu_and_gupta():
    schedule = gradual_sparsity(0.9, 100, initial=0.1, begin=20)
    steps = np.array([0, 20, 45, 70, 120, 500])
    x = np.clip((steps - 20) / 100, 0, 1)
    np.testing.assert_allclose(
        jax.vmap(schedule)(jnp.asarray(steps)), 0.9 - 0.8 * (1 - x) ** 3, atol=1e-12
    )


def test_the_exponential_schedule_keeps_the_same_share_at_every_step():
    schedule = gradual_sparsity(0.96, 5, initial=0.2, shape="exponential")
    kept = np.array([1 - float(schedule(k)) for k in range(6)])
    np.testing.assert_allclose(kept[1:] / kept[:-1], (0.04 / 0.8) ** 0.2, rtol=1e-12)
    np.testing.assert_allclose(kept[[0, -1]], [0.8, 0.04], rtol=1e-12)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"final": 1.0}, "final"),
        ({"initial": 0.95}, "initial"),
        ({"steps": 0}, "steps"),
        ({"begin": -1}, "begin"),
        ({"shape": "linear"}, "shape"),
    ],
)
def test_arguments_out_of_range_are_refused(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        gradual_sparsity(**({"final": 0.9, "steps": 10} | options))
