"""What every grid shares, periodic or with walls: sizes, and operators that act mode by mode."""

import abc
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, PyTree


class AbstractGrid(eqx.Module):
    """A uniform grid of a box in one, two or three dimensions, and a series for its fields.

    Everything is static. Operators act on the coefficients on the last `ndim` axes; vector fields
    have their components on the axis before those; axes in front are batch axes.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]
    lengths: eqx.AbstractVar[tuple[float, ...]]

    @property
    def ndim(self) -> int:
        """Number of space dimensions."""
        return len(self.shape)

    @property
    def num_points(self) -> int:
        """Number of grid points."""
        return math.prod(self.shape)

    @property
    def volume(self) -> float:
        """Volume of the box."""
        return math.prod(self.lengths)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring points along each axis."""
        return tuple(length / n for n, length in zip(self.shape, self.lengths))

    @abc.abstractmethod
    def coordinates(self, dtype: Any = None) -> tuple[Float[Array, "..."], ...]:
        """Coordinates of the points, one array of shape `shape` an axis."""

    @abc.abstractmethod
    def wavenumbers(self, dtype: Any = None) -> tuple[Float[Array, "..."], ...]:
        """Angular wave numbers of each axis, broadcastable to the coefficients."""

    @abc.abstractmethod
    def inner(self, uh: PyTree[Inexact[Array, "..."]], vh: PyTree) -> Float[Array, ""]:
        """Average of u . v over the box, summed over components, from coefficients."""

    @property
    def x(self) -> tuple[Float[Array, "..."], ...]:
        """Coordinates of the points, one array of shape `shape` an axis, in the default dtype."""
        return self.coordinates()

    @property
    def k(self) -> tuple[Float[Array, "..."], ...]:
        """Angular wave numbers in the default dtype; see `wavenumbers`."""
        return self.wavenumbers()

    @property
    def k2(self) -> Float[Array, "..."]:
        """Squared wave number |k|^2, shape `spectral_shape`, in the default dtype."""
        return self.squared_wavenumber()

    def squared_wavenumber(self, dtype: Any = None) -> Float[Array, "..."]:
        """Squared wave number |k|^2, shape `spectral_shape`."""
        return sum_of_squares(self.wavenumbers(dtype))

    def components(self, uh: Inexact[Array, "..."]) -> tuple[Inexact[Array, "..."], ...]:
        """The components of a vector field, which stand on the axis before the space axes."""
        axis = uh.ndim - self.ndim - 1
        if axis < 0 or uh.shape[axis] != self.ndim:
            raise ValueError(
                f"A vector field on {self} needs shape (..., {self.ndim}, <space>), got {uh.shape}."
            )
        return tuple(jax.lax.index_in_dim(uh, i, axis, keepdims=False) for i in range(self.ndim))

    def lap(self, uh: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """Laplacian."""
        return -self.squared_wavenumber(uh) * uh

    def lap_inv(self, uh: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """Solution of the Poisson equation lap p = u with the conditions of the grid.

        Where constants solve the homogeneous problem p has zero mean, and the mean of u is ignored.
        """
        return -reciprocal(self.squared_wavenumber(uh)) * uh

    def norm(self, uh: PyTree[Inexact[Array, "..."]]) -> Float[Array, ""]:
        """Root of the space average of |u|^2, summed over components, from coefficients.

        Takes any pytree of coefficients, complex or split in real and imaginary parts, and is
        independent of the resolution: the norm for `SpectralPIDController`. Its gradient at zero is
        zero.
        """
        square = self.inner(uh, uh)
        safe = jnp.where(square == 0, 1, square)
        return jnp.where(square == 0, 0, jnp.sqrt(safe))


def sum_of_squares(k: tuple[Float[Array, "..."], ...]) -> Float[Array, "..."]:
    """The sum of the squares."""
    return functools.reduce(jnp.add, [ki**2 for ki in k])


def reciprocal(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1/x, and 0 where x = 0."""
    zero: Bool[Array, "..."] = x == 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, x))
