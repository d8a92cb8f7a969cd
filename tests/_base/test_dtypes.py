import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci._base import complex_dtype, is_complex, real_dtype

REAL = {
    "float32": np.float32,
    "float64": np.float64,
    "complex64": np.float32,
    "complex128": np.float64,
    "bfloat16": jnp.bfloat16,
    "int32": np.float64,
    "bool": np.float64,
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_dtype_has_the_precision_of_the_value(name):
    dtype = jnp.dtype(name)
    for value in (dtype, jnp.ones(2, dtype), np.ones((), dtype)):
        assert real_dtype(value) == REAL[name]


def test_the_complex_dtype_has_the_precision_of_the_value():
    for name in ("float32", "complex64"):
        assert complex_dtype(jnp.dtype(name)) == np.complex64
    for name in ("float64", "complex128", "int32"):
        assert complex_dtype(jnp.dtype(name)) == np.complex128


def test_python_numbers_have_the_default_precision():
    assert real_dtype(1.0) == real_dtype(1) == real_dtype(float) == np.float64
    assert complex_dtype(1.0) == complex_dtype(1j) == np.complex128


def test_complex_arrays_numbers_and_dtypes_are_complex():
    assert all(is_complex(x) for x in (1j, np.complex64, jnp.ones(2, complex)))
    assert not any(is_complex(x) for x in (1, 1.0, np.float32, jnp.ones(2), True))
