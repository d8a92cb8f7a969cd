import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from integrate.semilinear_problems import ks_initial
from jaxsci.integrate import DiagonalPropagator, ETDRK4, rollout, SemilinearTerm
from jaxsci.pde import KuramotoSivashinsky
from jaxsci.spectral import FourierGrid

GRID = FourierGrid((32,), (8 * np.pi,))
EQUATION = KuramotoSivashinsky(GRID)
END = diffrax.SaveAt(t1=True)


@pytest.fixture(scope="module")
def u0():
    return ks_initial(GRID)


@pytest.fixture(scope="module")
def exponential(u0):
    return rollout(ETDRK4(), EQUATION.term(), u0, dt=0.5 / 400, num_steps=400, save_every=400)[0]


def test_the_vector_field_is_the_sum_of_both_parts(u0):
    term = SemilinearTerm(jnp.asarray([-1.0, 2j]), lambda t, u, args: t * args * u**2)
    u = jnp.asarray([1 + 1j, 2.0])
    expected = np.array([-1 - 1j, 4j]) + 3 * 0.5 * np.asarray(u) ** 2
    np.testing.assert_allclose(term.vf(3.0, u, 0.5), expected, rtol=1e-15)
    assert term.contr(0.25, 1.0) == 0.75
    np.testing.assert_allclose(term.prod(u, 0.5), u / 2)


def test_a_missing_nonlinear_part_is_zero():
    term = SemilinearTerm(-2.0)
    np.testing.assert_array_equal(term.vf(0.0, jnp.ones(3), None), -2 * np.ones(3))
    assert isinstance(term.linear, DiagonalPropagator)


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Dopri8()])
def test_explicit_solvers_of_diffrax_agree_on_the_same_term(solver, u0, exponential):
    controller = diffrax.PIDController(rtol=0, atol=1e-11, norm=GRID.norm)
    sol = diffrax.diffeqsolve(
        EQUATION.term(), solver, 0.0, 0.5, 1e-3, u0, saveat=END, stepsize_controller=controller
    )
    assert GRID.norm(sol.ys[0] - exponential) < 1e-9


def test_a_real_state_gives_the_same_numbers_without_a_warning(u0, exponential):
    term = EQUATION.term(real_state=True)
    y0 = term.encode(u0)
    assert y0.shape == (2, *u0.shape)
    assert y0.dtype == jnp.float64
    np.testing.assert_array_equal(term.decode(y0), u0)
    np.testing.assert_allclose(
        term.decode(term.vf(0.0, y0, None)), EQUATION.term().vf(0.0, u0, None), rtol=1e-14
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sol = diffrax.diffeqsolve(term, ETDRK4(), 0.0, 0.5, 0.5 / 400, y0, saveat=END)
        scan = rollout(ETDRK4(), term, y0, dt=0.5 / 400, num_steps=400, save_every=400)[0]
    np.testing.assert_allclose(term.decode(sol.ys[0]), exponential, atol=1e-11)
    np.testing.assert_allclose(term.decode(scan), exponential, atol=1e-11)


def test_a_real_state_error_estimate_controls_steps_alike(u0):
    # The norm of the pair of real arrays is that of the complex one.
    counts = []
    for term, y0, norm in (
        (EQUATION.term(), u0, GRID.norm),
        (
            EQUATION.term(real_state=True),
            jnp.stack([u0.real, u0.imag]),
            lambda y: GRID.norm(jax.lax.complex(y[0], y[1])),
        ),
    ):
        controller = diffrax.PIDController(rtol=0, atol=1e-7, norm=norm)
        sol = diffrax.diffeqsolve(
            term, ETDRK4(), 0.0, 2.0, 0.02, y0, saveat=END, stepsize_controller=controller
        )
        counts.append(int(sol.stats["num_steps"]))
    assert counts[0] == counts[1] > 3


def test_the_two_parts_of_the_multiterm_are_nonlinear_and_linear(u0):
    term = EQUATION.term(real_state=True)
    explicit, implicit = term.to_multiterm().terms
    y0 = term.encode(u0)
    np.testing.assert_allclose(
        term.decode(implicit.vf(0.0, y0, None)), EQUATION.symbol() * u0, rtol=1e-15
    )
    total = explicit.vf(0.0, y0, None) + implicit.vf(0.0, y0, None)
    np.testing.assert_allclose(total, term.vf(0.0, y0, None), rtol=1e-14)


def test_imex_solvers_of_diffrax_take_the_multiterm():
    grid = FourierGrid((16,), (2 * np.pi,))
    equation = KuramotoSivashinsky(grid)
    term = equation.term(real_state=True)
    y0 = term.encode(grid.fft(jnp.cos(grid.x[0]) + 0.3 * jnp.sin(2 * grid.x[0])))
    sol = diffrax.diffeqsolve(
        term.to_multiterm(),
        diffrax.KenCarp4(root_finder=diffrax.VeryChord(rtol=1e-3, atol=1e-3)),
        0.0,
        0.4,
        0.01,
        y0,
        saveat=END,
    )
    expected = rollout(ETDRK4(), term, y0, dt=0.001, num_steps=400, save_every=400)[0]
    np.testing.assert_allclose(sol.ys[0], expected, atol=1e-7)


def test_the_nonlinear_part_is_cast_to_the_precision_of_the_state():
    term = SemilinearTerm(-1.0, lambda t, u, args: np.ones(3))
    assert term.nonlinear(0.0, jnp.ones(3, jnp.float32)).dtype == jnp.float32
    assert term.vf(0.0, jnp.ones(3, jnp.float32), None).dtype == jnp.float32


@pytest.mark.bad_input
def test_a_nonlinear_part_that_is_not_a_function_is_refused():
    with pytest.raises(TypeError, match=r"`nonlinear` must be a function .*got 3"):
        SemilinearTerm(-1.0, 3)  # pyright: ignore[reportArgumentType]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("nonlinear", "error", "message"),
    [
        (lambda t, u, args: jnp.ones(4), ValueError, r"shape of the state, \(3,\), got \(4,\)"),
        (lambda t, u, args: (u,), ValueError, "structure of the state"),
        (lambda t, u, args: 1j * u, TypeError, r"complex \(complex128\) but the state is float64"),
    ],
)
def test_a_nonlinear_part_unlike_the_state_is_refused(nonlinear, error, message):
    term = SemilinearTerm(-1.0, nonlinear)
    with pytest.raises(error, match=message):
        rollout(ETDRK4(), term, jnp.ones(3), dt=0.1, num_steps=2)
    with pytest.raises(error, match=message):
        diffrax.diffeqsolve(term, ETDRK4(), 0.0, 1.0, 0.1, jnp.ones(3))


@pytest.mark.bad_input
def test_a_symbol_that_does_not_broadcast_to_the_state_is_refused():
    with pytest.raises((ValueError, TypeError), match=r"shape"):
        rollout(ETDRK4(), SemilinearTerm(jnp.ones(5)), jnp.ones(3), dt=0.1, num_steps=2)
