"""The inverse of an empirical Fisher matrix, matrix-free, from a window of gradients.

With the rows g_i of G the last m gradients of d numbers each,

    F = lambda I + G^T G / m,    K = G G^T + m lambda I  (m x m),

    F^-1 x    = (x - G^T K^-1 G x) / lambda      for any x (Woodbury),
    F^-1 G^T a = m G^T K^-1 a                    for x a combination of the rows.

The second form subtracts nothing and divides by nothing small: as long as the rows are well apart
it keeps all digits in float32 however small lambda is, where the first loses a factor
|x|^2 / (m lambda) of them. Rows that are equal up to rounding are treated apart.

Frantar, Kurtic and Alistarh 2021, "M-FAC: efficient matrix-free approximations of second-order
information" (arXiv:2107.03356). The paper's recursions give the same operators.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from jaxsci._base import (
    check_at_least,
    check_choice,
    check_positive,
    check_real_leaves,
    is_concrete,
)

from ._symmetric_operator import AbstractSymmetricOperator

_HIGHEST = jax.lax.Precision.HIGHEST


class GradientWindowState(NamedTuple):
    """The last gradients and their inner products: arrays only, for every checkpointer."""

    rows: PyTree  # leaves (capacity, *shape of the parameter): a ring buffer, zero where unwritten
    gram: Float[Array, "capacity capacity"]  # inner products of the rows
    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]  # accepted gradients
    damping: Float[Array, ""]
    total: Float[Array, ""]  # the m that the sum of outer products is divided by
    rejected: Bool[Array, ""]  # whether the last gradient was not finite and left out

    @property
    def latest(self) -> Int[Array, ""]:
        """The row of the last accepted gradient."""
        return (self.count - 1) % self.gram.shape[0]


def _check_like(name: str, tree: PyTree, shapes: PyTree) -> None:
    if jax.tree.structure(tree) != jax.tree.structure(shapes):
        raise ValueError(
            f"`{name}` must have the structure {jax.tree.structure(shapes)}, got "
            f"{jax.tree.structure(tree)}."
        )
    for (path, x), like in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(shapes), strict=True
    ):
        if jnp.shape(x) != like.shape:
            raise ValueError(
                f"`{name}` must have shape {like.shape} at {jax.tree_util.keystr(path)!r}, got "
                f"{jnp.shape(x)}."
            )


def _wide_dtype(rows: PyTree) -> np.dtype:
    """The dtype of inner products: that of the widest leaf, at least float32."""
    return np.dtype(jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(rows))))


def _row_shapes(rows: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda r: jax.ShapeDtypeStruct(r.shape[1:], dtype), rows)


def _inner(rows: Array, x: Array, dtype: Any) -> Array:
    """Inner products of every row with x, of shape (m,), without reshaping a sharded leaf."""
    if rows.dtype != x.dtype:
        rows, x = rows.astype(dtype), x.astype(dtype)
    axes = tuple(range(x.ndim))
    # On an explicit mesh a contraction of sharded axes has to say that its result is summed.
    sharding = jax.typeof(rows).sharding
    whole = None
    if any(axis is not None for axis in sharding.spec):
        whole = NamedSharding(sharding.mesh, PartitionSpec(None))
    return jax.lax.dot_general(
        rows,
        x,
        ((tuple(a + 1 for a in axes), axes), ((), ())),
        precision=_HIGHEST,
        preferred_element_type=dtype,
        out_sharding=whole,
    )


def _inner_tree(rows: PyTree, x: PyTree, dtype: Any) -> Array:
    parts = jax.tree.map(lambda r, v: _inner(r, jnp.asarray(v), dtype), rows, x)
    return sum(jax.tree.leaves(parts), start=jnp.zeros((), dtype))


def _combine(weights: Array, rows: Array) -> Array:
    """Combinations of the rows with the weights of shape (..., m)."""
    return jnp.tensordot(weights, rows.astype(weights.dtype), 1, precision=_HIGHEST)


def _zero_rows(p: Any, capacity: int, dtype: DTypeLike | None) -> Array:
    dtype = p.dtype if dtype is None else dtype
    shape = (capacity, *jnp.shape(p))
    if is_concrete(p) and isinstance(getattr(p, "sharding", None), NamedSharding):
        spec = PartitionSpec(None, *p.sharding.spec)
        return jnp.zeros(shape, dtype, device=NamedSharding(p.sharding.mesh, spec))
    return jnp.broadcast_to(jnp.zeros_like(p, dtype=dtype), shape)


@jax.jit
def robust_cholesky(matrix: Float[Array, "... n n"]) -> Float[Array, "... n n"]:
    """The Cholesky factor, of a slightly larger matrix where rounding has left it indefinite."""
    factor = jnp.linalg.cholesky(matrix)
    n = matrix.shape[-1]

    def repaired():
        # Relative to its own diagonal, the smallest shift that rounding cannot undo.
        shift = 8 * n * float(jnp.finfo(matrix.dtype).eps)
        again = jnp.linalg.cholesky(matrix * (1 + shift * jnp.eye(n, dtype=matrix.dtype)))
        good = jnp.all(jnp.isfinite(factor), axis=(-2, -1), keepdims=True)
        return jnp.where(good, factor, again)

    return jax.lax.cond(jnp.all(jnp.isfinite(factor)), lambda: factor, repaired)


# Compiled once a shape: outside `jax.jit`, a `cond` would be compiled at every call.
@jax.jit
def _resolved_cholesky(gram: Float[Array, "m m"], shift: Float[Array, ""]) -> Float[Array, "m m"]:
    """The Cholesky factor of gram + shift I, robust to rows that are equal up to rounding.

    Equal gradients leave eigenvalues that are all damping. Their eigenvectors combine the rows to
    zero, but to a zero made of rounding errors, which a small damping would blow up: there the
    eigenvalue, which multiplies nothing, is replaced by a large one.
    """
    m, eps = gram.shape[0], float(jnp.finfo(gram.dtype).eps)
    matrix = gram + shift * jnp.eye(m, dtype=gram.dtype)
    scale = jnp.diagonal(matrix)
    factor = jnp.linalg.cholesky(matrix)
    tolerance = min(256 * m * eps, 1e-2)
    unresolved = jnp.diagonal(factor) ** 2 - shift < 4 * m**0.5 * eps * scale
    dependent = jnp.any(unresolved & (shift < tolerance * scale))

    def repaired():
        root = jnp.sqrt(scale)
        values, vectors = jnp.linalg.eigh(matrix / (root[:, None] * root))
        values = jnp.where(values > tolerance, values, 1)
        unit = jnp.matmul(vectors * values, vectors.T, precision=_HIGHEST)
        return root[:, None] * jnp.linalg.cholesky(unit)

    broken = dependent | ~jnp.all(jnp.isfinite(factor))
    return jax.lax.cond(broken, repaired, lambda: factor)


class GradientWindow(eqx.Module):
    """A window of the last gradients (Frantar et al. 2021, arXiv:2107.03356).

    ```python
    window = GradientWindow(capacity=64, damping=1e-4)
    state = window.init(params)
    state = window.push(state, grads)
    direction = EmpiricalFisherInverse(state).apply_to_row(state.latest)
    ```

    The window keeps the tree, the shapes and the shardings of the parameters: one axis of length
    `capacity` in front of each leaf, so `capacity` times the memory of the parameters. A push
    costs one inner product with every row; over sharded parameters it sums `capacity` numbers
    across devices and moves nothing else.

    **Arguments:**

    - `capacity`: number m of gradients kept.
    - `damping`: lambda > 0, added to the diagonal of the Fisher matrix.
    - `normalize`: what the sum of outer products is divided by: "capacity", or "filled", the
        number of rows written so far. They differ until the window is full: with "capacity", as in
        the authors' code, the first steps see a small Fisher matrix.
    - `dtype`: dtype of the stored rows, e.g. `jnp.bfloat16` for half the memory. `None`: that of
        each parameter. Inner products are in at least float32, of the rows as stored.
    """

    capacity: int = eqx.field(static=True)
    damping: ArrayLike
    normalize: Literal["capacity", "filled"] = eqx.field(static=True, default="capacity")
    dtype: Any = eqx.field(static=True, default=None)

    def __check_init__(self):
        if isinstance(self.capacity, bool) or not isinstance(self.capacity, (int, np.integer)):
            raise TypeError(
                f"`capacity` must be a Python integer, got {type(self.capacity).__name__}; under "
                "`optax.inject_hyperparams` name it in `static_args`."
            )
        check_at_least("capacity", self.capacity, 1)
        check_positive("damping", self.damping)
        check_choice("normalize", self.normalize, ("capacity", "filled"))
        if self.dtype is not None and not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(f"`dtype` must be real floating, got {np.dtype(self.dtype)}.")

    def _total(self, count: Array, dtype: Any) -> Array:
        if self.normalize == "capacity":
            return jnp.asarray(self.capacity, dtype)
        return jnp.clip(count, 1, self.capacity).astype(dtype)

    def init(self, params: PyTree) -> GradientWindowState:
        """An empty window.

        **Arguments:**

        - `params`: pytree of real floating arrays, or their shapes.

        **Raises:**

        `TypeError` for a leaf that is not real floating.
        """
        check_real_leaves("params", params)
        rows = jax.tree.map(lambda p: _zero_rows(p, self.capacity, self.dtype), params)
        dtype = _wide_dtype(params)
        count = jnp.zeros((), jnp.int32)
        return GradientWindowState(
            rows=rows,
            gram=jnp.zeros((self.capacity, self.capacity), dtype),
            count=count,
            damping=jnp.asarray(self.damping, dtype),
            total=self._total(count, dtype),
            rejected=jnp.asarray(False),
        )

    def push(self, state: GradientWindowState, g: PyTree) -> GradientWindowState:
        """The window with `g` in place of its oldest row.

        A gradient with a non-finite entry, or whose squared norm overflows, is left out: the window
        stays and `rejected` is true.

        **Arguments:**

        - `state`: the window so far.
        - `g`: a gradient, like the parameters.

        **Raises:**

        `ValueError` if `g` has another structure or other shapes than the window,
        `TypeError` for a leaf that is not real floating.
        """
        dtype = state.gram.dtype
        check_real_leaves("g", g)
        _check_like("g", g, _row_shapes(state.rows, dtype))
        slot = state.count % self.capacity
        at = lambda rows: jax.lax.dynamic_index_in_dim(rows, slot, 0, keepdims=False)
        put = lambda rows, x: jax.lax.dynamic_update_index_in_dim(rows, x, slot, 0)

        stored = jax.tree.map(lambda x, r: jnp.asarray(x).astype(r.dtype), g, state.rows)
        squares = jax.tree.map(lambda x: jnp.sum(jnp.square(x.astype(dtype))), stored)
        fit = jnp.isfinite(sum(jax.tree.leaves(squares), start=jnp.zeros((), dtype)))
        # An unfit row gives way to the old one here, and not in a choice between two windows or two
        # writes: only a single write of a single row happens in place.
        rows = jax.tree.map(lambda r, x: put(r, jnp.where(fit, x, at(r))), state.rows, stored)
        products = _inner_tree(rows, stored, dtype)
        gram = state.gram.at[slot, :].set(products).at[:, slot].set(products)
        count = state.count + fit.astype(jnp.int32)
        return GradientWindowState(
            rows=rows,
            gram=jnp.where(fit, gram, state.gram),
            count=count,
            damping=jnp.asarray(self.damping, dtype),
            total=self._total(count, dtype),
            rejected=~fit,
        )


class EmpiricalFisherInverse(AbstractSymmetricOperator):
    """The operator (lambda I + G^T G / m)^-1 of a window of gradients, symmetric and positive.

    Costs of a product are those of two passes over the window; nothing of size d x d is formed.
    `apply_to_row` and `combination` keep full float32 accuracy for small damping; use them where
    the vector is a row or a combination of rows.

    **Arguments:**

    - `state`: a `GradientWindowState`; for a stack of gradients see `from_gradients`.
    """

    rows: PyTree
    factor: Float[Array, "m m"]  # lower Cholesky factor of K
    damping: Float[Array, ""]
    total: Float[Array, ""]
    positive: ClassVar[bool] = True

    def __init__(self, state: GradientWindowState):
        self.rows = state.rows
        self.factor = _resolved_cholesky(state.gram, state.total * state.damping)
        self.damping = state.damping
        self.total = state.total

    @staticmethod
    def from_gradients(
        grads_stack: PyTree, damping: ArrayLike, *, dtype: DTypeLike | None = None
    ) -> "EmpiricalFisherInverse":
        """The operator of m gradients given together.

        **Arguments:**

        - `grads_stack`: pytree with leaves `(m, *shape)`.
        - `damping`: lambda > 0.
        - `dtype`: dtype in which the rows are stored. `None`: as given.

        **Raises:**

        `ValueError` if leaves differ in their leading size or `damping` is not positive;
        `TypeError` for a leaf that is not real floating.
        """
        return EmpiricalFisherInverse.from_chunks([grads_stack], damping, dtype=dtype)

    @staticmethod
    def from_chunks(
        chunks: Iterable[PyTree], damping: ArrayLike, *, dtype: DTypeLike | None = None
    ) -> "EmpiricalFisherInverse":
        """The operator of gradients that come in several stacks, e.g. from a generator.

        Each chunk is stored in `dtype` as it comes, so only one is held at full precision.

        **Arguments:**

        - `chunks`: iterable of pytrees with leaves `(m_k, *shape)`, the same shapes in each.
        - `damping`, `dtype`: as in `from_gradients`.
        """
        check_positive("damping", damping)
        stored, widest = [], []
        for chunk in chunks:
            check_real_leaves("grads_stack", chunk)
            sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(chunk)}
            if len(sizes) != 1 or not all(sizes):
                raise ValueError(
                    "`grads_stack` must have leaves of one leading size, got "
                    f"{sorted(sizes)} (an empty tuple is a scalar leaf)."
                )
            if stored:
                _check_like(
                    "chunks",
                    jax.tree.map(lambda x: x[0], chunk),
                    jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), stored[0]),
                )
            widest.append(_wide_dtype(chunk))
            stored.append(jax.tree.map(lambda x: jnp.asarray(x, dtype), chunk))
        if not stored:
            raise ValueError("`chunks` must hold at least one stack of gradients, got none.")
        wide = jnp.result_type(*widest)
        rows = jax.tree.map(lambda *x: jnp.concatenate(x), *stored)
        parts = [_gram(x, wide) for x in jax.tree.leaves(rows)]
        gram = sum(parts[1:], start=parts[0])
        m = gram.shape[0]
        return EmpiricalFisherInverse(
            GradientWindowState(
                rows=rows,
                gram=gram,
                count=jnp.asarray(m, jnp.int32),
                damping=jnp.asarray(damping, wide),
                total=jnp.asarray(m, wide),
                rejected=jnp.asarray(False),
            )
        )

    def _k_inverse(self, a: Float[Array, " m"]) -> Float[Array, " m"]:
        return jax.scipy.linalg.cho_solve((self.factor, True), a)

    def inner(self, x: PyTree) -> Float[Array, " m"]:
        """G x: the inner products of the rows with `x`."""
        _check_like("x", x, self.in_structure())
        return _inner_tree(self.rows, x, self.factor.dtype)

    def mv(self, vector: PyTree) -> PyTree:
        """F^-1 `vector`, with the dtypes of `vector`."""
        a = self._k_inverse(self.inner(vector))

        def product(rows, x):
            x = jnp.asarray(x)
            return ((x.astype(a.dtype) - _combine(a, rows)) / self.damping).astype(x.dtype)

        return jax.tree.map(product, self.rows, vector)

    def combination(self, a: Float[Array, " m"]) -> PyTree:
        """F^-1 G^T `a`, without cancellation however small the damping is.

        **Arguments:**

        - `a`: the weights of the rows.
        """
        weights = self.total * self._k_inverse(jnp.asarray(a, self.factor.dtype))
        return jax.tree.map(lambda rows: _combine(weights, rows), self.rows)

    def apply_to_row(self, j: int | Int[ArrayLike, ""]) -> PyTree:
        """F^-1 times row `j`, without cancellation however small the damping is."""
        m = self.factor.shape[0]
        return self.combination((jnp.arange(m) == j).astype(self.factor.dtype))

    def diagonal(self) -> PyTree:
        """The diagonal, a pytree like a row. Costs m products."""
        eye = jnp.eye(self.factor.shape[0], dtype=self.factor.dtype)
        root = jax.scipy.linalg.solve_triangular(self.factor, eye, lower=True)

        def diagonal(rows):
            return (1 - jnp.sum(_combine(root, rows) ** 2, axis=0)) / self.damping

        return jax.tree.map(diagonal, self.rows)

    def _column(self, i: Array) -> Float[Array, " m"]:
        start, column = 0, jnp.zeros(self.factor.shape[0], self.factor.dtype)
        for rows in jax.tree.leaves(self.rows):
            shape = rows.shape[1:]
            size = int(np.prod(shape))
            index = jnp.unravel_index(jnp.clip(i - start, 0, size - 1), shape) if shape else ()
            here = (i >= start) & (i < start + size)
            column += jnp.where(here, rows[(slice(None), *index)], 0).astype(column.dtype)
            start += size
        return column

    def element(
        self, i: int | Int[ArrayLike, ""], j: int | Int[ArrayLike, ""] | None = None
    ) -> Float[Array, ""]:
        """The element (i, j), by default (i, i), without the rest of the matrix.

        **Arguments:**

        - `i`, `j`: positions in the flattened parameters, leaf after leaf.
        """
        row = jnp.asarray(i)
        column = row if j is None else jnp.asarray(j)
        product = self._column(row) @ self._k_inverse(self._column(column))
        return ((row == column) - product) / self.damping

    def as_matrix(self) -> Float[Array, "d d"]:
        """The dense matrix, in the order of the flattened parameters."""
        flat = [
            rows.astype(self.factor.dtype).reshape(rows.shape[0], -1)
            for rows in jax.tree.leaves(self.rows)
        ]
        g = jnp.concatenate(flat, axis=1)
        y = jax.scipy.linalg.solve_triangular(self.factor, g, lower=True)
        square = jnp.matmul(y.T, y, precision=_HIGHEST)
        return (jnp.eye(g.shape[1], dtype=g.dtype) - square) / self.damping

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes of the parameters, in the dtype of the inner products."""
        return _row_shapes(self.rows, self.factor.dtype)


def _gram(rows: Array, dtype: Any) -> Array:
    axes = tuple(range(1, rows.ndim))
    sharding = jax.typeof(rows).sharding
    whole = None
    if any(axis is not None for axis in sharding.spec):
        whole = NamedSharding(sharding.mesh, PartitionSpec(None, None))
    return jax.lax.dot_general(
        rows,
        rows,
        ((axes, axes), ((), ())),
        precision=_HIGHEST,
        preferred_element_type=dtype,
        out_sharding=whole,
    )


@lx.diagonal.register(EmpiricalFisherInverse)
def _(operator):
    return ravel_pytree(operator.diagonal())[0]
