import jax.numpy as jnp
import numpy as np

from jaxsci import pde
from jaxsci.spectral import FourierGrid
from pde.calculus import laplacian, on_grid, right_hand_side, wave
from pde.homogeneous import check_homogeneous


def test_a_uniform_field_follows_the_reaction():
    equation = pde.FitzHughNagumo(FourierGrid(4, 1.0), current=0.5)
    rate = lambda u, v: (u - u**3 / 3 - v + 0.5, 0.08 * (u + 0.7 - 0.8 * v))
    check_homogeneous(equation, rate, [-1.0, 0.3], 5.0, 400, 1e-9)


def test_the_right_hand_side_is_that_of_calculus():
    grid = FourierGrid((16, 17), (1.3, 2.0))
    u, v = wave(grid), wave(grid, 0.9)

    def rate(x):
        return jnp.stack(
            [
                0.3 * laplacian(u)(x) + u(x) - u(x) ** 3 / 3 - v(x) + 0.2,
                0.2 * laplacian(v)(x) + 0.4 * (u(x) + 0.6 - 0.9 * v(x)),
            ]
        )

    fields = jnp.stack([on_grid(u, grid), on_grid(v, grid)])
    equation = pde.FitzHughNagumo(grid, 0.3, 0.2, 0.4, 0.6, 0.9, 0.2)
    np.testing.assert_allclose(right_hand_side(equation, fields), on_grid(rate, grid), atol=1e-11)
