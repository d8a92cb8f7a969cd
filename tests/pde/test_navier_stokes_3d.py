import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import integrate, pde
from jaxsci.spectral import decaying_turbulence, FourierGrid
from pde.calculus import errors, orders, right_hand_side, solve

BOX = FourierGrid((8, 9, 10), (2 * np.pi,) * 3)


def beltrami(grid, k=1):
    """The Arnold-Beltrami-Childress flow, curl u = k u."""
    x, y, z = (k * c for c in grid.x)
    a, b, c = 1.0, 0.7, 0.4
    return jnp.stack(
        [
            a * jnp.sin(z) + c * jnp.cos(y),
            b * jnp.sin(x) + a * jnp.cos(z),
            c * jnp.sin(y) + b * jnp.cos(x),
        ]
    )


@pytest.fixture(scope="module")
def turbulent():
    return BOX.fft(decaying_turbulence(jax.random.key(3), BOX, 2.0))


@pytest.fixture(scope="module")
def advections(turbulent):
    rates = lambda uh: [
        pde.NavierStokes3D(BOX, form=form).nonlinear(0.0, uh)
        for form in ("rotational", "divergence", "convective")
    ]
    return jax.jit(rates)(turbulent)


def test_a_beltrami_flow_decays_exactly():
    u0 = beltrami(BOX)
    equation = pde.NavierStokes3D(BOX, 0.3, 0.1)
    found = solve(equation, u0, 1.0, 10)
    np.testing.assert_allclose(found, np.exp(-0.4) * u0, atol=1e-12)


def test_all_forms_of_the_advection_agree(advections):
    for other in advections[1:]:
        np.testing.assert_allclose(other, advections[0], atol=1e-10)
    assert float(jnp.max(jnp.abs(advections[0]))) > 1.0


def test_advection_conserves_energy_helicity_momentum_and_divergence(turbulent, advections):
    scale = BOX.norm(turbulent) * BOX.norm(advections[0])
    assert float(scale) > 0.1
    uh = BOX.dealias(turbulent)
    for rate in advections:
        assert abs(BOX.inner(uh, rate)) < 1e-14 * scale
        assert abs(BOX.inner(BOX.curl(uh), rate)) < 1e-13 * scale
        np.testing.assert_allclose(BOX.mean(rate), 0, atol=1e-14)
        assert BOX.norm(BOX.div(rate)) < 1e-13 * scale


def test_the_taylor_green_vortex_starts_as_by_hand():
    grid = FourierGrid((8, 8, 8), (2 * np.pi,) * 3)
    x, y, z = grid.x
    u = jnp.stack(
        [
            jnp.sin(x) * jnp.cos(y) * jnp.cos(z),
            -jnp.cos(x) * jnp.sin(y) * jnp.cos(z),
            jnp.zeros_like(x),
        ]
    )
    # p = (cos 2x + cos 2y)(cos 2z + 2)/16 and u . grad u in closed form.
    advection = jnp.stack(
        [jnp.sin(2 * x) * jnp.cos(z) ** 2 / 2, jnp.sin(2 * y) * jnp.cos(z) ** 2 / 2, 0 * x]
    )
    pressure = jnp.stack(
        [
            -jnp.sin(2 * x) * (jnp.cos(2 * z) + 2) / 8,
            -jnp.sin(2 * y) * (jnp.cos(2 * z) + 2) / 8,
            -(jnp.cos(2 * x) + jnp.cos(2 * y)) * jnp.sin(2 * z) / 8,
        ]
    )
    found = right_hand_side(pde.NavierStokes3D(grid, 0.2), u)
    np.testing.assert_allclose(found, -advection - pressure - 0.6 * u, atol=1e-13)


@pytest.mark.slow
def test_a_flow_in_two_dimensions_is_that_of_the_vorticity_equation():
    plane = FourierGrid((12, 12), (2 * np.pi,) * 2)
    grid = FourierGrid((12, 12, 4), (2 * np.pi,) * 3)
    x, y = plane.x
    w0 = jnp.cos(x) * jnp.sin(2 * y) + 0.5 * jnp.sin(x + y)
    flat = pde.NavierStokes2D(plane, 0.05, 0.1, pde.kolmogorov(2))
    w1 = solve(flat, w0, 0.5, 20)

    def embed(w):
        u = plane.ifft(plane.velocity_from_vorticity(plane.fft(w)))
        u = jnp.concatenate([u, jnp.zeros((1, *plane.shape))])
        return jnp.broadcast_to(u[..., None], (3, *grid.shape))

    deep = pde.NavierStokes3D(grid, 0.05, 0.1, pde.kolmogorov_3d(2))
    np.testing.assert_allclose(solve(deep, embed(w0), 0.5, 20), embed(w1), atol=1e-12)


def test_etdrk4_converges_at_order_four_and_stays_divergence_free():
    equation = pde.NavierStokes3D(BOX, 0.1)
    u0 = beltrami(BOX) + decaying_turbulence(jax.random.key(1), BOX, 1.5)
    exact = solve(equation, u0, 0.5, 160)
    found = errors(equation, u0, 0.5, (5, 10, 20), exact)
    np.testing.assert_allclose(orders(found), 4, atol=0.4)
    values = equation.invariants(BOX.fft(exact))
    assert values["divergence"] < 1e-13
    assert values["energy"] < equation.invariants(BOX.fft(u0))["energy"]


def test_the_gradient_by_viscosity_matches_central_differences(turbulent):
    equation = pde.NavierStokes3D(BOX, 0.1)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(nu):
        term = eqx.tree_at(lambda e: e.viscosity, equation, nu).term()
        step = {"dt": 0.05, "num_steps": 3, "save_every": 3}
        (uh,) = integrate.rollout(integrate.ETDRK4(), term, turbulent, **step)
        return jnp.mean(jnp.sin(BOX.ifft(uh) + 0.3))

    nu, h = jnp.asarray(0.1), 1e-5
    difference = float(loss(nu + h)[0] - loss(nu - h)[0]) / (2 * h)
    assert loss(nu)[1] == pytest.approx(difference, rel=1e-6)


def test_single_precision_stays_single_and_the_factory_gives_the_term(turbulent):
    equation = pde.NavierStokes3D(BOX, forcing=pde.kolmogorov_3d(1))
    small = turbulent.astype(jnp.complex64)
    out = jax.eval_shape(lambda u: (equation.nonlinear(0.0, u), equation.invariants(u)), small)
    assert all(x.dtype in (jnp.float32, jnp.complex64) for x in jax.tree.leaves(out))
    assert isinstance(pde.navier_stokes_3d(BOX, viscosity=0.1), integrate.SemilinearTerm)
    assert equation.initial(jax.random.key(0)).shape == (3, *BOX.shape)


@pytest.mark.parametrize("ndim", [2, 3])
def test_kolmogorov_flow_rests_in_its_laminar_state(ndim):
    grid = FourierGrid((8, 12, 8)[:ndim], (2 * np.pi,) * ndim)
    equation = pde.kolmogorov_flow(grid, 0.2, 0.3, k=2, amplitude=1.5)
    speed = 1.5 / (0.2 * 4 + 0.3)
    y = grid.x[1]
    if ndim == 2:
        rest = -2 * speed * jnp.cos(2 * y)[None]
    else:
        rest = jnp.stack([speed * jnp.sin(2 * y), 0 * y, 0 * y])
    np.testing.assert_allclose(right_hand_side(equation, rest), 0, atol=1e-13)


@pytest.mark.bad_input
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`grid` must have three dimensions"):
        pde.NavierStokes3D(FourierGrid(8, 1.0))
    with pytest.raises(ValueError, match="`form` must be one of"):
        pde.NavierStokes3D(BOX, form="skew")
    with pytest.raises(ValueError, match="`forcing` must have the shape"):
        pde.NavierStokes3D(BOX, forcing=jnp.ones(BOX.shape))
    with pytest.raises(ValueError, match="`k` must fit the second length"):
        pde.kolmogorov_flow(FourierGrid((8, 8), (1.0, 1.0)), k=2)
