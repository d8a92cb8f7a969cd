"""`FourierGrid`: a periodic box, its transforms and its differential operators.

A field u on the box [0, L_1) x ... x [0, L_d) is held by its samples on a uniform grid, or by its
unscaled discrete Fourier coefficients uh_n = sum_x u(x) exp(-i k_n . x), k_n = 2 pi n / L.
"""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jaxtyping import Array, Complex, Float, Inexact, PyTree

from .._base import check_at_least, check_choice, check_positive, is_complex, real_dtype
from ._abstract_grid import AbstractGrid, reciprocal, sum_of_squares
from ._decomposition import Decomposition
from ._fft import fftn, ifftn, irfftn, rfftn


class FourierGrid(AbstractGrid):
    """A uniform periodic grid in one, two or three dimensions.

    Everything is static: a grid may be closed over, be a field of a module, or be passed through
    `jax.jit`. Wave numbers and masks are computed where they are used, in the precision of the data
    they meet. Operators act on the last `ndim` axes; vector fields have their components on the
    axis before those; axes in front are batch axes.

    **Arguments:**

    - `shape`: number of points of each axis, each at least 4 (an int in one dimension).
    - `lengths`: length of each axis (a number in one dimension).
    - `real`: whether fields are real. Then coefficients are stored for the non-negative wave
        numbers of the last axis only, as by `numpy.fft.rfftn`; otherwise for all, as by
        `numpy.fft.fftn`.
    - `decomposition`: how the axes are cut over devices, if they are; made by `sharded`.

    **Raises:** `ValueError` for a bad dimension, size or length.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    lengths: tuple[float, ...] = eqx.field(static=True)
    real: bool = eqx.field(static=True)
    decomposition: Decomposition | None = eqx.field(static=True)

    def __init__(
        self,
        shape: int | np.integer | Sequence[int],
        lengths: float | np.number | Sequence[float],
        real: bool = True,
        *,
        decomposition: Decomposition | None = None,
    ):
        shape = _as_tuple(shape)
        lengths = _as_tuple(lengths)
        if len(shape) not in (1, 2, 3):
            raise ValueError(f"`shape` must have one, two or three axes, got {shape}.")
        if len(lengths) != len(shape):
            raise ValueError(
                f"`lengths` must have one entry an axis of `shape`, got {lengths} for {shape}."
            )
        if not all(isinstance(n, int | np.integer) for n in shape):
            raise ValueError(f"`shape` must consist of integers, got {shape}.")
        check_at_least("shape", shape, 4)
        check_positive("lengths", lengths)
        self.shape = tuple(int(n) for n in shape)
        self.lengths = tuple(float(length) for length in lengths)
        self.real = real
        self.decomposition = decomposition
        if decomposition is not None:
            decomposition.check(self.shape)

    def __repr__(self):
        # On one line, for error messages.
        cut = "" if self.decomposition is None else f", sharded over {self.decomposition.axes}"
        return f"FourierGrid(shape={self.shape}, lengths={self.lengths}, real={self.real}{cut})"

    @property
    def spectral_shape(self) -> tuple[int, ...]:
        """Shape of an array of Fourier coefficients.

        On a sharded grid the last axis ends with zeros, up to a multiple of its devices.
        """
        last = self.num_stored
        if self.decomposition is not None:
            last = self.decomposition.padded(last)
        return (*self.shape[:-1], last)

    @property
    def num_stored(self) -> int:
        """Number of modes of the last axis that coefficients hold, without padding."""
        return self.shape[-1] // 2 + 1 if self.real else self.shape[-1]

    def with_layout(self, *, real: bool) -> "FourierGrid":
        """The same grid for real (`real=True`) or complex fields."""
        return FourierGrid(self.shape, self.lengths, real, decomposition=self.decomposition)

    def with_shape(self, shape: int | Sequence[int]) -> "FourierGrid":
        """The same box at another resolution."""
        return FourierGrid(shape, self.lengths, self.real, decomposition=self.decomposition)

    def sharded(
        self, mesh: Mesh | AbstractMesh | None, axes: str | Sequence[str] = ()
    ) -> "FourierGrid":
        """The same grid with its fields and coefficients cut over the devices of a mesh.

        Fields are cut along the first space axes and coefficients along the last ones, so that a
        transform costs one exchange (all-to-all) for each mesh axis, and everything that acts mode
        by mode or point by point costs none. The last axis of the coefficients is padded to a
        multiple of its devices (see `spectral_shape`); the padding holds zeros, belongs to wave
        number zero and counts in no norm, mask or spectrum. Leading axes stay as they are cut.

        **Arguments:**

        - `mesh`: the mesh, its axes Auto or Explicit; None for a grid that is not cut.
        - `axes`: names of mesh axes, fewer than there are space axes: one cuts space in slabs, two
            cut it in pencils (three dimensions).

        **Raises:** `ValueError` for an unknown or repeated name, a wrong number of names, or an
        axis of points that the devices do not divide.
        """
        if mesh is None:
            return FourierGrid(self.shape, self.lengths, self.real)
        axes = _as_names(axes)
        for name in axes:
            check_choice("axes", name, mesh.axis_names)
        if not 1 <= len(axes) < self.ndim or len(set(axes)) < len(axes):
            raise ValueError(
                f"`axes` must be at least one mesh axis and fewer than the {self.ndim} axes of "
                f"space, each once, got {axes}."
            )
        cut = Decomposition(mesh, axes, self.ndim)
        return FourierGrid(self.shape, self.lengths, self.real, decomposition=cut)

    def sharding(self, kind: str, *leading: str | None) -> NamedSharding:
        """Where the parts of a field or of its coefficients belong, for `jax.device_put`.

        **Arguments:**

        - `kind`: "physical" for fields, "spectral" for coefficients.
        - `leading`: the mesh axis of each leading axis (batch, channels), or None.

        **Raises:** `ValueError` on a grid that is not sharded.
        """
        check_choice("kind", kind, ("physical", "spectral"))
        if self.decomposition is None:
            raise ValueError("`sharding` needs a sharded grid; make one with `grid.sharded`.")
        cut = self.decomposition
        return cut.sharding(cut.physical if kind == "physical" else cut.spectral, leading)

    def constrain(self, x: Inexact[Array, "..."], kind: str) -> Inexact[Array, "..."]:
        """The same array, laid out as "physical" or "spectral" arrays of this grid are.

        For arrays made under `jax.jit` otherwise than by `fft` and `ifft`. Leading axes stay as
        they are cut. On a grid that is not sharded nothing happens.
        """
        check_choice("kind", kind, ("physical", "spectral"))
        if self.decomposition is None:
            return x
        cut = self.decomposition
        return cut.constrain(x, cut.physical if kind == "physical" else cut.spectral)

    def coordinates(self, dtype: Any = None) -> tuple[Float[Array, "..."], ...]:
        """Coordinates of the points, one array of shape `shape` an axis."""
        axes = [np.arange(n) * h for n, h in zip(self.shape, self.spacing)]
        dtype = real_dtype(float if dtype is None else dtype)
        return tuple(jnp.asarray(x, dtype) for x in np.meshgrid(*axes, indexing="ij"))

    def mode_numbers(self) -> tuple[np.ndarray, ...]:
        """Integer mode numbers n of each axis, broadcastable to `spectral_shape` (NumPy).

        Zero where the last axis is padded.
        """
        out = []
        for axis, n in enumerate(self.shape):
            half = self.real and axis == self.ndim - 1
            m = np.arange(n // 2 + 1) if half else np.rint(np.fft.fftfreq(n, 1 / n)).astype(int)
            m = np.pad(m, (0, self.spectral_shape[axis] - len(m)))
            out.append(m.reshape([-1 if a == axis else 1 for a in range(self.ndim)]))
        return tuple(out)

    def _is_mode(self) -> np.ndarray:
        """Whether an entry of the last axis of the coefficients is a mode, not padding (NumPy)."""
        return np.arange(self.spectral_shape[-1]) < self.num_stored

    def _array(self, values: np.ndarray, dtype: Any) -> Array:
        """Numbers that broadcast to coefficients, laid out as those are."""
        x = jnp.asarray(values, dtype)
        if self.decomposition is None:
            return x
        cuts = (name if n > 1 else None for name, n in zip(self.decomposition.spectral, x.shape))
        return self.decomposition.constrain(x, tuple(cuts))

    def wavenumbers(self, dtype: Any = None) -> tuple[Float[Array, "..."], ...]:
        """Angular wave numbers 2 pi n / L of each axis, broadcastable to `spectral_shape`."""
        return self._wavenumbers(dtype, odd=False)

    def derivative_wavenumbers(self, dtype: Any = None) -> tuple[Float[Array, "..."], ...]:
        """Wave numbers for derivatives of odd order: those of Nyquist modes are zero.

        On a grid of even size exp(i pi n x/dx) and its conjugate coincide, so the mode is its own
        conjugate and has no slope at the grid points.
        """
        return self._wavenumbers(dtype, odd=True)

    def _wavenumbers(self, dtype, *, odd):
        dtype = real_dtype(float if dtype is None else dtype)
        out = []
        for m, n, length in zip(self.mode_numbers(), self.shape, self.lengths):
            if odd:
                m = np.where(2 * np.abs(m) == n, 0, m)
            out.append(self._array(2 * np.pi * m / length, dtype))
        return tuple(out)

    def mode_weights(self, dtype: Any = None) -> Float[Array, "..."]:
        """How often each stored coefficient occurs in the full spectrum: 1, or 2 inside a half.

        Zero where the last axis is padded. Broadcastable to `spectral_shape`.
        """
        m, n = self.mode_numbers()[-1], self.shape[-1]
        single = (m == 0) | (2 * np.abs(m) == n) if self.real else np.ones_like(m, bool)
        weights = np.where(single, 1, 2) * self._is_mode()
        return self._array(weights, real_dtype(float if dtype is None else dtype))

    def fft(self, u: Inexact[Array, "..."]) -> Complex[Array, "..."]:
        """Fourier coefficients of a field: `(..., *shape)` to `(..., *spectral_shape)`, unscaled.

        **Raises:** `ValueError` for a wrong shape, `TypeError` for complex data on a real grid.
        """
        self._check("field", u, self.shape)
        if self.real and is_complex(u):
            raise TypeError(
                f"A real grid transforms real fields, got {u.dtype} of shape {u.shape}; "
                "use `FourierGrid(..., real=False)` for complex ones."
            )
        if self.decomposition is not None:
            return self.decomposition.forward(u, self.shape, self.real)
        return rfftn(u, self.ndim) if self.real else fftn(u, self.ndim)

    def ifft(self, uh: Complex[Array, "..."]) -> Inexact[Array, "..."]:
        """Field of Fourier coefficients: `(..., *spectral_shape)` to `(..., *shape)`.

        On a real grid the parts of the coefficients that no real field has (see `project_real`) are
        dropped silently.

        **Raises:** `ValueError` for a wrong shape, `TypeError` for real data.
        """
        self.check_spectral(uh)
        if self.decomposition is not None:
            return self.decomposition.inverse(uh, self.shape, self.real)
        return irfftn(uh, self.shape) if self.real else ifftn(uh, self.ndim)

    def check_spectral(self, uh: Any, name: str = "coefficients") -> None:
        """Raise unless `uh` can be Fourier coefficients on this grid."""
        if not is_complex(uh):
            raise TypeError(
                f"Fourier {name} must be complex of shape (..., "
                f"{', '.join(map(str, self.spectral_shape))}), got {jnp.result_type(uh)} of shape "
                f"{jnp.shape(uh)}; transform a field with `grid.fft` first."
            )
        self._check(name, uh, self.spectral_shape)

    def _check(self, name, u, shape):
        if jnp.shape(u)[-self.ndim :] != shape:
            raise ValueError(
                f"The last axes of the {name} must be {shape} on {self}, got shape {jnp.shape(u)}."
            )

    def project_real(self, uh: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """Nearest coefficients that belong to a real field.

        Needed where coefficients of a real grid are changed freely (optimised, perturbed): the
        modes 0 and Nyquist of the last axis must be Hermitian, and `ifft` would drop the rest.
        """
        if not self.real:
            return self.fft(self.ifft(uh).real)
        if self.decomposition is not None:
            # The mirror image of a mode may lie on another device.
            return self.fft(self.ifft(uh))
        m, half = np.arange(self.spectral_shape[-1]), self.shape[-1] / 2
        for index in (0, int(half)) if half == int(half) else (0,):
            plane = uh[..., index]
            uh = jnp.where(m == index, self._hermitian(plane)[..., None], uh)
        return uh

    def _hermitian(self, plane):
        """The nearest Hermitian array, on all axes of space but the last."""
        mirrored = jnp.conj(plane)
        for axis in range(1 - self.ndim, 0):
            mirrored = jnp.roll(jnp.flip(mirrored, axis), 1, axis)
        return (plane + mirrored) / 2

    def dealias(
        self, uh: Complex[Array, "..."], order: int = 2, kind: str = "strict"
    ) -> Complex[Array, "..."]:
        """Remove the modes that a product of `order` fields would alias.

        **Arguments:**

        - `uh`: coefficients, `(..., *spectral_shape)`.
        - `order`: 2 for quadratic products (keeps |n| < N/3), 3 for cubic ones (|n| < N/4).
        - `kind`: "strict" as above; "inclusive" keeps |n| = N/3 (N/4) too, as some codes do,
            although that mode aliases on itself; "smooth" multiplies by exp(-36 (2|n|/N)^36).
        """
        for factor in self.dealias_factors(order, kind):
            uh = uh * self._array(factor, real_dtype(uh))
        return uh

    def dealias_factors(self, order: int = 2, kind: str = "strict") -> tuple[np.ndarray, ...]:
        """The factors of `dealias`, one an axis, broadcastable to `spectral_shape` (NumPy)."""
        check_choice("order", order, (2, 3))
        check_choice("kind", kind, ("strict", "inclusive", "smooth"))
        factors = []
        for m, n in zip(self.mode_numbers(), self.shape):
            m = np.abs(m)
            if kind == "smooth":
                factors.append(np.exp(-36 * (m / (n / 2)) ** 36))
            elif kind == "inclusive":
                factors.append(((order + 1) * m <= n).astype(float))
            else:
                factors.append(((order + 1) * m < n).astype(float))
        factors[-1] = factors[-1] * self._is_mode()
        return tuple(factors)

    def mean(self, uh: Complex[Array, "..."]) -> Inexact[Array, "..."]:
        """Mean of a field over the box, from its coefficients."""
        if self.decomposition is None:
            first = uh[(..., *(0,) * self.ndim)]
        else:
            # A slice of a cut axis would live on one device.
            index = [np.arange(n) for n in self.spectral_shape]
            is_first = [self._array(i == 0, bool) for i in np.ix_(*index)]
            here = functools.reduce(jnp.logical_and, is_first)
            first = jnp.sum(jnp.where(here, uh, 0), axis=tuple(range(-self.ndim, 0)))
        mean = first / float(self.num_points)
        return mean.real if self.real else mean

    def derivative(
        self, uh: Complex[Array, "..."], axis: int, order: int = 1
    ) -> Complex[Array, "..."]:
        """The `order`-th partial derivative along space axis `axis`."""
        check_at_least("order", order, 0)
        k = self._wavenumbers(uh, odd=order % 2 == 1)[axis]
        return (1j**order) * k**order * uh

    def grad(self, uh: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """Gradient of a scalar field, `(..., ndim, *spectral_shape)`."""
        k = self.derivative_wavenumbers(uh)
        return jnp.stack([1j * ki * uh for ki in k], axis=uh.ndim - self.ndim)

    def div(self, uh: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """Divergence of a vector field `(..., ndim, *spectral_shape)`."""
        k = self.derivative_wavenumbers(uh)
        return sum(1j * ki * ui for ki, ui in zip(k, self.components(uh)))  # pyright: ignore

    def curl(self, uh: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """Curl of a vector field.

        In two dimensions the scalar d_x v - d_y u, `(..., *spectral_shape)`; in three dimensions a
        vector.
        """
        k = self.derivative_wavenumbers(uh)
        u = self.components(uh)
        if self.ndim == 2:
            return 1j * (k[0] * u[1] - k[1] * u[0])
        if self.ndim == 3:
            pairs = ((1, 2), (2, 0), (0, 1))
            return jnp.stack([1j * (k[i] * u[j] - k[j] * u[i]) for i, j in pairs], axis=uh.ndim - 4)
        raise ValueError("`curl` needs a grid of two or three dimensions, got one.")

    def leray(self, uh: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """Projection of a vector field on divergence-free ones, (I - k k^T/|k|^2) u."""
        k = self.derivative_wavenumbers(uh)
        scale = reciprocal(sum_of_squares(k))
        u = self.components(uh)
        along = sum(ki * ui for ki, ui in zip(k, u)) * scale
        return jnp.stack([ui - ki * along for ki, ui in zip(k, u)], axis=uh.ndim - self.ndim - 1)

    def velocity_from_vorticity(self, wh: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """Divergence-free, mean-free velocity of a vorticity.

        In two dimensions of the scalar w = d_x v - d_y u, through the stream function
        -lap psi = w, u = d_y psi, v = -d_x psi; in three of a vector, through -lap u = curl w.
        """
        if self.ndim == 3:
            return -self.lap_inv(self.curl(wh))
        kx, ky = self.derivative_wavenumbers(wh)
        psi = -self.lap_inv(wh)
        return jnp.stack([1j * ky * psi, -1j * kx * psi], axis=wh.ndim - 2)

    def inner(self, uh: PyTree[Inexact[Array, "..."]], vh: PyTree) -> Float[Array, ""]:
        """Space average of u . v, summed over components, from coefficients (Parseval)."""
        terms = jax.tree.map(
            lambda a, b: jnp.sum(self.mode_weights(a) * jnp.real(a * jnp.conj(b))), uh, vh
        )
        # A float: as a 32-bit integer the square overflows from 46341 points on.
        return sum(jax.tree.leaves(terms)) / float(self.num_points) ** 2  # pyright: ignore


def _as_names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)
