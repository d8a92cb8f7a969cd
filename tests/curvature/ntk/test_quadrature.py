import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.curvature import ntk


def test_a_polynomial_is_integrated_exactly_and_the_arguments_broadcast():
    # E[u^2 v^2] and E[(2u)(2v)]
    q, q2, c = jnp.asarray([[1.3], [2.0]]), jnp.asarray([0.7, 1.0, 1.1]), -0.4
    value, slope = ntk.dual_quadrature(jnp.square, num_nodes=4)(q, q2, c)
    np.testing.assert_allclose(value, q * q2 + 2 * c**2, rtol=1e-13)
    np.testing.assert_allclose(slope, np.full((2, 3), 4 * c), rtol=1e-13)


def test_more_nodes_than_a_tabulated_rule_would_allow_still_work():
    value, _ = ntk.dual_quadrature(jnp.exp, 300)(0.5, 0.7, 0.4)
    np.testing.assert_allclose(value, np.exp(1.0), rtol=1e-12)


def test_first_and_second_derivatives_are_those_of_the_closed_form_also_on_the_diagonal():
    points = jnp.asarray([(1.3, 0.7, 0.5), (0.8, 0.8, 0.8), (0.8, 0.8, -0.8)])

    def derivatives(fn, point):
        q, q2, c = point
        first = jax.grad(lambda *a: fn(*a)[1], argnums=(0, 1, 2))(q, q2, c)
        second = jax.grad(jax.grad(lambda c: fn(q, q2, c)[0]))(c)
        return jnp.stack([*first, second])

    @jax.jit
    def both(points):
        fns = (ntk.dual("sin"), ntk.dual_quadrature(jnp.sin, 40))
        return [jax.vmap(lambda p, fn=fn: derivatives(fn, p))(points) for fn in fns]

    expected, got = both(points)
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.bad_input
def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`num_nodes` must be at least 1"):
        ntk.dual_quadrature(jnp.tanh, 0)
    with pytest.raises(TypeError, match="`fn` must be a function"):
        ntk.dual_quadrature("tanh")  # pyright: ignore[reportArgumentType]
