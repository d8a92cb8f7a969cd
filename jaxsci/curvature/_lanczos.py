"""Lanczos on pytrees, and what it gives: extremal eigenvalues, spectral sums and densities.

From a unit vector q_1 a symmetric A gives, with k products,

    A q_j = beta_{j-1} q_{j-1} + alpha_j q_j + beta_j q_{j+1},

so that T = tridiag(beta, alpha, beta) = Q^T A Q. Its eigenpairs (theta_i, U) are the Ritz values;
with the weights tau_i = U_{1i}^2 they are the Gauss quadrature of the spectral measure of q_1:

    q_1^T f(A) q_1 = sum_i tau_i f(theta_i),   exact for polynomials f of degree <= 2k - 1.

Each new vector is orthogonalised twice against the whole basis. Without that, rounding brings
converged eigenvectors back, and T shows copies of eigenvalues that A has once.

Golub and Meurant 2010, "Matrices, moments and quadrature"; Ubaru, Chen and Saad 2017, "Fast
estimation of tr(f(A)) via stochastic Lanczos quadrature".
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Float, Int, Key, PyTree

from jaxsci._base import at_least_float32, check_at_least, check_positive, is_concrete

from ._operators import check_symmetric
from ._probes import average_over_probes, rademacher_like

_HIGHEST = jax.lax.Precision.HIGHEST


class Tridiagonal(eqx.Module):
    """The result of k Lanczos steps: A restricted to a Krylov space."""

    alpha: Float[Array, " k"]
    """The diagonal of T; zero past `num_valid`."""
    beta: Float[Array, " k_minus_1"]
    """The off-diagonal of T; zero from `num_valid - 1` on."""
    basis: PyTree
    """The orthonormal vectors, leaves `(k, *leaf)`; zero past `num_valid`."""
    num_valid: Int[Array, ""]
    """How many steps were made before the Krylov space was exhausted."""
    residual_norm: Float[Array, ""]
    """The norm of the part of the last A q that lies outside the basis, beta_k."""

    def ritz(self) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
        """The Ritz values in ascending order, and the eigenvectors of T as columns.

        The last `k - num_valid` values repeat the largest one and have zero columns, so that the
        ends and every weighted sum are right without a mask.
        """
        k, dtype = self.alpha.shape[0], self.alpha.dtype
        index = jnp.arange(k)
        valid = index < self.num_valid
        # Steps that were not made get distinct values above the spectrum: they sort last, and no
        # two eigenvalues meet, where the derivative of `eigh` has poles.
        largest = jnp.max(jnp.abs(self.alpha)) + 2 * jnp.max(jnp.abs(self.beta), initial=0)
        above = jnp.where(largest > 0, largest, 1) * (2 + index / k).astype(dtype)
        diagonal = jnp.where(valid, self.alpha, above)
        matrix = jnp.diag(diagonal) + jnp.diag(self.beta, 1) + jnp.diag(self.beta, -1)
        values, vectors = jnp.linalg.eigh(matrix)
        last = jnp.take(values, self.num_valid - 1)
        return jnp.where(valid, values, last), jnp.where(valid, vectors, 0)

    def quadrature(self) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """The nodes (Ritz values) and weights of the Gauss quadrature of the starting vector."""
        values, vectors = self.ritz()
        return values, jnp.square(vectors[0])

    def combine(self, coefficients: Float[Array, " k"]) -> PyTree:
        """The vector with these coefficients in the basis."""
        return jax.tree.map(lambda q: _combination(coefficients, q), self.basis)


def _dot(x: Array, y: Array, dtype: Any) -> Array:
    return jnp.sum(x.astype(dtype) * y.astype(dtype))


def _inner(x: PyTree, y: PyTree, dtype: Any) -> Array:
    products = jax.tree.map(lambda a, b: _dot(a, b, dtype), x, y)
    return sum(jax.tree.leaves(products), jnp.zeros((), dtype))


def _coefficients(basis: PyTree, w: PyTree) -> Array:
    """Q^T w, replicated whatever the layout of the leaves."""

    def one(q, x):
        axes = tuple(range(x.ndim))
        sharding = jax.typeof(x).sharding
        whole = None
        if any(axis is not None for axis in sharding.spec):
            whole = NamedSharding(sharding.mesh, PartitionSpec(None))
        dims = ((tuple(a + 1 for a in axes), axes), ((), ()))
        return jax.lax.dot_general(q, x, dims, precision=_HIGHEST, out_sharding=whole)

    return functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(one, basis, w)))


def _combination(c: Array, q: Array) -> Array:
    return jax.lax.dot_general(c.astype(q.dtype), q, (((0,), (0,)), ((), ())), precision=_HIGHEST)


def _product_of(
    operator: lx.AbstractLinearOperator | Callable[[PyTree], PyTree],
) -> Callable[[PyTree], PyTree]:
    if isinstance(operator, lx.AbstractLinearOperator):
        check_symmetric("op", operator)
        return operator.mv
    return operator


def lanczos(
    op: lx.AbstractLinearOperator | Callable[[PyTree], PyTree],
    v0: PyTree,
    num_steps: int,
    reorthogonalize: bool = True,
    *,
    tol: ArrayLike | None = None,
) -> Tridiagonal:
    """Tridiagonalise a symmetric operator on the Krylov space of `v0`.

    **Arguments:**

    - `op`: a symmetric lineax operator, or a function `v -> A v` that is symmetric.
    - `v0`: the starting vector, a pytree of real floating arrays; normalised here.
    - `num_steps`: k, from 1 to the number of entries of `v0`; one product each. The basis takes
        the memory of k vectors.
    - `reorthogonalize`: orthogonalise each vector twice against all before it. `False` gives the
        bare three-term recurrence, whose T has spurious copies of converged eigenvalues.
    - `tol`: the Krylov space counts as exhausted where beta_j is at most `tol` times the largest
        entry of T so far; `None` is a hundred units of rounding.

    **Returns:**

    A [`Tridiagonal`][jaxsci.curvature.Tridiagonal], in the dtypes of `v0` and at least float32.

    **Raises:**

    `ValueError` if `op` is not symmetric, `num_steps` is out of range or `v0` is zero; `TypeError`
    if a leaf of `v0` is not a real floating array.
    """
    product = _product_of(op)
    v0 = jax.tree.map(jnp.asarray, v0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(v0):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"`v0` must have real floating leaves, got {leaf.dtype} at "
                f"{jax.tree_util.keystr(path)!r}."
            )
    size = sum(x.size for x in jax.tree.leaves(v0))
    check_at_least("num_steps", num_steps, 1)
    if num_steps > size:
        raise ValueError(
            f"`num_steps` must be at most the number of entries of `v0`, {size}, got {num_steps}."
        )
    types = jax.tree.map(lambda x: x.dtype, v0)
    dtype = jnp.result_type(*map(at_least_float32, jax.tree.leaves(v0)))
    q = jax.tree.map(lambda x: x.astype(at_least_float32(x)), v0)
    norm = jnp.sqrt(_inner(q, q, dtype))
    if is_concrete(norm) and not norm > 0:
        raise ValueError(f"`v0` must be a non-zero, finite vector, got one of norm {norm}.")
    threshold = 100 * jnp.finfo(dtype).eps if tol is None else tol

    def matvec(x):
        image = product(jax.tree.map(lambda a, t: a.astype(t), x, types))
        return jax.tree.map(lambda a, b: a.astype(b.dtype), image, x)

    def scaled(x, factor):
        return jax.tree.map(lambda a: a * factor.astype(a.dtype), x)

    def step(carry, j):
        q, previous, beta, scale, alive, basis = carry
        basis = jax.tree.map(lambda b, x: b.at[j].set(x), basis, q)
        w = matvec(q)
        alpha = _inner(q, w, dtype)
        w = jax.tree.map(
            lambda a, x, y: a - alpha.astype(a.dtype) * x - beta.astype(a.dtype) * y,
            w,
            q,
            previous,
        )
        if reorthogonalize:
            for _ in range(2):
                c = _coefficients(basis, w)
                w = jax.tree.map(lambda a, b, c=c: a - _combination(c, b), w, basis)
        square = _inner(w, w, dtype)
        norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        scale = jnp.maximum(scale, jnp.maximum(jnp.abs(alpha), beta))
        # Comparing so that a NaN goes on, and shows.
        exhausted = norm <= threshold * scale
        go_on = alive & ~exhausted
        inverse = jnp.where(go_on, 1 / jnp.where(go_on, norm, 1), 0)
        new_beta = jnp.where(go_on, norm, 0)
        out = (jnp.where(alive, alpha, 0), new_beta, alive, jnp.where(alive, norm, 0))
        return (scaled(w, inverse), q, new_beta, scale, go_on, basis), out

    first = scaled(q, 1 / norm)
    zero = jnp.zeros((), dtype)
    basis = jax.tree.map(
        lambda x: jnp.broadcast_to(jnp.zeros_like(x), (num_steps, *x.shape)), first
    )
    carry = (first, jax.tree.map(jnp.zeros_like, first), zero, zero, jnp.array(True), basis)
    carry, (alpha, beta, valid, norms) = jax.lax.scan(step, carry, jnp.arange(num_steps))
    num_valid = jnp.sum(valid.astype(jnp.int32))
    return Tridiagonal(alpha, beta[:-1], carry[-1], num_valid, jnp.take(norms, num_valid - 1))


class ExtremalEigs(NamedTuple):
    """Both ends of a spectrum, by Lanczos."""

    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    smallest_vector: PyTree
    largest_vector: PyTree
    smallest_residual: Float[Array, ""]
    """The norm of A v - theta v: some eigenvalue lies within it of `smallest`."""
    largest_residual: Float[Array, ""]
    """As `smallest_residual`, for `largest`."""


def extremal_eigs(
    op: lx.AbstractLinearOperator, key: Key[Array, ""], num_steps: int
) -> ExtremalEigs:
    """The smallest and the largest eigenvalue of a symmetric operator, with unit eigenvectors.

    Ritz values approach the ends from inside: `largest` never exceeds the largest eigenvalue, but
    for rounding.

    **Arguments:**

    - `op`: a symmetric lineax operator.
    - `key`: a typed key, for the random starting vector.
    - `num_steps`: the number of Lanczos steps, one product each.

    **Returns:**

    An [`ExtremalEigs`][jaxsci.curvature.ExtremalEigs].

    **Raises:**

    As [`lanczos`][jaxsci.curvature.lanczos].
    """
    t = lanczos(op, _gaussian_like(key, op.in_structure()), num_steps)
    values, vectors = t.ritz()
    bottom, top = vectors[:, 0], jnp.take(vectors, t.num_valid - 1, axis=1)

    def residual(column):
        return t.residual_norm * jnp.abs(jnp.take(column, t.num_valid - 1))

    return ExtremalEigs(
        values[0], values[-1], t.combine(bottom), t.combine(top), residual(bottom), residual(top)
    )


def _gaussian_like(key: Key[Array, ""], structure: PyTree) -> PyTree:
    leaves, treedef = jax.tree.flatten(structure)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten(
        [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    )


def slq(
    op: lx.AbstractLinearOperator,
    f: Callable[[Array], Array],
    key: Key[Array, ""],
    num_probes: int,
    num_steps: int,
) -> Float[Array, ""]:
    """tr f(A) of a symmetric operator, by stochastic Lanczos quadrature.

    The probes are those of [`hutchinson_trace`][jaxsci.curvature.hutchinson_trace] with the same
    key: for f the identity both return the same number.

    **Arguments:**

    - `op`: a symmetric lineax operator.
    - `f`: the function, applied to an array of Ritz values entry by entry, such as `jnp.log` for
        the logarithm of the determinant.
    - `key`: a typed key.
    - `num_probes`: the number of random probes, run one after the other.
    - `num_steps`: Lanczos steps a probe; exact in the probe for polynomials of degree
        `2 num_steps - 1`.

    **Returns:**

    A scalar, in the dtype of the products and at least float32.

    **Raises:**

    `ValueError` if `num_probes < 1`, and as [`lanczos`][jaxsci.curvature.lanczos].
    """
    check_at_least("num_probes", num_probes, 1)
    structure = op.in_structure()
    size = _size(structure)
    dtype = jnp.result_type(*map(at_least_float32, jax.tree.leaves(structure)))

    def sample(k):
        nodes, weights = lanczos(op, rademacher_like(k, structure), num_steps).quadrature()
        # f may be infinite at a node without weight.
        terms = jnp.where(weights > 0, weights * f(nodes), 0)
        return (size * jnp.sum(terms)).astype(dtype)

    return average_over_probes(sample, jnp.zeros((), dtype), key, num_probes)


def _size(structure: PyTree) -> int:
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(structure))


class SpectralDensity(eqx.Module):
    """The density of the eigenvalues of an operator, as a sum of Gaussians; it integrates to 1."""

    grid: Float[Array, " n"]
    """Where `values` holds the density."""
    values: Float[Array, " n"]
    """The density on `grid`."""
    ritz_values: Float[Array, "probes k"]
    """The quadrature nodes of each probe."""
    ritz_weights: Float[Array, "probes k"]
    """Their weights; each row sums to one."""
    width: Float[Array, ""]
    """The standard deviation of the Gaussians."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The density at `x`."""
        return _smoothed(self.ritz_values, self.ritz_weights, self.width, x)

    def mean(self, f: Callable[[Array], Array]) -> Float[Array, ""]:
        """The mean of f(eigenvalue), without smoothing: tr f(A) / P."""
        terms = jnp.where(self.ritz_weights > 0, self.ritz_weights * f(self.ritz_values), 0)
        return jnp.sum(terms) / self.ritz_values.shape[0]


def _smoothed(nodes: Array, weights: Array, width: Array, x: Array) -> Array:
    z = (x[..., None, None] - nodes) / width
    peaks = jnp.exp(-jnp.square(z) / 2) / (width * (2 * np.pi) ** 0.5)
    return jnp.sum(weights * peaks, axis=(-2, -1)) / nodes.shape[0]


def spectral_density(
    op: lx.AbstractLinearOperator,
    key: Key[Array, ""],
    num_probes: int = 1,
    num_steps: int = 64,
    *,
    width: ArrayLike | None = None,
    grid: ArrayLike | None = None,
    num_points: int = 1024,
) -> SpectralDensity:
    """The spectral density of a symmetric operator, by stochastic Lanczos quadrature.

    **Arguments:**

    - `op`: a symmetric lineax operator.
    - `key`: a typed key; the probes are Rademacher vectors.
    - `num_probes`: the number of probes; one is enough for a large operator.
    - `num_steps`: Lanczos steps a probe, reduced to the size of a smaller operator.
    - `width`: the standard deviation of the Gaussian put on each Ritz value; `None` is a hundredth
        of the range of the Ritz values.
    - `grid`: where to evaluate; `None` takes `num_points` equally spaced points, from five widths
        below the smallest Ritz value to five widths above the largest.
    - `num_points`: the number of points of that grid.

    **Returns:**

    A [`SpectralDensity`][jaxsci.curvature.SpectralDensity].

    **Raises:**

    `ValueError` if a count is below one or `width` is not positive, and as
    [`lanczos`][jaxsci.curvature.lanczos].
    """
    for name, count in (("num_probes", num_probes), ("num_points", num_points)):
        check_at_least(name, count, 1)
    if width is not None:
        check_positive("width", width)
    structure = op.in_structure()
    steps = min(num_steps, _size(structure))

    def sample(k):
        return lanczos(op, rademacher_like(k, structure), steps).quadrature()

    nodes, weights = jax.lax.map(sample, jax.random.split(key, num_probes))
    low, high = jnp.min(nodes), jnp.max(nodes)
    if width is None:
        spread = jnp.maximum(high - low, 1e-3 * jnp.maximum(jnp.abs(high), jnp.abs(low)))
        width = jnp.where(spread > 0, spread, 1) / 100
    width = jnp.asarray(width, nodes.dtype)
    if grid is None:
        unit = jnp.linspace(0, 1, num_points, dtype=nodes.dtype)
        grid = (low - 5 * width) + unit * (high - low + 10 * width)
    grid = jnp.asarray(grid, nodes.dtype)
    return SpectralDensity(grid, _smoothed(nodes, weights, width, grid), nodes, weights, width)
