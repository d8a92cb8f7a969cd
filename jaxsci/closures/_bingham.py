"""The Bingham closure in the plane: one smooth function of the squared order parameter.

The density of greatest entropy with given second moment is c exp(kappa cos 2 theta)/(2 pi I_0).
Its order r = |z|/c = I_1/I_0(kappa), and a_4 = g(r^2) z^2/c with g = (I_2/I_0)/r^2 = I_2 I_0/I_1^2.
"""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from numpy.polynomial.chebyshev import chebder

from .._base import real_dtype
from ._closure import FourthHarmonicClosure

# Terms after which the Chebyshev coefficients of g are below rounding.
_NUM_TERMS = {"float64": 72, "float32": 28}


def _bessel_ratios(kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """I_1/I_0 and I_2/I_1, by the recurrence I_{n-1} = I_{n+1} + (2n/kappa) I_n run downwards.

    All terms are positive, so no digits are lost, neither at small nor at large kappa.
    """
    ratio = np.zeros_like(kappa)
    higher = ratio
    for n in range(60 + int(12 * np.sqrt(kappa.max())), 0, -1):
        higher, ratio = ratio, kappa / (2 * n + kappa * ratio)
    return ratio, higher


def _concentration_parameter(r: np.ndarray) -> np.ndarray:
    """The kappa of order r, by Newton on I_1/I_0(kappa) = r."""
    kappa = r * (2 - r**2) / (1 - r**2)
    for _ in range(40):
        ratio, _ = _bessel_ratios(kappa)
        slope = 1 - ratio / kappa - ratio**2
        step = (ratio - r) / slope
        kappa = np.maximum(kappa - step, kappa / 2)
        if np.all(np.abs(step) <= 1e-14 * kappa):
            break
    return kappa


@functools.cache
def _chebyshev_coefficients(num_terms: int) -> tuple[float, ...]:
    """Chebyshev coefficients of g in x = 2 r^2 - 1, interpolated at the Chebyshev points."""
    angle = np.pi * (np.arange(num_terms) + 0.5) / num_terms
    # r^2 = (1 + cos)/2, written without cancellation.
    r = np.cos(angle / 2)
    order, higher = _bessel_ratios(_concentration_parameter(r))
    values = higher / order
    basis = np.cos(np.outer(np.arange(num_terms), angle))
    coefficients = 2 / num_terms * basis @ values
    coefficients[0] /= 2
    return tuple(coefficients.tolist())


@functools.cache
def _series(num_terms: int, derivative: int) -> tuple[float, ...]:
    """Chebyshev coefficients of a derivative of g with respect to r^2."""
    coefficients = np.array(_chebyshev_coefficients(num_terms))
    return tuple((2.0**derivative * chebder(coefficients, derivative)).tolist())


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _ratio(rho, derivative):
    """A derivative of g. Its own derivative is the next series, which keeps programs small."""
    x = 2 * jnp.where(rho <= 1, rho, 1) - 1
    coefficients = _series(_NUM_TERMS.get(rho.dtype.name, 28), derivative)
    ahead, current = jnp.zeros_like(x), jnp.zeros_like(x)
    for coefficient in coefficients[:0:-1]:
        ahead, current = current, 2 * x * current - ahead + coefficient
    return x * current - ahead + coefficients[0]


@_ratio.defjvp
def _ratio_jvp(derivative, primals, tangents):
    (rho,), (tangent,) = primals, tangents
    slope = jnp.where(rho <= 1, _ratio(rho, derivative + 1), 0)
    return _ratio(rho, derivative), slope * tangent


def bingham_ratio(rho: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The function g of the Bingham closure a_4 = g(|z|^2/c^2) z^2/c.

    g(0) = 1/2, g(1) = 1, increasing. A Chebyshev series evaluated by Clenshaw's recurrence: no
    branch, no eigenvectors, derivatives of every order finite on [0, 1]. Absolute error below 1e-13
    in float64.

    **Arguments:**

    - `rho`: squared order parameter r^2 in [0, 1]; larger values are taken as 1.
    """
    return _ratio(rho, 0)


class BinghamClosure(FourthHarmonicClosure):
    """The Bingham closure (Bingham 1974; Chaubal and Leal 1998; Weady, Shelley, Stein 2022).

    S is the fourth moment of the density of greatest entropy with the second moment D.
    """

    linear_in_strain: ClassVar[bool] = True

    def __call__(
        self, c: Float[Array, "*grid"], z: Complex[Array, "*grid"], eps: Complex[Array, "*grid"]
    ) -> Complex[Array, "*grid"]:
        """a_4 = g(|z|^2/c^2) z^2/c; arguments as for `FourthHarmonicClosure`."""
        rho = (z.real**2 + z.imag**2) / c**2
        return bingham_ratio(rho.astype(real_dtype(z))) * z**2 / c
