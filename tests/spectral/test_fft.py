"""The transform against `jnp.fft`, and on eight simulated devices in a process of its own."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import spectral
from simulated_devices import on_eight_devices

SHAPES = [(8,), (9,), (6, 8), (7, 9), (8, 5), (4, 6, 8), (5, 4, 7)]


def pair(kind, shape):
    """Our transform, JAX's, and an input with two leading axes."""
    d = len(shape)
    axes = tuple(range(-d, 0))
    rng = np.random.default_rng(0)
    draw = lambda s: jnp.asarray(rng.standard_normal((2, 3, *s)))
    half = (*shape[:-1], shape[-1] // 2 + 1)
    if kind == "fft":
        x = draw(shape) + 1j * draw(shape)
        return lambda x: spectral.fftn(x, d), lambda x: jnp.fft.fftn(x, axes=axes), x
    if kind == "ifft":
        x = draw(shape) + 1j * draw(shape)
        return lambda x: spectral.ifftn(x, d), lambda x: jnp.fft.ifftn(x, axes=axes), x
    if kind == "rfft":
        return lambda x: spectral.rfftn(x, d), lambda x: jnp.fft.rfftn(x, axes=axes), draw(shape)
    x = draw(half) + 1j * draw(half)
    return (
        lambda x: spectral.irfftn(x, shape),
        lambda x: jnp.fft.irfftn(x, s=shape, axes=axes),
        x,
    )


KINDS = ["fft", "ifft", "rfft", "irfft"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_tangents_and_cotangents_equal_those_of_jax(kind, shape):
    ours, theirs, x = pair(kind, shape)
    v = x[::-1] * 0.7
    for a, b in zip(jax.jvp(ours, (x,), (v,)), jax.jvp(theirs, (x,), (v,))):
        np.testing.assert_allclose(a, b, atol=1e-12)
    y, pull = jax.vjp(ours, x)
    _, pull_theirs = jax.vjp(theirs, x)
    ct = jnp.cos(jnp.arange(y.size, dtype=float)).reshape(y.shape).astype(y.dtype)
    ct = ct * (1 + 0.5j) if jnp.iscomplexobj(y) else ct
    np.testing.assert_allclose(pull(ct)[0], pull_theirs(ct)[0], atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_transpose_is_its_own_derivative(kind):
    ours, theirs, x = pair(kind, (6, 7))
    energy = lambda f: lambda x: jnp.sum(jnp.abs(f(x)) ** 4)
    v = x[::-1]
    hvp = lambda f: jax.jvp(jax.grad(energy(f)), (x,), (v,))[1]
    np.testing.assert_allclose(hvp(ours), hvp(theirs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_vmap_of_values_and_gradients_equals_the_batched_transform(kind, axis):
    ours, theirs, x = pair(kind, (6, 5))
    mapped = jax.vmap(ours, in_axes=axis, out_axes=axis)(x)
    np.testing.assert_allclose(mapped, theirs(x), atol=1e-12)
    gradient = jax.vmap(jax.grad(lambda x: jnp.sum(jnp.abs(ours(x)) ** 2)), axis, axis)(x)
    expected = jax.grad(lambda x: jnp.sum(jnp.abs(theirs(x)) ** 2))(x)
    np.testing.assert_allclose(gradient, expected, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_follows_the_input(dtype):
    u = jnp.ones((4, 6), dtype)
    uh = spectral.rfftn(u, 2)
    assert uh.dtype == np.result_type(dtype, np.complex64)
    assert spectral.irfftn(uh, (4, 6)).dtype == dtype
    full = spectral.fftn(u, 2)
    assert full.dtype == uh.dtype
    assert spectral.ifftn(full, 2).dtype == uh.dtype
    gradient = jax.grad(lambda u: jnp.sum(jnp.abs(spectral.rfftn(u, 2)) ** 2))(u)
    assert gradient.dtype == dtype


@pytest.fixture(scope="module")
def sharded():
    return on_eight_devices(Path(__file__).with_name("sharded_fft.py"))


LAYOUTS = ["batch", "slab", "batch and slab"]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["auto", "explicit"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_sharded_values_and_gradients_equal_unsharded_ones(sharded, mesh, layout, kind):
    case = sharded[f"{mesh}/{layout}/{kind}"]
    assert case["value"] < 1e-12
    assert case["grad"] < 1e-12
    assert case["vmap"] < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["auto", "explicit"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_sharded_transform_communicates_nothing(sharded, mesh, kind):
    case = sharded[f"{mesh}/batch/{kind}"]
    for program in ("value_hlo", "grad_hlo", "vmap_hlo"):
        assert case[program]["all-gather"] == case[program]["all-to-all"] == 0, program


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["auto", "explicit"])
@pytest.mark.parametrize("layout", ["slab", "batch and slab"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_slab_sharded_transform_exchanges_slabs_and_gathers_nothing(sharded, mesh, layout, kind):
    case = sharded[f"{mesh}/{layout}/{kind}"]
    for program in ("value_hlo", "grad_hlo", "vmap_hlo"):
        assert case[program]["all-gather"] == 0, program
        assert case[program]["all-to-all"] > 0, program


@pytest.mark.slow
def test_space_is_cut_in_slabs_in_three_dimensions_and_uneven_spectra(sharded):
    for name in ("3d", "odd"):
        assert sharded[name]["value"] < 1e-12
        assert sharded[name]["hlo"]["all-gather"] == 0
        assert sharded[name]["hlo"]["all-to-all"] > 0


@pytest.mark.slow
def test_a_one_dimensional_axis_that_is_sharded_is_still_transformed_rightly(sharded):
    assert sharded["1d"]["value"] < 1e-12


@pytest.mark.slow
def test_the_transform_works_inside_shard_map(sharded):
    assert sharded["shard_map"]["value"] < 1e-12
    assert sharded["shard_map"]["grad"] < 1e-12
    assert sharded["shard_map"]["hlo"]["all-gather"] == 0


@pytest.mark.slow
def test_a_rollout_of_a_batch_sharded_flow_gathers_nothing(sharded):
    case = sharded["rollout"]
    assert case["value"] < 1e-12
    assert case["grad"] < 1e-10
    assert case["hlo"]["all-gather"] == case["hlo"]["all-to-all"] == 0
    assert case["grad_hlo"]["all-gather"] == case["grad_hlo"]["all-to-all"] == 0
