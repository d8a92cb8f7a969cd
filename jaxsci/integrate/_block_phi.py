"""The phi functions of small dense matrices, many at a time, without their eigenvectors.

phi_0(A) = exp(A), phi_{j+1}(A) = (phi_j(A) - I/j!) A^{-1}, for arrays `(c, c, ...)` of matrices.

c = 2: with m = tr A/2 and B = A - m I is B^2 = q I, and f(A) = f_0 I + f_1 B, where f_0 and f_1 are
functions of m and q alone: entire ones, also where q = 0 and A may have one eigenvector only. Far
from there they are mean and divided difference of f at the eigenvalues m +- sqrt(q).

Larger c: Taylor series of A/2^s and s doublings, phi_k(2 A) = 2^{-k} (phi_0(A) phi_k(A) +
sum_{j=1..k} phi_j(A)/(k - j)!), after Al-Mohy and Higham 2011 and Skaflestad and Wright 2009.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from .._base import complex_dtype, is_complex
from ._phi import phi_functions


def block_phi_functions(order: int, a: Inexact[Array, "c c ..."]) -> tuple[Array, ...]:
    """phi_0(A), ..., phi_order(A) of each matrix A, `(c, c, ...)`; real for real ones."""
    c = a.shape[0]
    if c == 1:
        return phi_functions(order, a)
    if c == 2:
        return _two_by_two(order, a)
    matrices = jnp.moveaxis(a, (0, 1), (-2, -1))
    return tuple(jnp.moveaxis(f, (-2, -1), (0, 1)) for f in _doubling(order, matrices))


# Outside of this disc the recurrence upwards loses few digits, inside the series needs few terms.
_RADIUS = 3.0


def _two_by_two(order, a):
    half = (a[0, 0] - a[1, 1]) / 2
    pairs = _pairs(
        order,
        (a[0, 0] + a[1, 1]) / 2,
        half**2 + a[0, 1] * a[1, 0],
        a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0],
    )
    values = []
    for x, y in pairs:
        rows = [[x + y * half, y * a[0, 1]], [y * a[1, 0], x - y * half]]
        values.append(jnp.stack([jnp.stack(row) for row in rows]))
    return tuple(values)


def _pairs(order, m, q, det):
    """(f_0, f_1) of each phi. Every branch is evaluated, at arguments where it is finite."""
    close = jnp.abs(q) < 0.25
    apart = _from_eigenvalues(
        order, jnp.where(close, 0, m), jnp.where(close, 1, q), jnp.where(close, -1, det)
    )
    q_close, growth = jnp.where(close, q, 0), jnp.exp(jnp.where(close, m, 0))
    exponential = _select(
        close, (growth * _series(q_close, 0), growth * _series(q_close, 1)), apart[0]
    )
    if order == 0:
        return [exponential]
    inner = close & (jnp.abs(m) < _RADIUS)
    outer = (jnp.abs(m) >= _RADIUS) & (jnp.abs(q) <= jnp.abs(m) ** 2 / 16)
    near = _taylor(order, jnp.where(inner, m, 0), jnp.where(inner, q, 0))
    far = _upwards(
        order,
        jnp.where(outer, m, _RADIUS),
        jnp.where(outer, q, 0),
        tuple(jnp.where(outer, x, 1) for x in exponential),
    )
    rest = [_select(inner, x, _select(outer, y, z)) for x, y, z in zip(near, far, apart[1:])]
    return [exponential, *rest]


def _select(condition, pair, other):
    return tuple(jnp.where(condition, x, y) for x, y in zip(pair, other))


def _from_eigenvalues(order, m, q, det):
    """Mean and divided difference of each phi at the eigenvalues."""
    root = jnp.sqrt(q.astype(complex_dtype(q)))
    # The eigenvalue of larger modulus is a sum without cancellation; the product of both is det A.
    root = jnp.where(jnp.real(jnp.conj(m) * root) >= 0, root, -root)
    large = m + root
    small = det / large
    at_large, at_small = phi_functions(order, large), phi_functions(order, small)
    pairs = [((x + y) / 2, (x - y) / (2 * root)) for x, y in zip(at_large, at_small)]
    if is_complex(q):
        return pairs
    return [(x.real, y.real) for x, y in pairs]


def _series(q, shift):
    """cosh(sqrt(q)) (`shift` 0) or sinh(sqrt(q))/sqrt(q) (`shift` 1) for |q| < 1/4."""
    value = jnp.zeros_like(q)
    for k in range(8, -1, -1):
        value = value * q + 1 / math.factorial(2 * k + shift)
    return value


def _taylor(order, m, q):
    """phi_1 .. phi_order as pairs: series of the last, then phi_j = A phi_{j+1} + I/j!."""
    size = _RADIUS + 0.5
    terms, eps = 0, np.finfo(m.dtype).eps / 4
    while size**terms * math.factorial(order) / math.factorial(terms + order) > eps:
        terms += 1

    def horner(pair, constant):
        x, y = pair
        return x * m + y * q + constant, x + y * m

    zero = jnp.zeros_like(m)
    pair = zero + 1 / math.factorial(terms + order), zero
    for k in range(terms - 1, -1, -1):
        pair = horner(pair, 1 / math.factorial(k + order))
    pairs = [pair]
    for j in range(order - 1, 0, -1):
        pairs.append(horner(pairs[-1], 1 / math.factorial(j)))
    return pairs[::-1]


def _upwards(order, m, q, exponential):
    """phi_1 .. phi_order as pairs, from A^{-1} = (m I - B)/(m^2 - q)."""
    inverse = 1 / (m**2 - q)
    pairs = [exponential]
    for j in range(order):
        x, y = pairs[-1]
        x = x - 1 / math.factorial(j)
        pairs.append(((x * m - y * q) * inverse, (y * m - x) * inverse))
    return pairs[1:]


_MAX_DOUBLINGS = 48
_dot = partial(jnp.matmul, precision="highest")


def _doubling(order, a):
    """phi_0(A) .. phi_order(A) of matrices `(..., c, c)` of norm below 2^47, NaN beyond."""
    a, undo = _balance(a)
    c = a.shape[-1]
    eye = jnp.eye(c, dtype=a.dtype)
    norm = jnp.max(jnp.sum(jnp.abs(jax.lax.stop_gradient(a)), axis=-1), axis=-1)
    _, exponent = jnp.frexp(2 * norm)
    doublings = jnp.clip(exponent, 0, _MAX_DOUBLINGS)
    factor = jnp.where(exponent > _MAX_DOUBLINGS, jnp.nan, _power_of_two(-doublings, norm))
    small = a * factor[..., None, None]
    terms, eps = 0, np.finfo(a.dtype).eps / 4
    while 0.5**terms * math.factorial(order) / math.factorial(terms + order) > eps:
        terms += 1
    value = eye / math.factorial(terms + order) + jnp.zeros_like(a)
    for k in range(terms - 1, -1, -1):
        value = _dot(value, small) + eye / math.factorial(k + order)
    values = [value]
    for j in range(order - 1, -1, -1):
        values.append(_dot(small, values[-1]) + eye / math.factorial(j))

    def double(values, index):
        first = values[0]
        doubled = [_dot(first, first)]
        for k in range(1, order + 1):
            total = _dot(first, values[k])
            for j in range(1, k + 1):
                total = total + values[j] / math.factorial(k - j)
            doubled.append(total / 2**k)
        # The idle turns come first, where nothing can overflow.
        active = (index >= _MAX_DOUBLINGS - doublings)[..., None, None]
        return tuple(jnp.where(active, new, old) for new, old in zip(doubled, values)), None

    values, _ = jax.lax.scan(double, tuple(values[::-1]), jnp.arange(_MAX_DOUBLINGS))
    return [undo(v) for v in values]


def _balance(a):
    """A similar by powers of two whose rows and columns are of like size; and the way back.

    Equations of second order in time have blocks of entries 1 and -k^2, of a norm far above their
    spectral radius.
    """
    c = a.shape[-1]
    size = jnp.abs(jax.lax.stop_gradient(a)) * (1 - jnp.eye(c, dtype=jnp.abs(a).dtype))
    scale = jnp.zeros(size.shape[:-1], jnp.int32)
    for _ in range(4):
        for i in range(c):
            s = size * _power_of_two(scale[..., None, :] - scale[..., :, None], size)
            row, column = jnp.sum(s[..., i, :], axis=-1), jnp.sum(s[..., :, i], axis=-1)
            usable = (row > 0) & (column > 0)
            ratio = jnp.where(usable, row, 1) / jnp.where(usable, column, 1)
            scale = scale.at[..., i].add(jnp.round(jnp.log2(ratio) / 2).astype(jnp.int32))
    up, down = _power_of_two(scale, size), _power_of_two(-scale, size)

    def undo(x):
        return x * up[..., :, None] * down[..., None, :]

    return a * down[..., :, None] * up[..., None, :], undo


def _power_of_two(exponent, like):
    """2^exponent, exactly."""
    return jnp.ldexp(jnp.ones((), like.dtype), exponent)
