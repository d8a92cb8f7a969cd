"""Problems of the integrator tests: KS (real L) and KdV (imaginary L), solved as one pytree."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxsci.integrate import ETDRK4, rollout, SemilinearTerm
from jaxsci.pde import korteweg_de_vries, kuramoto_sivashinsky
from jaxsci.spectral import FourierGrid

KS_GRID = FourierGrid((128,), (8 * np.pi,))
KDV_GRID = FourierGrid((128,), (2 * np.pi,))
KS = kuramoto_sivashinsky(KS_GRID)
KDV = korteweg_de_vries(KDV_GRID, convection=1.0, dispersion=0.05)
T = 2.0  # of KS; KdV runs to T/4 in the same number of steps
STEPS = (25, 50, 100, 200)


def ks_initial(grid=KS_GRID, dtype=float):
    x = grid.x[0] * (2 * np.pi / grid.lengths[0])
    return grid.fft((jnp.cos(x) + 0.3 * jnp.sin(2 * x)).astype(dtype))


def kdv_initial(grid=KDV_GRID):
    (x,) = grid.x
    return grid.fft(jnp.cos(x) + 0.3 * jnp.sin(2 * x))


def both():
    """KS and KdV side by side, time of KdV divided by four; real and complex symbols."""
    linear = {"ks": KS.linear.diagonal, "kdv": KDV.linear.diagonal / 4}

    def nonlinear(t, u, args):
        return {
            "ks": KS.nonlinear(t, u["ks"]),
            "kdv": KDV.nonlinear(t, u["kdv"]) / 4,
        }

    return SemilinearTerm(linear, nonlinear), {"ks": ks_initial(), "kdv": kdv_initial()}


def fields(u):
    return {"ks": KS_GRID.ifft(u["ks"]), "kdv": KDV_GRID.ifft(u["kdv"])}


@cache
def reference():
    """Krogstad's method with 3200 steps."""
    term, u0 = both()
    solve = jax.jit(
        lambda u: rollout(ETDRK4(), term, u, dt=T / 3200, num_steps=3200, save_every=3200)
    )
    return fields(jax.tree.map(lambda x: x[0], solve(u0)))


def max_errors(u):
    return {k: float(jnp.max(jnp.abs(v - reference()[k]))) for k, v in fields(u).items()}


@cache
def convergence(solver):
    """Largest errors at T of a solver with 25, 50, 100 and 200 steps, for either problem."""
    term, u0 = both()

    @jax.jit
    def solve(dt, num_steps):
        coefficients = solver.coefficients(term, 0.0, dt)

        def step(i, carry):
            u, history = carry
            u, _, _, history = solver.advance(term, coefficients, i * dt, dt, u, None, history)
            return u, history

        start = u0, solver.start(term, 0.0, u0, None)
        return jax.lax.fori_loop(0, num_steps, step, start)[0]

    errors = [max_errors(solve(jnp.asarray(T / n), n)) for n in STEPS]
    return {k: np.array([e[k] for e in errors]) for k in ("ks", "kdv")}


def orders(errors):
    return np.log2(errors[:-1] / errors[1:])
