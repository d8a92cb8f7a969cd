"""Forcing of a flow: a fixed field that is added to its nonlinearity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from .._base import check_finite, NonTrainable
from ..spectral import FourierGrid
from ._equation import like


def fixed_forcing(
    grid: FourierGrid,
    forcing: Float[ArrayLike, "..."] | Callable[..., Array] | None,
    shape: tuple[int, ...],
    transform: Callable[[Array], Array],
) -> NonTrainable | None:
    """Coefficients of a forcing given as a field of `shape`, a function of the coordinates or None.

    As a real array: diffrax warns on complex leaves of a term.
    """
    if forcing is None:
        return None
    field = forcing(*grid.x) if callable(forcing) else jnp.asarray(forcing)
    if jnp.shape(field) != shape:
        raise ValueError(f"`forcing` must have the shape {shape}, got {jnp.shape(field)}.")
    check_finite("forcing", field)
    coefficients = transform(field)
    return NonTrainable(jnp.stack([coefficients.real, coefficients.imag]))


def forced(n: Complex[Array, "..."], forcing: NonTrainable | None) -> Complex[Array, "..."]:
    """A nonlinearity and its forcing."""
    if forcing is None:
        return n
    real, imag = like(forcing.value, n)
    return n + jax.lax.complex(real, imag)
