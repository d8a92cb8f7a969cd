import jax
import jax.numpy as jnp
import numpy as np

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import laplacian, on_grid, right_hand_side, solve
from pde.homogeneous import check_homogeneous


def test_a_uniform_field_follows_the_reaction():
    equation = pde.BelousovZhabotinsky(FourierGrid(4, 1.0), epsilon=0.05, f=1.2, q=0.02)
    rate = lambda u, v: ((u - u**2 - 1.2 * v * (u - 0.02) / (u + 0.02)) / 0.05, u - v)
    check_homogeneous(equation, rate, [0.3, 0.1], 0.5, 800, 1e-8)


def test_the_right_hand_side_is_that_of_calculus():
    grid = FourierGrid((48, 49), (1.3, 2.0))
    theta = lambda x: 2 * np.pi * x / jnp.asarray(grid.lengths)
    u = lambda x: 0.8 + 0.1 * jnp.sin(theta(x)[0] + theta(x)[1])
    v = lambda x: 0.5 + 0.1 * jnp.cos(theta(x)[1])

    def rate(x):
        production = u(x) - u(x) ** 2 - 1.3 * v(x) * (u(x) - 0.1) / (u(x) + 0.1)
        return jnp.stack(
            [0.3 * laplacian(u)(x) + production / 0.4, 0.2 * laplacian(v)(x) + u(x) - v(x)]
        )

    fields = jnp.stack([on_grid(u, grid), on_grid(v, grid)])
    equation = pde.BelousovZhabotinsky(grid, 0.3, 0.2, 0.4, 1.3, 0.1)
    np.testing.assert_allclose(right_hand_side(equation, fields), on_grid(rate, grid), atol=1e-8)


def test_a_wave_from_random_regions_stays_bounded():
    grid = FourierGrid(128, 20.0)
    equation = pde.BelousovZhabotinsky(grid)
    u0 = equation.initial(jax.random.key(0))
    assert float(jnp.min(u0)) >= 0
    u = solve(equation, u0, 0.1, 1000)
    assert float(jnp.min(u)) > -0.1
    assert float(jnp.max(u)) < 1.2
    assert float(jnp.max(u[0])) - float(jnp.min(u[0])) > 0.3
