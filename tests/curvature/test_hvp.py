import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import hvp


def rosenbrock(p):
    x, y = p["x"], p["y"]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def test_the_product_is_the_closed_form_for_rosenbrock():
    x, y = 0.3, -1.2
    hessian = np.array([[2 - 400 * (y - 3 * x**2), -400 * x], [-400 * x, 200.0]])
    expected = hessian @ np.array([0.7, -2.0])
    p = {"x": jnp.asarray(x), "y": jnp.asarray(y)}
    out = hvp(rosenbrock, p, {"x": jnp.asarray(0.7), "y": jnp.asarray(-2.0)})
    np.testing.assert_allclose([out["x"], out["y"]], expected, rtol=1e-13)


def test_it_is_linear_symmetric_and_the_same_under_jit_vmap_and_grad(key):
    matrix = jax.random.normal(key, (5, 5))
    f = lambda x: jnp.sum(jnp.cosh(matrix @ x))
    x, u, v = jax.random.normal(jax.random.key(1), (3, 5))
    product = jax.jit(lambda x, v: hvp(f, x, v))
    closed = matrix.T @ (jnp.cosh(matrix @ x) * (matrix @ v))
    np.testing.assert_allclose(product(x, v), closed, rtol=1e-12)
    np.testing.assert_allclose(u @ product(x, v), v @ product(x, u), rtol=1e-12)
    both = jax.vmap(product, in_axes=(None, 0))(x, jnp.stack([u, v]))
    np.testing.assert_allclose(both[1], closed, rtol=1e-12)
    third = jax.grad(lambda x: v @ hvp(f, x, v))(x)
    closed_third = matrix.T @ (jnp.sinh(matrix @ x) * (matrix @ v) ** 2)
    np.testing.assert_allclose(third, closed_third, rtol=1e-12)


def test_float32_stays_float32():
    x = jnp.ones(3, jnp.float32)
    assert hvp(lambda x: jnp.sum(x**3), x, x).dtype == jnp.float32


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x, r"shape \(3,\)"),
        (lambda x: (jnp.sum(x), x), "one scalar, got the pytree"),
        (lambda x: jnp.sum(x) * 1j, "dtype complex"),
        (lambda x: None, "one scalar, got the pytree"),
    ],
)
def test_an_objective_that_is_not_one_real_scalar_is_refused(f, message):
    with pytest.raises(ValueError, match=message):
        hvp(f, jnp.ones(3), jnp.ones(3))
