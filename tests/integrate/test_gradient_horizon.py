"""Growth rates of perturbations, and how far gradients reach."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.integrate import ETDRK1, ETDRK4, gradient_horizon, SBDF2, SemilinearTerm
from jaxsci.pde import kuramoto_sivashinsky
from jaxsci.spectral import FourierGrid


def lorenz(t, y, args):
    x, y, z = y
    return jnp.stack([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z])


def test_the_rate_of_a_linear_flow_is_its_largest_eigenvalue(key):
    term = SemilinearTerm(jnp.array([0.7, -0.2, 0.3]))
    options = {"dt": 0.1, "num_steps": 100, "spin_up": 600, "key": key}
    found = gradient_horizon(ETDRK1(), term, jnp.ones(3) * 1e-30, perturbation=0.01, **options)
    assert float(found.growth_rate) == pytest.approx(0.7, rel=1e-12)
    assert float(found.standard_error) < 1e-12
    assert float(found.length) == pytest.approx(np.log(100) / 0.7, rel=1e-12)
    assert float(found.num_steps) == 65


def test_a_flow_that_forgets_has_no_horizon(key):
    term = SemilinearTerm(jnp.array([-0.7, -0.2]))
    found = gradient_horizon(SBDF2(), term, jnp.ones(2), dt=0.1, num_steps=50, key=key)
    assert float(found.growth_rate) < 0
    assert np.isinf(found.length)
    assert np.isinf(found.num_steps)


def test_the_exponent_of_the_lorenz_system(key):
    term, y0 = diffrax.ODETerm(lorenz), jnp.array([1.0, 1.0, 20.0])
    found = jax.jit(
        lambda y0: gradient_horizon(
            diffrax.Bosh3(scan_kind="lax"),
            term,
            y0,
            dt=0.005,
            num_steps=100_000,
            spin_up=2000,
            key=key,
        )
    )(y0)
    # Sprott 2003: 0.9056.
    assert abs(float(found.growth_rate) - 0.9056) < 4 * float(found.standard_error)
    assert float(found.standard_error) < 0.03


@pytest.mark.slow
def test_the_exponent_of_kuramoto_sivashinsky_on_a_box_of_22(key):
    grid = FourierGrid(32, 22.0)
    u0 = grid.fft(
        0.1 * jnp.cos(2 * np.pi * grid.x[0] / 22) + 0.1 * jnp.sin(4 * np.pi * grid.x[0] / 22)
    )
    term = kuramoto_sivashinsky(grid)
    found = jax.jit(
        lambda u0: gradient_horizon(
            ETDRK4(), term, u0, dt=0.1, num_steps=100_000, spin_up=5000, key=key
        )
    )(u0)
    # Cvitanovic, Davidchack and Siminos 2010: 0.048; Edson et al. 2019: 0.043.
    assert 0.038 < float(found.growth_rate) < 0.052


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 5}, "`num_steps` must be at least 20, got 5"),
        ({"batches": 1}, "`batches` must be at least 2, got 1"),
        ({"spin_up": -1}, "`spin_up` must be at least 0, got -1"),
        ({"perturbation": 1.0}, "`perturbation` must be in"),
    ],
)
def test_bad_options_are_refused_by_name(key, options, message):
    options = {"num_steps": 40, "dt": 0.1, "key": key, **options}
    with pytest.raises(ValueError, match=message):
        gradient_horizon(ETDRK1(), SemilinearTerm(-1.0), jnp.ones(2), **options)
