"""Trigonometric polynomials whose values and derivatives are written down mode by mode."""

import itertools

import jax.numpy as jnp
import numpy as np

from jaxsci.spectral import FourierGrid

GRIDS = [
    FourierGrid(9, 2.0),
    FourierGrid(16, 7.0),
    FourierGrid((8, 9), (2 * np.pi, 3.0)),
    FourierGrid((7, 10), (1.0, 5.0)),
    FourierGrid((6, 5, 8), (2 * np.pi, 1.0, 3.0)),
    FourierGrid(12, 3.0, real=False),
    FourierGrid((7, 8), (4.0, 1.5), real=False),
    FourierGrid((4, 6, 5), (1.0, 2.0, 3.0), real=False),
]


def grid_name(grid):
    return "x".join(map(str, grid.shape)) + ("" if grid.real else "-complex")


def points(grid):
    axes = [np.arange(n) * length / n for n, length in zip(grid.shape, grid.lengths)]
    return np.meshgrid(*axes, indexing="ij")


class Polynomial:
    """sum_n c_n exp(2 pi i n . x/L) over |n_i| <= cutoff, real part on a real grid."""

    def __init__(self, grid, cutoff=1, seed=0, mean=True):
        rng = np.random.default_rng(seed)
        modes = np.array(list(itertools.product(range(-cutoff, cutoff + 1), repeat=grid.ndim)))
        if not mean:
            modes = modes[np.any(modes != 0, axis=1)]
        self.k = 2 * np.pi * modes / np.array(grid.lengths)
        self.c = rng.normal(size=len(modes)) + 1j * rng.normal(size=len(modes))
        self.real = grid.real

    def __call__(self, grid, symbol=None):
        """The field with every mode multiplied by `symbol(k)`, k of shape `(modes, ndim)`."""
        c = self.c if symbol is None else self.c * symbol(self.k)
        x = np.stack(points(grid), -1)
        field = np.exp(1j * x @ self.k.T) @ c
        return jnp.asarray(field.real if self.real else field)


def free(grid, seed=0, lead=()):
    """Any field on the grid."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(*lead, *grid.shape))
    return jnp.asarray(u if grid.real else u + 1j * rng.normal(size=u.shape))
