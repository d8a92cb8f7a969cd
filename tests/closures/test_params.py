import jax
import jax.numpy as jnp
import pytest

from jaxsci.closures import ActiveFluidParams


def test_the_constants_are_floating_leaves_so_that_they_can_be_estimated():
    params = ActiveFluidParams(alpha=-3, zeta=1)
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 6
    assert all(jnp.issubdtype(x.dtype, jnp.floating) for x in leaves)
    grads = jax.grad(lambda p: p.alpha**2 + p.zeta)(params)
    assert grads.alpha == -6
    assert grads.zeta == 1


def test_the_defaults_are_those_of_the_published_data():
    params = ActiveFluidParams(alpha=-1.0)
    assert (params.beta, params.d_t, params.d_r, params.v0) == (0.8, 0.05, 0.05, 0.0)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["alpha", "beta", "zeta", "d_t", "d_r", "v0"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_constant_that_is_not_finite_is_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be finite"):
        ActiveFluidParams(**{"alpha": -1.0, name: value})


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["beta", "d_t", "d_r"])
def test_a_negative_particle_stress_or_diffusion_is_named(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least zero"):
        ActiveFluidParams(**{"alpha": -1.0, name: -0.1})
