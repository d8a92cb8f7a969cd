import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxsci.curvature.influence import lissa


def diagonal(values):
    return lx.DiagonalLinearOperator(jnp.asarray(values))


def test_it_converges_if_and_only_if_the_scale_exceeds_half_the_largest_eigenvalue():
    eigenvalues = jnp.asarray([1.0, 3.0, 8.0])
    g = jnp.asarray([1.0, -2.0, 3.0])
    solve = jax.jit(lambda scale: lissa(diagonal(eigenvalues), g, scale=scale, num_steps=400))
    np.testing.assert_allclose(solve(4.1), g / eigenvalues, rtol=1e-8)
    assert np.abs(solve(3.9)).max() > 1e6


def test_its_iterates_are_the_partial_geometric_sums():
    # v_n = (1 - (1 - a / s)^n) g / a in every eigendirection.
    a, g, s, n = jnp.asarray([0.5, 2.0]), jnp.asarray([1.0, 1.0]), 3.0, 7
    expected = (1 - (1 - a / s) ** n) * g / a
    np.testing.assert_allclose(lissa(diagonal(a), g, scale=s, num_steps=n), expected, rtol=1e-13)


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    g = jnp.ones(2)
    with pytest.raises(ValueError, match="scale"):
        lissa(diagonal(g), g, scale=0.0, num_steps=3)
    with pytest.raises(ValueError, match="num_steps"):
        lissa(diagonal(g), g, scale=1.0, num_steps=0)
