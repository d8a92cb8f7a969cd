"""Kernels as arguments: their shapes, symmetry and sign, and times to evaluate at."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ..._base import check_choice, check_nonnegative, is_concrete
from ._filters import Clock
from ._spectral_function import Eigendecomposition


def as_matrix(
    name: str,
    kernel: Array | np.ndarray,
    rows: int | None,
    points: int,
    size: int,
    *,
    like: Array | None = None,
) -> Array:
    """A kernel (n, m, *out, *out) as a matrix over points and outputs; (n, m) stays as it is.

    `like` is the matrix of another kernel that must have the same kind of columns.
    """
    matrix = _as_matrix(name, jnp.asarray(kernel), rows, points, size)
    if like is not None and like.shape[1] != matrix.shape[1]:
        raise ValueError(
            f"`{name}` and the kernel of the training points must both hold outputs, or neither; "
            f"got {matrix.shape[1]} and {like.shape[1]} columns."
        )
    return matrix


def _as_matrix(name: str, kernel: Array, rows: int | None, points: int, size: int) -> Array:
    if kernel.ndim == 2:
        if kernel.shape[1] != points or rows not in (None, kernel.shape[0]):
            raise ValueError(f"`{name}` must have {points} columns, got shape {kernel.shape}.")
        return kernel
    half = (kernel.ndim - 2) // 2
    outputs, outputs2 = kernel.shape[2 : 2 + half], kernel.shape[2 + half :]
    if (
        kernel.ndim % 2
        or outputs != outputs2
        or math.prod(outputs) != size
        or kernel.shape[1] != points
        or rows not in (None, kernel.shape[0])
    ):
        raise ValueError(
            f"`{name}` must have shape (n, {points}), or (n, {points}, *out, *out) for targets of "
            f"{size} outputs, got {kernel.shape}."
        )
    n = kernel.shape[0]
    flat = kernel.reshape(n, points, size, size)
    return jnp.transpose(flat, (0, 2, 1, 3)).reshape(n * size, points * size)


def _check_symmetric(name: str, matrix: Array) -> None:
    if not is_concrete(matrix):
        return
    a = np.asarray(matrix)
    if not np.all(np.isfinite(a)):
        raise ValueError(f"`{name}` must be finite.")
    scale, difference = (np.max(np.abs(v), initial=0.0) for v in (a, a - a.T))
    if difference > 10 * np.sqrt(np.finfo(a.dtype).eps) * scale:
        raise ValueError(
            f"`{name}` must be symmetric, got entries that differ by {difference:.3g} from those "
            f"across the diagonal (largest entry {scale:.3g})."
        )


def _check_semidefinite(name: str, eigenvalues: Array) -> None:
    if not is_concrete(eigenvalues):
        return
    w = np.asarray(eigenvalues)
    if w.size and w[0] < -10 * np.sqrt(np.finfo(w.dtype).eps) * abs(w[-1]):
        raise ValueError(
            f"`{name}` must be positive semidefinite, got a smallest eigenvalue of {w[0]:.3g} "
            f"(largest {w[-1]:.3g})."
        )


def decompose(name: str, kernel: Array | np.ndarray, points: int, size: int) -> Eigendecomposition:
    """Eigenvalues of a kernel (n, n) or (n, n, *out, *out), checked."""
    matrix = as_matrix(name, kernel, points, points, size)
    _check_symmetric(name, matrix)
    spectrum = Eigendecomposition(matrix)
    _check_semidefinite(name, spectrum.eigenvalues)
    return spectrum


def check_time(t: ArrayLike, discrete: bool = False) -> None:
    """Raise for a negative or undefined time, or a fraction of a step; infinity passes."""
    if not is_concrete(t):
        return
    values = np.asarray(t)
    if not np.all(values >= 0):
        raise ValueError(f"`t` must be at least zero, got {t!r}.")
    if discrete and not np.all(values == np.floor(values)):
        raise ValueError(f"`t` must count steps when `discrete=True`, got {t!r}.")
    if discrete and np.any(np.isinf(values)):
        raise ValueError(f"`t` must be finite when `discrete=True`, got {t!r}.")


def targets(y: ArrayLike) -> Array:
    """`y` as a floating array of points."""
    y = jnp.asarray(y)
    if y.ndim < 1:
        raise ValueError(f"`y` must have shape (n, *out), got {y.shape}.")
    if not jnp.issubdtype(y.dtype, jnp.floating):
        y = y.astype(jnp.result_type(float))
    return y


def initial_values(name: str, values: ArrayLike, shape: tuple[int, ...], dtype: Any) -> Array:
    """`values` of the given shape; a scalar stands for all of them."""
    values = jnp.asarray(values, dtype)
    if values.shape not in ((), shape):
        raise ValueError(f"`{name}` must have shape {shape}, got {values.shape}.")
    return jnp.broadcast_to(values, shape)


def learning_rate(lr: ArrayLike, reduction: str, y: Array) -> Array:
    """The rate in front of the gradient of the sum over all outputs."""
    check_choice("reduction", reduction, ("sum", "mean"))
    check_nonnegative("lr", lr)
    return jnp.asarray(lr, y.dtype) / (y.size if reduction == "mean" else 1)


def make_clock(
    spectrum: Eigendecomposition,
    rate: Array,
    ridge: ArrayLike,
    momentum: ArrayLike | None,
    friction: ArrayLike | None,
) -> Callable[[Array], Clock]:
    """`t -> Clock`, everything in the dtype of the kernel."""
    w = spectrum.eigenvalues
    inertia = 0.0 if momentum is friction is None else friction if momentum is None else momentum
    rate, ridge, inertia = (jnp.asarray(v, w.dtype) for v in (rate, ridge, inertia))
    cutoff = w.shape[0] * jnp.finfo(w.dtype).eps * jnp.max(jnp.abs(w), initial=0)
    return lambda t: Clock(t, rate, ridge, inertia, cutoff)


def at_times(fn: Callable[[Array], Any], t: ArrayLike, dtype: Any) -> Any:
    """`fn` at every entry of `t`, the axes of `t` leading."""
    t = jnp.asarray(t, dtype)
    for _ in range(t.ndim):
        fn = jax.vmap(fn)
    return fn(t)
