import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import train


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(3.0, 5.0, size=(50, 2, 4, 3))


@pytest.mark.parametrize("axis", [0, (0, 2, 3), (-4, 2, -1)])
def test_standard_statistics_are_mean_zero_and_deviation_one(data, axis):
    normalizer = train.Normalizer.fit(data, axis=axis)
    axes = (axis,) if isinstance(axis, int) else axis
    x = np.asarray(normalizer.forward(jnp.asarray(data)))
    np.testing.assert_allclose(x.mean(axis=axes), 0, atol=1e-14)
    np.testing.assert_allclose(x.std(axis=axes), 1, rtol=1e-13)
    assert normalizer.shift.value.shape == ((2, 4, 3) if axis == 0 else (2, 1, 1))


def test_unit_range_maps_the_extremes_to_zero_and_one(data):
    normalizer = train.Normalizer.fit(data, kind="unit_range", axis=(0, 2, 3))
    x = np.asarray(normalizer.forward(jnp.asarray(data)))
    np.testing.assert_allclose(x.min(axis=(0, 2, 3)), 0, atol=1e-15)
    np.testing.assert_allclose(x.max(axis=(0, 2, 3)), 1, rtol=1e-14)


@pytest.mark.parametrize("kind", ["standard", "unit_range"])
def test_inverse_undoes_forward_for_one_sample_under_vmap(data, kind):
    normalizer = train.Normalizer.fit(data, kind=kind)
    there_and_back = jax.jit(jax.vmap(lambda x: normalizer.inverse(normalizer.forward(x))))
    np.testing.assert_allclose(there_and_back(jnp.asarray(data)), data, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_dtype_of_the_sample_is_kept(data, dtype):
    x = jnp.asarray(data, dtype)
    normalizer = train.Normalizer.fit(x)
    assert normalizer.shift.value.dtype == jnp.float32
    assert normalizer.forward(x[0]).dtype == dtype
    assert train.Normalizer.fit(data).inverse(x[0]).dtype == dtype


@pytest.mark.parametrize("kind", ["standard", "unit_range"])
def test_a_constant_entry_is_only_shifted(kind):
    # The computed mean of a thousand times 0.1 is not 0.1, so the computed spread is not 0.
    data = jnp.stack([jnp.full(1000, 0.1), jnp.arange(1000.0)], axis=1)
    normalizer = train.Normalizer.fit(data, kind=kind)
    assert normalizer.scale.value[0] == 1
    np.testing.assert_allclose(normalizer.forward(jnp.array([0.35, 0.0]))[0], 0.25, rtol=1e-13)


def test_small_spread_about_a_large_mean_is_kept_in_float32():
    data = jnp.asarray(1000 + np.linspace(-1, 1, 101)[:, None], jnp.float32)
    np.testing.assert_allclose(train.Normalizer.fit(data).scale.value, 0.5831, rtol=1e-3)


def test_integers_and_complex_numbers_are_normalised():
    assert train.Normalizer.fit(np.arange(4)[:, None]).shift.value == 1.5
    z = jnp.array([[1 + 1j], [-1 + 1j], [0 + 3j], [0 - 1j]])
    normalizer = train.Normalizer.fit(z)
    np.testing.assert_allclose(normalizer.shift.value, [1j], rtol=1e-15)
    np.testing.assert_allclose(normalizer.scale.value, [(10 / 4) ** 0.5], rtol=1e-15)


def test_statistics_are_not_trainable(data):
    assert not any(jax.tree.leaves(train.trainable(train.Normalizer.fit(data))))


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    data, unknown = jnp.ones((3, 2)), "minmax"
    with pytest.raises(ValueError, match="`kind` must be one of 'standard', 'unit_range'"):
        train.Normalizer.fit(data, kind=unknown)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`axis` must contain 0"):
        train.Normalizer.fit(data, axis=1)
    with pytest.raises(ValueError, match="`axis` must be within the 2 axes"):
        train.Normalizer.fit(data, axis=(0, 2))
    with pytest.raises(ValueError, match="`data` must hold at least one sample"):
        train.Normalizer.fit(jnp.ones((0, 2)))
    with pytest.raises(ValueError, match="`data` must be finite"):
        train.Normalizer.fit(jnp.array([[jnp.nan]]))
    with pytest.raises(ValueError, match="must have real `data`"):
        train.Normalizer.fit(data * 1j, kind="unit_range")
