"""Equations given by coefficients: isotropic derivatives of any order and common nonlinearities.

Everywhere the linear part is L u = a_0 u + sum_(j >= 1) a_j sum_i d_i^j u, with the coefficients
(a_0, a_1, ..): a_1 < 0 advects towards increasing x, a_2 > 0 diffuses, a_4 < 0 damps. In more than
one dimension a_4 multiplies sum_i d_i^4, which is not lap^2.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact

from .._base import check_at_least, check_finite, real_dtype
from ..integrate import SemilinearTerm
from ..spectral import FourierGrid
from ._equation import AbstractEquation, like, parameter
from ._linear import AbstractLinearEquation, random_fields


class GeneralLinear(AbstractLinearEquation):
    """Linear equation u_t = a_0 u + sum_j a_j sum_i d_i^j u, each channel by itself.

    One to three dimensions. The symbol is complex as soon as there is an a_1, even one that is
    zero: the classes of single equations, such as [`jaxsci.pde.Heat`][], are cheaper.
    Invariants: "mean" is conserved for a_0 = 0; "variance" falls where the real part of the symbol
    is negative, and is conserved where it is zero.

    **Arguments:**

    - `grid`: the grid.
    - `coefficients`: (a_0, a_1, ..).
    - `channels`: number of fields.
    """

    grid: FourierGrid
    coefficients: Float[Array, " orders"]
    num_channels: int = eqx.field(static=True)

    def __init__(
        self,
        grid: FourierGrid,
        coefficients: Float[ArrayLike, " orders"] | Sequence[ArrayLike] = (0.0, -0.1, 0.01),
        channels: int = 1,
    ):
        check_at_least("channels", channels, 1)
        self.grid = grid
        self.coefficients = _vector("coefficients", coefficients)
        self.num_channels = channels

    def symbol(self):
        """a_0 + sum_j a_j sum_i (i k_i)^j."""
        return _symbol(self.grid, self.coefficients)


class GeneralConvection(AbstractEquation):
    """Convection u_t + b (u . grad) u = a_0 u + sum_j a_j sum_i d_i^j u.

    The state has `grid.ndim` velocity components, or with `single_channel` one field with
    u_t + b sum_i d_i (u^2)/2 = L u. Burgers' equation for coefficients (0, 0, nu), in one dimension
    Korteweg-de Vries for (0, 0, 0, -d) and Kuramoto-Sivashinsky for (0, 0, -1, 0, -1).
    Invariants: "mean", conserved for a_0 = 0 in one dimension and with `single_channel`.

    **Arguments:**

    - `grid`: the grid.
    - `coefficients`: (a_0, a_1, ..).
    - `convection`: b.
    - `single_channel`: whether the state is one field in more dimensions also.
    """

    growing: ClassVar[bool] = True
    grid: FourierGrid
    coefficients: Float[Array, " orders"]
    convection: Float[Array, ""]
    single_channel: bool = eqx.field(static=True)

    def __init__(
        self,
        grid: FourierGrid,
        coefficients: Float[ArrayLike, " orders"] | Sequence[ArrayLike] = (0.0, 0.0, 0.01),
        convection: Float[ArrayLike, ""] = 1.0,
        single_channel: bool = False,
    ):
        check_finite("convection", convection)
        self.grid = grid
        self.coefficients = _vector("coefficients", coefficients)
        self.convection = parameter(convection)
        self.single_channel = single_channel

    @property
    def channels(self):
        """One, or one velocity component a dimension."""
        return 1 if self.single_channel else self.grid.ndim

    def symbol(self):
        """a_0 + sum_j a_j sum_i (i k_i)^j."""
        return _symbol(self.grid, self.coefficients)

    def nonlinear(self, t, uh, args=None):
        """-b (u . grad) u, or -b sum_i d_i (u^2)/2."""
        grid = self.grid
        scale = like(self.convection, uh)
        uh = grid.dealias(uh)
        if self.channels == 1:
            square = grid.fft(grid.ifft(uh) ** 2)
            return grid.dealias(-0.5 * scale * _slope_along_diagonal(grid, square))
        advection = sum(
            jnp.expand_dims(ui, -grid.ndim - 1) * grid.ifft(1j * ki * uh)
            for ui, ki in zip(grid.components(grid.ifft(uh)), grid.derivative_wavenumbers(uh))
        )
        return grid.dealias(-scale * grid.fft(jnp.asarray(advection)))

    def invariants(self, uh):
        """Mean over the box and components."""
        return {"mean": jnp.mean(self.grid.mean(uh))}

    def initial(self, key):
        """Independent random Fourier series."""
        return random_fields(key, self.grid, self.channels)


class GeneralGradientNorm(AbstractEquation):
    """Gradient-norm equation u_t + b |grad u|^2/2 = a_0 u + sum_j a_j sum_i d_i^j u.

    One field, one to three dimensions. By default the Kuramoto-Sivashinsky equation in gradient
    form, in one dimension; (0, 0, nu) gives the deterministic Kardar-Parisi-Zhang equation.
    Invariants: "mean", which for a_0 = 0 falls if b > 0.

    **Arguments:**

    - `grid`: the grid.
    - `coefficients`: (a_0, a_1, ..).
    - `gradient_norm`: b.
    """

    growing: ClassVar[bool] = True
    grid: FourierGrid
    coefficients: Float[Array, " orders"]
    gradient_norm: Float[Array, ""]

    def __init__(
        self,
        grid: FourierGrid,
        coefficients: Float[ArrayLike, " orders"] | Sequence[ArrayLike] = (
            0.0,
            0.0,
            -1.0,
            0.0,
            -1.0,
        ),
        gradient_norm: Float[ArrayLike, ""] = 1.0,
    ):
        check_finite("gradient_norm", gradient_norm)
        self.grid = grid
        self.coefficients = _vector("coefficients", coefficients)
        self.gradient_norm = parameter(gradient_norm)

    def symbol(self):
        """a_0 + sum_j a_j sum_i (i k_i)^j."""
        return _symbol(self.grid, self.coefficients)

    def nonlinear(self, t, uh, args=None):
        """-b |grad u|^2/2."""
        grid = self.grid
        square = _gradient_square(grid, grid.dealias(uh))
        return grid.dealias(-0.5 * like(self.gradient_norm, uh) * grid.fft(square))

    def invariants(self, uh):
        """Mean."""
        return {"mean": jnp.mean(self.grid.mean(uh))}


class GeneralPolynomial(AbstractEquation):
    """Reaction equation u_t = a_0 u + sum_j a_j sum_i d_i^j u + sum_p c_p u^p.

    One field, one to three dimensions. Fisher-KPP for coefficients (r, 0, nu) and polynomial
    (0, 0, -r), Allen-Cahn for (r, 0, nu) and (0, 0, 0, -r). The modes that a product of p fields
    aliases, p the degree of the polynomial, are removed: |n| < N/(p + 1) remain in it.
    Nothing is conserved in general.

    **Arguments:**

    - `grid`: the grid.
    - `coefficients`: (a_0, a_1, ..).
    - `polynomial`: (c_0, c_1, ..).
    """

    growing: ClassVar[bool] = True
    grid: FourierGrid
    coefficients: Float[Array, " orders"]
    polynomial: Float[Array, " powers"]

    def __init__(
        self,
        grid: FourierGrid,
        coefficients: Float[ArrayLike, " orders"] | Sequence[ArrayLike] = (1.0, 0.0, 0.01),
        polynomial: Float[ArrayLike, " powers"] | Sequence[ArrayLike] = (0.0, 0.0, -1.0),
    ):
        self.grid = grid
        self.coefficients = _vector("coefficients", coefficients)
        self.polynomial = _vector("polynomial", polynomial)

    def symbol(self):
        """a_0 + sum_j a_j sum_i (i k_i)^j."""
        return _symbol(self.grid, self.coefficients)

    def nonlinear(self, t, uh, args=None):
        """sum_p c_p u^p."""
        grid = self.grid
        degree = len(self.polynomial) - 1
        constant, *others = like(self.polynomial, uh)
        u = grid.ifft(_dealias(grid, uh, degree))
        total = jnp.zeros_like(u)
        for c in reversed(others):
            total = (total + c) * u
        return _dealias(grid, grid.fft(total + constant), degree)

    def invariants(self, uh):
        """None."""
        return {}


class GeneralNonlinear(AbstractEquation):
    """All quadratic nonlinearities of one field, with any isotropic linear part:

        u_t + b sum_i d_i (u^2)/2 + g |grad u|^2/2 = a_0 u + sum_j a_j sum_i d_i^j u + q u^2

    One to three dimensions. By default Burgers' equation in one dimension. Invariants: "mean",
    conserved for a_0 = g = q = 0.

    **Arguments:**

    - `grid`: the grid.
    - `coefficients`: (a_0, a_1, ..).
    - `quadratic`: q.
    - `convection`: b.
    - `gradient_norm`: g.
    """

    growing: ClassVar[bool] = True
    grid: FourierGrid
    coefficients: Float[Array, " orders"]
    quadratic: Float[Array, ""]
    convection: Float[Array, ""]
    gradient_norm: Float[Array, ""]

    def __init__(
        self,
        grid: FourierGrid,
        coefficients: Float[ArrayLike, " orders"] | Sequence[ArrayLike] = (0.0, 0.0, 0.01),
        quadratic: Float[ArrayLike, ""] = 0.0,
        convection: Float[ArrayLike, ""] = 1.0,
        gradient_norm: Float[ArrayLike, ""] = 0.0,
    ):
        check_finite("quadratic", quadratic)
        check_finite("convection", convection)
        check_finite("gradient_norm", gradient_norm)
        self.grid = grid
        self.coefficients = _vector("coefficients", coefficients)
        self.quadratic = parameter(quadratic)
        self.convection = parameter(convection)
        self.gradient_norm = parameter(gradient_norm)

    def symbol(self):
        """a_0 + sum_j a_j sum_i (i k_i)^j."""
        return _symbol(self.grid, self.coefficients)

    def nonlinear(self, t, uh, args=None):
        """q u^2 - b sum_i d_i (u^2)/2 - g |grad u|^2/2."""
        grid = self.grid
        q, b, g = (like(p, uh) for p in (self.quadratic, self.convection, self.gradient_norm))
        uh = grid.dealias(uh)
        square = grid.fft(grid.ifft(uh) ** 2)
        slopes = grid.fft(_gradient_square(grid, uh))
        return grid.dealias(
            q * square - b / 2 * _slope_along_diagonal(grid, square) - g / 2 * slopes
        )

    def invariants(self, uh):
        """Mean."""
        return {"mean": jnp.mean(self.grid.mean(uh))}


def _vector(name: str, values: ArrayLike | Sequence[ArrayLike]) -> Float[Array, " n"]:
    """Coefficients as an array leaf."""
    values = jnp.asarray(values)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"`{name}` must be at least one number, got shape {values.shape}.")
    check_finite(name, values)
    return parameter(values)


def _symbol(grid: FourierGrid, coefficients: Float[Array, " orders"]) -> Inexact[Array, "..."]:
    """a_0 + sum_j a_j sum_i (i k_i)^j, on every mode."""
    total = coefficients[0] * jnp.ones_like(grid.k2)
    for j, a in enumerate(coefficients[1:], 1):
        k = grid.derivative_wavenumbers() if j % 2 else grid.wavenumbers()
        sign = (1, 1j, -1, -1j)[j % 4]
        total = total + sign * a * sum(ki**j for ki in k)
    return total


def _slope_along_diagonal(grid: FourierGrid, uh: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """sum_i d_i u, of coefficients."""
    return 1j * sum(grid.derivative_wavenumbers(uh)) * uh


def _gradient_square(grid: FourierGrid, uh: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """|grad u|^2 at the points, from coefficients."""
    slopes = grid.ifft(jnp.stack([1j * ki * uh for ki in grid.derivative_wavenumbers(uh)]))
    return jnp.sum(slopes**2, axis=0)


def _dealias(grid: FourierGrid, uh: Inexact[Array, "..."], degree: int) -> Inexact[Array, "..."]:
    """Keep the modes |n| < N/(degree + 1) of every axis."""
    if degree < 2:
        return uh
    if degree <= 3:
        return grid.dealias(uh, order=degree)
    kept = [(degree + 1) * np.abs(m) < n for m, n in zip(grid.mode_numbers(), grid.shape)]
    return uh * jnp.asarray(math.prod(kept), real_dtype(uh))


def general_linear(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.GeneralLinear`][]."""
    return GeneralLinear(grid, **parameters).term()


def general_convection(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.GeneralConvection`][]."""
    return GeneralConvection(grid, **parameters).term()


def general_gradient_norm(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.GeneralGradientNorm`][]."""
    return GeneralGradientNorm(grid, **parameters).term()


def general_polynomial(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.GeneralPolynomial`][]."""
    return GeneralPolynomial(grid, **parameters).term()


def general_nonlinear(grid: FourierGrid, **parameters) -> SemilinearTerm:
    """Term of [`jaxsci.pde.GeneralNonlinear`][]."""
    return GeneralNonlinear(grid, **parameters).term()
