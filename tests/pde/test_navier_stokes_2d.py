import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import pde, spectral, train
from jaxsci.spectral import FourierGrid
from pde.calculus import errors, laplacian, on_grid, orders, right_hand_side, solve, wave


def box(*shape):
    return FourierGrid(shape, (2 * np.pi, 2 * np.pi))


@pytest.fixture(scope="module")
def square():
    return box(32, 36)


def taylor_green(grid, k):
    x, y = grid.x
    return 2 * k * jnp.cos(k * x) * jnp.cos(k * y)


def modes(grid):
    """Two Taylor-Green vortices of different size: not stationary together."""
    x, y = grid.x
    return taylor_green(grid, 1) + jnp.sin(x + 0.3) * jnp.sin(2 * y)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("form", ["basdevant", "advective"])
def test_a_taylor_green_vortex_decays_in_place(square, form, k):
    nu, drag = 0.05, 0.1
    equation = pde.NavierStokes2D(square, nu, drag, form=form)
    w0 = taylor_green(square, k)
    exact = jnp.exp(-(2 * nu * k**2 + drag) * 0.8) * w0
    np.testing.assert_allclose(solve(equation, w0, 0.8, 8), exact, atol=1e-10)
    assert float(jnp.max(jnp.abs(right_hand_side(equation, w0) + (0.1 * k**2 + 0.1) * w0))) < 1e-13


def test_two_vortices_of_different_size_are_not_stationary(square):
    rate = right_hand_side(pde.NavierStokes2D(square, 0.0), modes(square))
    x, y = square.x
    # psi = cos x cos y + sin(x + .3) sin(2 y)/5, w = -lap psi: w_t = psi_x w_y - psi_y w_x.
    sx, cx = jnp.sin(x + 0.3), jnp.cos(x + 0.3)
    s2, c2 = jnp.sin(2 * y), jnp.cos(2 * y)
    psi_x = -jnp.sin(x) * jnp.cos(y) + cx * s2 / 5
    psi_y = -jnp.cos(x) * jnp.sin(y) + 2 * sx * c2 / 5
    w_x = -2 * jnp.sin(x) * jnp.cos(y) + cx * s2
    w_y = -2 * jnp.cos(x) * jnp.sin(y) + 2 * sx * c2
    exact = psi_x * w_y - psi_y * w_x
    assert float(jnp.max(jnp.abs(exact))) > 0.5
    np.testing.assert_allclose(rate, exact, atol=1e-12)


@pytest.mark.parametrize("form", ["basdevant", "advective"])
def test_the_right_hand_side_is_that_of_calculus(form):
    grid = FourierGrid((16, 15), (2.0, 3.0))
    psi = lambda x: wave(grid)(x) - 0.4
    w = lambda x: -laplacian(psi)(x)
    force = lambda x: jnp.cos(2 * np.pi * x[1] / 3.0)

    def rate(x):
        slope, dw = jax.grad(psi)(x), jax.grad(w)(x)
        advection = slope[1] * dw[0] - slope[0] * dw[1]
        return -advection + 0.3 * laplacian(w)(x) - 0.2 * w(x) + force(x)

    equation = pde.NavierStokes2D(grid, 0.3, 0.2, on_grid(force, grid), form)
    found = right_hand_side(equation, on_grid(w, grid))
    np.testing.assert_allclose(found, on_grid(rate, grid), atol=1e-10)


@pytest.mark.parametrize(
    "grid",
    [box(32, 32), box(33, 24), FourierGrid((27, 32), (2.0, 5.0))],
    ids=["square", "odd", "oblong"],
)
def test_the_two_forms_agree_and_conserve_energy_and_enstrophy(grid, key):
    # A rough field, with every mode excited.
    wh = grid.fft(jax.random.normal(key, (1, *grid.shape)))
    one = pde.NavierStokes2D(grid).nonlinear(0.0, wh)
    two = pde.NavierStokes2D(grid, form="advective").nonlinear(0.0, wh)
    assert float(grid.norm(one - two)) < 1e-12 * float(grid.norm(two))

    kept = grid.dealias(wh)
    stream = -grid.lap_inv(kept)
    for conjugate in (stream, kept):  # d energy/dt = <psi w_t>, d enstrophy/dt = <w w_t>
        rate = grid.inner(conjugate, one)
        assert abs(float(rate)) < 1e-14 * float(grid.norm(conjugate) * grid.norm(one))
    assert float(jnp.abs(grid.mean(one))[0]) < 1e-14 * float(grid.norm(one))


def test_without_viscosity_a_solve_keeps_energy_enstrophy_and_mean_vorticity(square):
    equation = pde.NavierStokes2D(square, 0.0)
    w0 = modes(square)
    before = equation.invariants(square.fft(w0[None]))
    after = equation.invariants(square.fft(solve(equation, w0, 0.5, 50)[None]))
    # <|u|^2>/2 of the streamfunctions, mode by mode: (2/4 + (1/25) 5/4)/2.
    assert before["energy"] == pytest.approx((0.5 + 0.05) / 2, abs=1e-14)
    assert before["enstrophy"] == pytest.approx((4 + 1) / 8, abs=1e-14)
    for name in ("energy", "enstrophy"):
        assert after[name] == pytest.approx(float(before[name]), rel=1e-9)
    assert abs(after["mean_vorticity"]) < 1e-14


def test_energy_falls_at_twice_viscosity_times_enstrophy(square):
    equation = pde.NavierStokes2D(square, 0.02)
    wh = square.fft(modes(square)[None])
    rate = equation.term().vf(jnp.asarray(0.0), wh, None)
    found = square.inner(-square.lap_inv(wh), rate)
    enstrophy = float(equation.invariants(wh)["enstrophy"])
    assert found == pytest.approx(-2 * 0.02 * enstrophy, rel=1e-12)


def test_etdrk4_converges_at_order_four(square):
    equation = pde.NavierStokes2D(square, 0.02, 0.1, pde.kolmogorov(2))
    w0 = 3 * modes(square)
    exact = solve(equation, w0, 1.0, 320)
    found = orders(errors(equation, w0, 1.0, (10, 20, 40), exact))
    np.testing.assert_allclose(found, 4, atol=0.4)


def test_the_spectrum_sums_to_the_energy_and_transfer_to_zero(square, key):
    equation = pde.NavierStokes2D(square, 0.0)
    wh = square.dealias(square.fft(jax.random.normal(key, square.shape)))
    uh = square.velocity_from_vorticity(wh)
    _, spectrum = spectral.energy_spectrum(square, uh)
    total = equation.invariants(wh[None])["energy"]
    assert jnp.sum(spectrum) == pytest.approx(float(total), rel=1e-14)
    nh = square.velocity_from_vorticity(equation.nonlinear(0.0, wh))
    _, transfer, _ = spectral.energy_transfer(square, uh, nh)
    scale = float(jnp.max(jnp.abs(transfer)))
    assert scale > 1e-4 * float(total)
    assert abs(float(jnp.sum(transfer))) < 1e-12 * scale


def test_kolmogorov_flow_relaxes_to_its_laminar_state(square):
    nu, drag, k = 0.1, 0.05, 2
    equation = pde.NavierStokes2D(square, nu, drag, pde.kolmogorov(k, 0.7))
    rate = nu * k**2 + drag
    _, y = square.x
    # The body force .7 sin(2 y) e_x has the curl -d_y of its first component.
    laminar = -0.7 * k * jnp.cos(k * y) / rate
    w = solve(equation, 0 * y, 1.3, 4)
    np.testing.assert_allclose(w, (1 - np.exp(-rate * 1.3)) * laminar, atol=1e-12)


def test_the_laminar_velocity_of_a_kolmogorov_force_points_along_it(square):
    force = pde.kolmogorov(3, 0.5)(*square.x)
    u, v = pde.NavierStokes2D(square).velocity(square.fft(force))
    np.testing.assert_allclose(u, 0.5 * jnp.sin(3 * square.x[1]), atol=1e-13)
    np.testing.assert_allclose(v, 0, atol=1e-13)


def test_the_operator_learning_forcing_has_its_laminar_state_on_the_unit_square():
    grid = FourierGrid((16, 18), (1.0, 1.0))
    x, y = grid.x
    nu = 0.01
    equation = pde.NavierStokes2D(grid, nu, forcing=pde.operator_learning_forcing())
    rate = nu * 8 * np.pi**2
    theta = 2 * np.pi * (x + y)
    exact = 0.1 * (jnp.sin(theta) + jnp.cos(theta)) * (1 - np.exp(-rate * 0.5)) / rate
    np.testing.assert_allclose(solve(equation, 0 * x, 0.5, 5), exact, atol=1e-12)


def test_a_forcing_may_be_a_field_a_function_or_nothing(square):
    x, y = square.x
    f = lambda x, y: jnp.sin(x) * jnp.cos(2 * y)
    w0 = modes(square)
    by_field = right_hand_side(pde.NavierStokes2D(square, forcing=f(x, y)), w0)
    by_function = right_hand_side(pde.NavierStokes2D(square, forcing=f), w0)
    none = right_hand_side(pde.NavierStokes2D(square), w0)
    np.testing.assert_array_equal(by_field, by_function)
    np.testing.assert_allclose(by_field - none, f(x, y), atol=1e-13)


def test_a_forcing_is_data_and_no_parameter(square):
    equation = pde.NavierStokes2D(square, forcing=pde.kolmogorov(2))
    wanted = jax.tree.leaves(train.trainable(equation))
    assert sum(bool(w) for w in wanted) == 2  # viscosity and drag


def test_the_velocity_has_the_given_curl_no_divergence_and_no_mean(key):
    grid = FourierGrid((15, 21), (2.0, 3.0))
    equation = pde.NavierStokes2D(grid)
    w = spectral.truncated_fourier_series(key, grid, 4)
    u = equation.velocity(grid.fft(w[None]))
    assert u.shape == (1, 2, 15, 21)
    uh = grid.fft(u)
    np.testing.assert_allclose(grid.ifft(grid.curl(uh)), w[None], atol=1e-12)
    np.testing.assert_allclose(grid.ifft(grid.div(uh)), 0, atol=1e-12)
    np.testing.assert_allclose(jnp.mean(u, axis=(-2, -1)), 0, atol=1e-14)


def test_the_initial_vorticity_does_not_depend_on_the_size_of_the_box(key):
    small = pde.NavierStokes2D(FourierGrid((16, 16), (1.0, 1.0))).initial(key)
    large = pde.NavierStokes2D(box(16, 16)).initial(key)
    assert large.shape == (1, 16, 16)
    np.testing.assert_array_equal(small, large)
    np.testing.assert_allclose(jnp.mean(large), 0, atol=1e-14)


@pytest.mark.bad_input
def test_bad_parameters_are_named(square):
    with pytest.raises(ValueError, match=r"`grid` must have two dimensions"):
        pde.NavierStokes2D(FourierGrid(8, 1.0))
    with pytest.raises(ValueError, match=r"`viscosity` must be at least zero, got -1.0"):
        pde.NavierStokes2D(square, -1.0)
    with pytest.raises(ValueError, match=r"`drag` must be finite, got nan"):
        pde.NavierStokes2D(square, drag=float("nan"))
    with pytest.raises(ValueError, match=r"`form` must be one of .*got 'skew'"):
        pde.NavierStokes2D(square, form="skew")
    with pytest.raises(ValueError, match=r"`forcing` must have the shape \(32, 36\).*\(36, 32\)"):
        pde.NavierStokes2D(square, forcing=jnp.zeros((36, 32)))
    with pytest.raises(ValueError, match=r"`forcing` must be finite"):
        pde.NavierStokes2D(square, forcing=jnp.full((32, 36), jnp.nan))
    with pytest.raises(ValueError, match=r"`k` must be at least 1, got 0"):
        pde.kolmogorov(0)
    with pytest.raises(ValueError, match=r"`amplitude` must be finite"):
        pde.kolmogorov(1, float("inf"))
    with pytest.raises(ValueError, match=r"`amplitude` must be finite"):
        pde.operator_learning_forcing(float("nan"))
