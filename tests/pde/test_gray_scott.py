import jax
import jax.numpy as jnp
import numpy as np

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import laplacian, on_grid, right_hand_side, solve, wave
from pde.homogeneous import check_homogeneous


def test_a_uniform_field_follows_the_reaction():
    equation = pde.GrayScott(FourierGrid(4, 1.0), feed=0.04, kill=0.05)
    rate = lambda u, v: (-u * v**2 + 0.04 * (1 - u), u * v**2 - 0.09 * v)
    check_homogeneous(equation, rate, [0.7, 0.5], 5.0, 200, 1e-9)


def test_the_right_hand_side_is_that_of_calculus():
    grid = FourierGrid((16, 17), (1.3, 2.0))
    u, v = wave(grid), wave(grid, 0.9)

    def rate(x):
        reaction = u(x) * v(x) ** 2
        return jnp.stack(
            [
                0.3 * laplacian(u)(x) - reaction + 0.4 * (1 - u(x)),
                0.2 * laplacian(v)(x) + reaction - (0.4 + 0.6) * v(x),
            ]
        )

    fields = jnp.stack([on_grid(u, grid), on_grid(v, grid)])
    found = right_hand_side(pde.GrayScott(grid, 0.3, 0.2, 0.4, 0.6), fields)
    np.testing.assert_allclose(found, on_grid(rate, grid), atol=1e-11)


def test_the_reactor_without_catalyst_is_a_fixed_point_and_the_initial_bumps_are_smooth():
    grid = FourierGrid((32, 32), (2.5, 2.5))
    equation = pde.GrayScott(grid)
    empty = jnp.stack([jnp.ones(grid.shape), jnp.zeros(grid.shape)])
    np.testing.assert_allclose(solve(equation, empty, 10.0, 10), empty, atol=1e-14)
    u0 = equation.initial(jax.random.key(1))
    assert float(jnp.min(u0)) >= 0
    assert float(jnp.max(u0[0])) <= 1
    assert float(jnp.max(u0[1])) > 0.05
