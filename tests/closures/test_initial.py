import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.closures import random_moments
from jaxsci.spectral import FourierGrid

GRID = FourierGrid((32, 32), (10.0, 10.0))
draw = jax.jit(lambda key: random_moments(key, GRID, 8))


def test_the_modes_belong_to_a_positive_density_of_mean_one(key):
    a = np.asarray(draw(key))
    assert a.shape == (9, 32, 32)
    np.testing.assert_allclose(a[0].mean(), 1, atol=1e-14)
    theta = np.linspace(0, 2 * np.pi, 40)
    waves = np.exp(-2j * np.outer(theta, np.arange(9))) * np.where(np.arange(9) == 0, 1, 2)
    psi = np.einsum("tm,mxy->txy", waves, a).real / (2 * np.pi)
    assert psi.min() > 0
    assert np.abs(a[1]).max() > 1e-3


def test_a_cosine_power_has_the_angular_modes_of_its_quadrature():
    """With one term, 2 pi psi = 1 + f cos(2 theta + r): only a_2 changes, with modulus f/2."""
    a = np.asarray(random_moments(jax.random.key(1), GRID, 3, num_terms=1, amplitude=0.5))
    np.testing.assert_allclose(a[0], 1, atol=1e-14)
    np.testing.assert_allclose(a[2:], 0, atol=1e-14)
    # A product of two cosines in space with one phase in angle: rank one and constant argument.
    singular = np.linalg.svd(a[1], compute_uv=False)
    assert singular[1] < 1e-12 * singular[0]
    ratio = a[1] / a[1].flat[np.abs(a[1]).argmax()]
    np.testing.assert_allclose(ratio.imag, 0, atol=1e-12)
    spectrum = np.abs(np.fft.fft2(a[1]))
    nx, ny = np.nonzero(spectrum > 1e-9 * spectrum.max())
    assert len(nx) == 4
    assert np.minimum(nx, 32 - nx).max() <= 8
    assert np.minimum(ny, 32 - ny).min() >= 1


def test_powers_of_the_cosine_expand_exactly():
    """cos^n(2 theta + r)/(2 pi) by quadrature against the closed-form table."""
    from jaxsci.closures._initial import _cosine_power_modes

    table = _cosine_power_modes(8, 5)
    theta = 2 * np.pi * np.arange(64) / 64
    for n in range(1, 9):
        for order in range(6):
            f = np.cos(2 * theta + 0.4) ** n * np.exp(2j * order * theta)
            want = f.mean()
            np.testing.assert_allclose(
                table[n - 1, order] * np.exp(-0.4j * order), want, atol=1e-14
            )


def test_the_density_can_be_made_uniform(key):
    a = random_moments(key, GRID, 2, uniform_density=True)
    assert np.all(a[0] == 1)


def test_keys_give_different_fields_and_can_be_mapped_over():
    a = jax.vmap(draw)(jax.random.split(jax.random.key(0), 3))
    assert np.abs(a[0] - a[1]).max() > 1e-3
    np.testing.assert_allclose(a[2], draw(jax.random.split(jax.random.key(0), 3)[2]), atol=1e-14)


def test_the_precision_can_be_chosen(key):
    assert random_moments(key, GRID, 2, dtype=jnp.float32).dtype == jnp.complex64


@pytest.mark.bad_input
def test_waves_that_the_grid_cannot_hold_are_rejected(key):
    with pytest.raises(ValueError, match="`max_mode` must be in"):
        random_moments(key, FourierGrid((16, 32), (1.0, 1.0)), 2)
