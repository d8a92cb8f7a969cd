import jax.numpy as jnp
import numpy as np

from jaxsci._base import example_structure, strided_parts


def test_an_example_has_the_shapes_and_dtypes_of_one_row():
    batch = {"x": jnp.zeros((3, 4, 2), jnp.float32), "y": np.zeros(3, np.int32)}
    example = example_structure(batch)
    assert (example["x"].shape, example["x"].dtype) == ((4, 2), jnp.float32)
    assert (example["y"].shape, example["y"].dtype) == ((), jnp.int32)


def test_parts_take_every_so_many_rows_and_share_scalars():
    parts = strided_parts({"x": jnp.arange(6), "scale": 2.0}, 3)
    np.testing.assert_array_equal(parts["x"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(parts["scale"], [2, 2, 2])
