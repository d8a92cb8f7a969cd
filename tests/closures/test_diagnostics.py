import jax
import jax.numpy as jnp
import numpy as np

from jaxsci.closures import mean_speed, order_density, order_parameter, second_moment


def test_the_order_parameter_is_the_eigenvalue_gap_of_the_second_moment():
    rng = np.random.default_rng(0)
    c = jnp.asarray(rng.uniform(0.5, 2, 20))
    z = c * jnp.asarray(rng.uniform(0, 0.7, 20) * np.exp(1j * rng.uniform(0, 6, 20)))
    q = np.moveaxis(np.asarray(second_moment(c, z) / c), -1, 0)
    largest = np.linalg.eigvalsh(q)[:, 1]
    np.testing.assert_allclose(order_parameter(c, z), 2 * largest - 1, atol=1e-13)


def test_a_flow_of_unit_speed_everywhere_has_mean_speed_one():
    x = 2 * np.pi * np.arange(64) / 64
    u = np.array([np.sin(x)[:, None] + 0 * x, np.cos(x)[:, None] + 0 * x])
    np.testing.assert_allclose(mean_speed(jnp.asarray(u)), 1, atol=1e-14)


def test_gradients_at_rest_and_at_isotropy_are_zero_not_nan():
    assert np.all(jax.grad(mean_speed)(jnp.zeros((2, 4, 4))) == 0)
    slope = jax.grad(lambda z: order_parameter(jnp.ones(3), z).sum())(jnp.zeros(3, complex))
    assert np.all(slope == 0)


def test_the_density_of_the_order_parameter_integrates_to_one():
    s = jnp.asarray(np.random.default_rng(0).beta(2, 5, 4000))
    centres, density = order_density(s, 20)
    np.testing.assert_allclose(jnp.sum(density) / 20, 1, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(centres * density) / 20, s.mean(), atol=2e-3)


def test_statistics_keep_float32():
    s = order_parameter(jnp.ones(5, jnp.float32), jnp.ones(5, jnp.complex64) / 2)
    assert s.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in order_density(s))
