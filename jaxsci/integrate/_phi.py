"""The phi functions of exponential integrators.

phi_0(z) = exp(z),  phi_{j+1}(z) = (phi_j(z) - 1/j!)/z,  phi_j(0) = 1/j!;
equivalently phi_j(z) = int_0^1 exp((1 - s) z) s^(j-1)/(j-1)! ds for j > 0.
"""

import math
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Inexact

from .._base import check_at_least

# Below this modulus the recurrence upwards would lose digits to cancellation, one factor a step.
_SMALL = {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.5, 5: 2.0, 6: 2.5}
_MAX_ORDER = max(_SMALL)


def phi(order: int, z: Inexact[ArrayLike, "..."]) -> Any:
    """The function phi_order(z), elementwise, for any real or complex z.

    **Arguments:**

    - `order`: 0 to 6.
    - `z`: real or complex array; NumPy in, NumPy out, and JAX otherwise.
    """
    return phi_functions(order, z)[order]


def phi_functions(order: int, z: Inexact[ArrayLike, "..."]) -> tuple[Any, ...]:
    """All of phi_0(z), ..., phi_order(z), elementwise.

    Near zero by the Taylor series of the highest and the recurrence downwards, elsewhere by the
    recurrence upwards from `expm1`: no contour integrals, full accuracy in every precision on the
    negative real and the imaginary axis, finite derivatives everywhere.

    **Arguments:**

    - `order`: 0 to 6.
    - `z`: real or complex array; NumPy in, NumPy out, and JAX otherwise.

    **Returns:**

    A tuple of `order + 1` arrays shaped as `z`.
    """
    check_at_least("order", order, 0)
    if order > _MAX_ORDER:
        raise ValueError(f"`order` must be at most {_MAX_ORDER}, got {order}.")
    xp: ModuleType = np if isinstance(z, np.ndarray | np.generic | float | complex) else jnp
    z = xp.asarray(z)
    if order == 0:
        return (xp.exp(z),)
    radius = _SMALL[order]
    small = xp.abs(z) < radius
    # Both branches are evaluated: each gets an argument at which it and its derivative are finite.
    near = _taylor(xp, xp.where(small, z, 0), order, _num_terms(radius, order, z.dtype))
    far = _upwards(xp, xp.where(small, 1, z), order)
    return (xp.exp(z), *(xp.where(small, a, b) for a, b in zip(near, far)))


def _num_terms(radius, order, dtype):
    eps = np.finfo(dtype).eps / 4
    k = 0
    while radius**k * math.factorial(order) / math.factorial(k + order) > eps:
        k += 1
    return k


def _taylor(xp, z, order, terms):
    """phi_1 .. phi_order from the Taylor series of the last one."""
    value = xp.full_like(z, 1 / math.factorial(terms + order))
    for k in range(terms - 1, -1, -1):
        value = value * z + 1 / math.factorial(k + order)
    values = [value]
    for j in range(order - 1, 0, -1):
        values.append(z * values[-1] + 1 / math.factorial(j))
    return values[::-1]


def _upwards(xp, z, order):
    inverse = 1 / z
    values = [xp.expm1(z) * inverse]
    for j in range(1, order):
        values.append((values[-1] - 1 / math.factorial(j)) * inverse)
    return values
