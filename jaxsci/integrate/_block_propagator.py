"""`BlockPropagator`: a linear part that couples a few components at each wave number."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Inexact, PyTree

from .._base import complex_dtype, is_complex, real_dtype
from ._block_phi import block_phi_functions
from ._propagator import AbstractPropagator, pytree_function


class BlockPropagator(AbstractPropagator):
    """A constant L that is a small dense matrix at each point (wave number) of the state.

    (L u)_i = sum_j L_ij u_j, for states `(c, *space)`: first-order systems of wave equations,
    reaction-diffusion systems with linear coupling. Blocks may be real or complex, not normal, and
    without a basis of eigenvectors. Coefficients are as accurate as their conditioning allows for
    c = 2: relative to their largest entry, rounding of the eigenvalues of h L. For c > 2 they lose
    up to a factor ||h L||, which matters for slow modes beside very stiff ones. Derivatives are
    finite everywhere. With float64 enabled the coefficients of a single-precision L are computed in
    double precision.

    **Arguments:**

    - `symbol`: the blocks, `(c, c, *space)`, whose space part broadcasts to that of the state. Or a
        function without arguments that returns them: then nothing derived is stored, and
        derivatives reach the parameters that the function holds (pass a bound method of an
        `equinox.Module`).

    **Raises:** `ValueError` if the blocks are not square or do not fit the state.
    """

    symbol: PyTree[Array] | Callable[[], Inexact[Array, "..."]]

    def __init__(self, symbol: Inexact[ArrayLike, "..."] | Callable[[], Inexact[ArrayLike, "..."]]):
        if callable(symbol):
            self.symbol = pytree_function("symbol", symbol)
        else:
            self.symbol = _checked(jnp.asarray(symbol))

    @property
    def constant(self) -> bool:
        """True."""
        return True

    @property
    def blocks(self) -> Inexact[Array, "c c ..."]:
        """The blocks of L."""
        return _checked(jnp.asarray(self.symbol())) if callable(self.symbol) else self.symbol

    def propagate(self, t0, t1):
        """exp(h L), h = t1 - t0."""
        return self._functions(t0, t1, 0)[0]

    def moments(self, t0, t1, num):
        """M_k = h^(k+1) phi_{k+1}(h L)."""
        return self._functions(t0, t1, num)[1:]

    def _functions(self, t0, t1, order):
        """exp(h L) and the moments up to M_{order-1}."""
        blocks = self.blocks
        wide = jax.dtypes.canonicalize_dtype(jnp.float64)
        h = jnp.asarray(t1 - t0, wide)
        values = block_phi_functions(order, h * _cast(blocks, wide))
        return tuple(_cast(h**k * f, real_dtype(blocks)) for k, f in enumerate(values))

    def act(self, coefficient, u):
        """Multiply the vector at each point by its matrix."""
        coefficient = _aligned(coefficient, u)
        return jnp.sum(coefficient * u[None], axis=1)

    def apply(self, t, u):
        """L u."""
        return self.act(_cast(self.blocks, real_dtype(u)), u)

    def solve(self, t, a, rhs):
        """(I - a L)^{-1} rhs."""
        blocks = _aligned(_cast(self.blocks, real_dtype(rhs)), rhs)
        c = len(blocks)
        eye = jnp.eye(c, dtype=blocks.dtype).reshape(c, c, *(1,) * (blocks.ndim - 2))
        matrix = eye - jnp.asarray(a, real_dtype(rhs)) * blocks
        if c == 1:
            return rhs / matrix[0]
        if c == 2:
            (p, q), (r, s) = matrix
            x, y = rhs
            return jnp.stack([s * x - q * y, p * y - r * x]) / (p * s - q * r)
        matrix = jnp.moveaxis(matrix, (0, 1), (-2, -1))
        return jnp.moveaxis(
            jnp.linalg.solve(matrix, jnp.moveaxis(rhs, 0, -1)[..., None])[..., 0], -1, 0
        )


def _cast(x, precision):
    return x.astype(complex_dtype(precision) if is_complex(x) else precision)


def _checked(blocks):
    if blocks.ndim < 2 or blocks.shape[0] != blocks.shape[1] or not blocks.shape[0]:
        raise ValueError(
            f"`symbol` must consist of square blocks, shape (c, c, *space), got {blocks.shape}."
        )
    if not jnp.issubdtype(blocks.dtype, jnp.inexact):
        return blocks.astype(real_dtype(blocks))
    return blocks


def _aligned(blocks, u):
    """Blocks with as many space axes as the state."""
    c, space = blocks.shape[0], blocks.shape[2:]
    if not isinstance(u, jax.Array | np.ndarray) or u.ndim == 0:
        raise ValueError(f"`BlockPropagator` acts on one array ({c}, *space), got {u!r}.")
    tail = u.shape[max(u.ndim - len(space), 1) :]
    fits = u.shape[0] == c and len(space) < u.ndim
    if not fits or any(a not in (1, b) for a, b in zip(space, tail)):
        raise ValueError(
            f"`symbol` of shape {blocks.shape} needs a state ({c}, *space) to whose space axes it "
            f"broadcasts, got {u.shape}."
        )
    return blocks.reshape(c, c, *(1,) * (u.ndim - 1 - len(space)), *space)
