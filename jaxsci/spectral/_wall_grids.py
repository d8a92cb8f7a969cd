"""Grids of a box with walls: sine series (value zero) and cosine series (slope zero).

A field on [0, L_1] x ... x [0, L_d] is held by its samples at the cell centres x_j = (j + 1/2) L/N,
or by its unscaled coefficients along each axis,

    sine:    uh_n = 2 sum_j u(x_j) sin(k_n x_j),  n = 1..N,      k_n = pi n / L,
    cosine:  uh_n = 2 sum_j u(x_j) cos(k_n x_j),  n = 0..N - 1.

These are the discrete Fourier coefficients of the odd or even extension to 2N points, and SciPy's
`dst` and `dct` of type 2. Sines and cosines share their points, so that a derivative, which turns
one into the other, and a product stay on the grid. Each axis takes one real transform of N points
(Makhoul 1980, doi 10.1109/TASSP.1980.1163351).
"""

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray, PyTree

from .._base import check_at_least, check_choice, complex_dtype, real_dtype
from ._abstract_grid import AbstractGrid
from ._fft import irfftn, rfftn
from ._grid import FourierGrid

_PARITIES = ("sine", "cosine")
_OTHER = {"sine": "cosine", "cosine": "sine"}


class AbstractWallGrid(AbstractGrid):
    """A box with walls in one, two or three dimensions, each axis with its series.

    `parities` names the series of each axis, "sine" or "cosine". Everything is static, and
    coefficients are real arrays of the shape of the field. Operators act on the last `ndim` axes;
    axes in front are batch axes. A derivative of odd order changes the series of
    its axis: its coefficients belong to `derivative_grid(axis, order)`.
    """

    parities: eqx.AbstractVar[tuple[str, ...]]

    @property
    def spectral_shape(self) -> tuple[int, ...]:
        """Shape of an array of coefficients, the shape of the field."""
        return self.shape

    @abc.abstractmethod
    def with_shape(self, shape: int | Sequence[int]) -> "AbstractWallGrid":
        """The same box at another resolution."""

    def coordinates(self, dtype: Any = None) -> tuple[Float[Array, "..."], ...]:
        """Coordinates of the points (cell centres), one array of shape `shape` an axis."""
        axes = [(np.arange(n) + 0.5) * h for n, h in zip(self.shape, self.spacing)]
        dtype = real_dtype(float if dtype is None else dtype)
        return tuple(jnp.asarray(x, dtype) for x in np.meshgrid(*axes, indexing="ij"))

    def mode_numbers(self) -> tuple[np.ndarray, ...]:
        """Mode numbers n of each axis, broadcastable to `spectral_shape` (NumPy)."""
        out = []
        for axis, (n, parity) in enumerate(zip(self.shape, self.parities)):
            m = np.arange(n) + (parity == "sine")
            out.append(m.reshape([-1 if a == axis else 1 for a in range(self.ndim)]))
        return tuple(out)

    def wavenumbers(self, dtype: Any = None) -> tuple[Float[Array, "..."], ...]:
        """Angular wave numbers pi n / L of each axis, broadcastable to `spectral_shape`."""
        dtype = real_dtype(float if dtype is None else dtype)
        pairs = zip(self.mode_numbers(), self.lengths)
        return tuple(jnp.asarray(np.pi * m / length, dtype) for m, length in pairs)

    def mode_weights(self, dtype: Any = None) -> Float[Array, "..."]:
        """How often each coefficient occurs in the spectrum of the extended field.

        Twice an axis, but once for n = 0 and n = N.
        """
        weights = np.ones((1,) * self.ndim)
        for m, n in zip(self.mode_numbers(), self.shape):
            weights = weights * np.where((m == 0) | (m == n), 1, 2)
        return jnp.asarray(weights, real_dtype(float if dtype is None else dtype))

    def fft(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Coefficients of a field, `(..., *shape)` to `(..., *shape)`, unscaled.

        **Raises:** `ValueError` for a wrong shape, `TypeError` for data that are not real.
        """
        self.check_spectral(u, "field")
        return self._transform(u, _cosine_transform, _sine_transform)

    def ifft(self, uh: Float[Array, "..."]) -> Float[Array, "..."]:
        """Field of coefficients: the inverse of `fft`."""
        self.check_spectral(uh)
        return self._transform(uh, _inverse_cosine_transform, _inverse_sine_transform)

    def _transform(self, u, cosine, sine):
        for axis, parity in zip(range(-self.ndim, 0), self.parities):
            u = _along(axis, sine if parity == "sine" else cosine, u)
        return u

    def check_spectral(self, uh: Any, name: str = "coefficients") -> None:
        """Raise unless `uh` can be coefficients (or a field) on this grid."""
        if jnp.shape(uh)[-self.ndim :] != self.shape:
            raise ValueError(
                f"The last axes of the {name} must be {self.shape} on {self}, got shape "
                f"{jnp.shape(uh)}."
            )
        if not jnp.issubdtype(jnp.result_type(uh), jnp.floating):
            raise TypeError(f"The {name} must be real on {self}, got {jnp.result_type(uh)}.")

    def dealias(
        self, uh: Float[Array, "..."], order: int = 2, kind: str = "strict"
    ) -> Float[Array, "..."]:
        """Remove the modes that a product of `order` fields would alias.

        **Arguments:**

        - `uh`: coefficients, `(..., *spectral_shape)`.
        - `order`: 2 for quadratic products (keeps n < 2N/3), 3 for cubic ones (n < N/2).
        - `kind`: "strict" as above; "inclusive" keeps n = 2N/3 (N/2) too; "smooth" multiplies by
            exp(-36 (n/N)^36).
        """
        for factor in self.dealias_factors(order, kind):
            uh = uh * jnp.asarray(factor, real_dtype(uh))
        return uh

    def dealias_factors(self, order: int = 2, kind: str = "strict") -> tuple[np.ndarray, ...]:
        """The factors of `dealias`, one an axis, broadcastable to `spectral_shape` (NumPy)."""
        check_choice("order", order, (2, 3))
        check_choice("kind", kind, ("strict", "inclusive", "smooth"))
        factors = []
        for m, n in zip(self.mode_numbers(), self.shape):
            if kind == "smooth":
                factors.append(np.exp(-36 * (m / n) ** 36))
            elif kind == "inclusive":
                factors.append(((order + 1) * m <= 2 * n).astype(float))
            else:
                factors.append(((order + 1) * m < 2 * n).astype(float))
        return tuple(factors)

    def mean(self, uh: Float[Array, "..."]) -> Float[Array, "..."]:
        """Mean of a field over the grid points, from its coefficients."""
        return jnp.mean(self.ifft(uh), axis=tuple(range(-self.ndim, 0)))

    def derivative_grid(self, axis: int, order: int = 1) -> "AbstractWallGrid":
        """The grid to which derivatives of the given order along an axis belong."""
        check_choice("axis", axis, range(self.ndim))
        if order % 2 == 0:
            return self
        parities = list(self.parities)
        parities[axis] = _OTHER[parities[axis]]
        return wall_grid(self.shape, self.lengths, parities)

    def derivative(self, uh: Float[Array, "..."], axis: int, order: int = 1) -> Float[Array, "..."]:
        """The `order`-th derivative along an axis: coefficients on `derivative_grid(axis, order)`.

        Modes n = N have no slope at the grid points.
        """
        check_at_least("order", order, 0)
        check_choice("axis", axis, range(self.ndim))
        k = self.wavenumbers(uh)[axis]
        # sin -> k cos -> -k^2 sin; cos -> -k sin -> -k^2 cos.
        even = (-1) ** (order // 2) * k ** (order - order % 2) * uh
        if order % 2 == 0:
            return even
        sine = self.parities[axis] == "sine"
        moved = k * even if sine else -k * even
        array_axis = axis - self.ndim
        n = self.shape[axis]
        pad = [(0, 0)] * uh.ndim
        pad[array_axis] = (1, 0) if sine else (0, 1)
        kept = slice(0, n - 1) if sine else slice(1, n)
        index = (*(slice(None),) * (uh.ndim + array_axis), kept)
        return jnp.pad(moved[index], pad)

    def grad(self, uh: Float[Array, "..."]) -> Float[Array, "..."]:
        """Gradient of a scalar, `(..., ndim, *shape)`; component i is on `derivative_grid(i)`."""
        parts = [self.derivative(uh, axis) for axis in range(self.ndim)]
        return jnp.stack(parts, axis=uh.ndim - self.ndim)

    def div(self, uh: Float[Array, "..."]) -> Float[Array, "..."]:
        """Divergence on this grid of a vector field whose component i is on `derivative_grid(i)`.

        Minus the adjoint of `grad`.
        """
        parts = self.components(uh)
        slopes = [self.derivative_grid(i).derivative(part, i) for i, part in enumerate(parts)]
        return functools.reduce(jnp.add, slopes)

    def inner(self, uh: PyTree[Float[Array, "..."]], vh: PyTree) -> Float[Array, ""]:
        """Average of u . v over the grid points, summed over components, from coefficients."""
        terms = jax.tree.map(lambda a, b: jnp.sum(self.mode_weights(a) * a * b), uh, vh)
        return sum(jax.tree.leaves(terms)) / float(2**self.ndim * self.num_points) ** 2  # pyright: ignore


class SineGrid(AbstractWallGrid):
    """A box whose fields vanish at the walls (homogeneous Dirichlet conditions).

    Fields are sine series along each axis: odd about every wall. Odd powers of a field, even
    derivatives and products with an even field (cosines) are again such series; even powers are
    not. Convergence is spectral for fields whose even derivatives vanish at the walls.

    **Arguments:**

    - `shape`: number of points of each axis, each at least 4 (an int in one dimension).
    - `lengths`: length of each axis (a number in one dimension).

    **Raises:** `ValueError` for a bad dimension, size or length.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    lengths: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        shape: int | np.integer | Sequence[int],
        lengths: float | np.number | Sequence[float],
    ):
        self.shape, self.lengths = _checked(shape, lengths)

    @property
    def parities(self) -> tuple[str, ...]:
        """Sines on every axis."""
        return ("sine",) * self.ndim

    def with_shape(self, shape: int | Sequence[int]) -> "SineGrid":
        """The same box at another resolution."""
        return SineGrid(shape, self.lengths)


class CosineGrid(AbstractWallGrid):
    """A box whose fields have no slope at the walls (homogeneous Neumann conditions).

    Fields are cosine series along each axis: even about every wall. Products of fields and even
    derivatives are again such series. Convergence is spectral for fields whose odd derivatives
    vanish at the walls.

    **Arguments:**

    - `shape`: number of points of each axis, each at least 4 (an int in one dimension).
    - `lengths`: length of each axis (a number in one dimension).

    **Raises:** `ValueError` for a bad dimension, size or length.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    lengths: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        shape: int | np.integer | Sequence[int],
        lengths: float | np.number | Sequence[float],
    ):
        self.shape, self.lengths = _checked(shape, lengths)

    @property
    def parities(self) -> tuple[str, ...]:
        """Cosines on every axis."""
        return ("cosine",) * self.ndim

    def with_shape(self, shape: int | Sequence[int]) -> "CosineGrid":
        """The same box at another resolution."""
        return CosineGrid(shape, self.lengths)


class MixedWallGrid(AbstractWallGrid):
    """A box with sines along some axes and cosines along the others.

    What a derivative of a field on a `SineGrid` or `CosineGrid` of several dimensions belongs to;
    also a domain of its own, say a channel with two walls at a fixed value and two insulated ones.

    **Arguments:**

    - `shape`: number of points of each axis, each at least 4.
    - `lengths`: length of each axis.
    - `parities`: "sine" or "cosine" for each axis.

    **Raises:** `ValueError` for a bad dimension, size, length or parity.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    lengths: tuple[float, ...] = eqx.field(static=True)
    parities: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        shape: int | np.integer | Sequence[int],
        lengths: float | np.number | Sequence[float],
        parities: Sequence[str],
    ):
        self.shape, self.lengths = _checked(shape, lengths)
        parities = tuple(parities)
        if len(parities) != len(self.shape):
            raise ValueError(
                f"`parities` must have one entry an axis of `shape`, got {parities} for "
                f"{self.shape}."
            )
        for parity in parities:
            check_choice("parities", parity, _PARITIES)
        self.parities = parities

    def with_shape(self, shape: int | Sequence[int]) -> "MixedWallGrid":
        """The same box at another resolution."""
        return MixedWallGrid(shape, self.lengths, self.parities)


Grid: TypeAlias = FourierGrid | AbstractWallGrid


def wall_grid(
    shape: int | Sequence[int], lengths: float | Sequence[float], parities: Sequence[str]
) -> AbstractWallGrid:
    """The grid with the given series: `SineGrid`, `CosineGrid` or else `MixedWallGrid`."""
    if set(parities) == {"sine"}:
        return SineGrid(shape, lengths)
    if set(parities) == {"cosine"}:
        return CosineGrid(shape, lengths)
    return MixedWallGrid(shape, lengths, parities)


def truncated_wall_series(
    key: PRNGKeyArray,
    grid: AbstractWallGrid,
    cutoff: int = 5,
    *,
    std: float = 1.0,
    dtype: Any = None,
) -> Float[Array, "..."]:
    """Draw a field whose modes n <= `cutoff` along every axis are equally strong, without n = 0.

    **Arguments:**

    - `key`: random key.
    - `grid`: a grid with walls.
    - `cutoff`: largest mode number, below every size.
    - `std`: expected root mean square over the box.
    - `dtype`: real dtype.

    **Returns:**

    The field, `grid.shape`.
    """
    check_at_least("cutoff", cutoff, 1)
    if cutoff >= min(grid.shape):
        raise ValueError(f"`cutoff` must be below every size {grid.shape}, got {cutoff}.")
    mask = np.ones(grid.shape)
    for m in grid.mode_numbers():
        mask = mask * (m <= cutoff)
    mask = mask * ~functools.reduce(np.logical_and, [m == 0 for m in grid.mode_numbers()])
    dtype = real_dtype(float if dtype is None else dtype)
    weights = np.ones((1,) * grid.ndim)
    for m in grid.mode_numbers():
        weights = weights * np.where(m == 0, 1, 2)
    scale = std * 2**grid.ndim * grid.num_points / np.sqrt(np.sum(mask * weights))
    return grid.ifft(jax.random.normal(key, grid.shape, dtype) * jnp.asarray(scale * mask, dtype))


def lift(
    grid: AbstractWallGrid, boundary: Callable[..., Array]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """A smooth field with given values at the walls, for boundary values that are not zero.

    With g the lift, v = u - g vanishes at the walls, and lap u = f becomes lap v = f - lap g: solve
    for v on the `SineGrid` and add g. The lift is the transfinite interpolation of the boundary
    values (Gordon and Hall 1973, doi 10.1007/BF01436298): the Boolean sum over the axes of the
    linear interpolation between opposite walls; in one dimension a straight line. For slopes at the
    walls see `lift_slopes`.

    **Arguments:**

    - `grid`: a grid with sines on every axis.
    - `boundary`: function of the coordinates `(x_1, ..., x_d)` of which only the values at the
        walls are used; differentiable there along the walls.

    **Returns:**

    The lift and its Laplacian at the grid points, each `grid.shape`.
    """
    if set(grid.parities) != {"sine"}:
        raise ValueError(f"`grid` must have sines on every axis, got {grid}.")

    def interpolated(function, axis):
        length = grid.lengths[axis]

        def along(x):
            low, high = (function(x.at[axis].set(end)) for end in (0.0, length))
            return low + (high - low) * x[axis] / length

        return along

    exact = lambda x: jnp.asarray(boundary(*x), x.dtype)
    total = lambda x: jnp.zeros((), x.dtype)
    for axis in range(grid.ndim):
        total = _plus(total, interpolated(_plus(exact, total, -1), axis))
    points = jnp.stack([x.ravel() for x in grid.x], axis=-1)
    both = lambda x: (total(x), jnp.trace(jax.hessian(total)(x)))
    value, laplacian = jax.jit(jax.vmap(both))(points)
    return value.reshape(grid.shape), laplacian.reshape(grid.shape)


def _plus(f, g, sign=1):
    return lambda x: f(x) + sign * g(x)


def lift_slopes(
    grid: CosineGrid, low: float | Array, high: float | Array
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """A parabola with given slopes at the two walls of a line, and its Laplacian.

    **Arguments:**

    - `grid`: a one-dimensional grid.
    - `low`, `high`: du/dx at x = 0 and x = L.

    **Returns:**

    The lift and its Laplacian at the grid points, each `grid.shape`.
    """
    if grid.ndim != 1:
        raise ValueError(f"`grid` must have one dimension, got {grid}.")
    (x,) = grid.x
    curvature = (jnp.asarray(high, x.dtype) - low) / grid.lengths[0]
    return low * x + curvature * x**2 / 2, jnp.full_like(x, 1) * curvature


def _checked(shape, lengths):
    # The same demands as on a periodic grid.
    grid = FourierGrid(shape, lengths)
    return grid.shape, grid.lengths


def _along(axis: int, transform: Callable[[Array], Array], u: Float[Array, "..."]):
    """Apply a transform of the last axis along another one."""
    if axis == -1:
        return transform(u)
    return jnp.moveaxis(transform(jnp.moveaxis(u, axis, -1)), -1, axis)


def _phases(n: int, like: Array) -> Complex[Array, " modes"]:
    """exp(-i pi k/(2 n)) for k = 0..n // 2."""
    return jnp.asarray(np.exp(-0.5j * np.pi * np.arange(n // 2 + 1) / n), complex_dtype(like))


def _cosine_transform(u):
    n = u.shape[-1]
    # Even points forward, then odd points backward, are one period of n points.
    folded = jnp.concatenate([u[..., ::2], u[..., 1::2][..., ::-1]], axis=-1)
    z = 2 * _phases(n, u) * rfftn(folded, 1)
    # Mode k is the real part of z_k, mode n - k minus the imaginary part.
    upper = -z.imag[..., 1 : (n + 1) // 2][..., ::-1]
    return jnp.concatenate([z.real, upper], axis=-1)


def _inverse_cosine_transform(uh):
    n = uh.shape[-1]
    half = n // 2 + 1
    lower = uh[..., :half]
    mirrored = jnp.concatenate(
        [jnp.zeros_like(uh[..., :1]), uh[..., n - half + 1 :][..., ::-1]], -1
    )
    z = jax.lax.complex(lower, -mirrored) * jnp.conj(_phases(n, uh)) / 2
    folded = irfftn(z, (n,))
    even = (n + 1) // 2
    u = jnp.zeros_like(folded).at[..., ::2].set(folded[..., :even])
    return u.at[..., 1::2].set(folded[..., even:][..., ::-1])


def _signs(u):
    return jnp.asarray(np.where(np.arange(u.shape[-1]) % 2, -1, 1), u.dtype)


def _sine_transform(u):
    # sin(k_{N - n} x_j) = (-1)^j cos(k_n x_j).
    return _cosine_transform(u * _signs(u))[..., ::-1]


def _inverse_sine_transform(uh):
    return _inverse_cosine_transform(uh[..., ::-1]) * _signs(uh)
