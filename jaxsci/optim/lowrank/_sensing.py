"""Sensing operators: Gaussian, rank-one, entry sampling, and full observation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from jaxsci._base import check_at_least, check_positive, is_concrete

from ._abstract_sensing import AbstractSensing

_Shape = tuple[int, int]


def _check_shape(shape: Any) -> _Shape:
    if len(tuple(shape)) != 2 or min(shape) < 1:
        raise ValueError(f"`shape` must be two positive sizes (n1, n2), got {shape!r}.")
    return int(shape[0]), int(shape[1])


def _float_dtype(dtype: Any) -> np.dtype:
    return np.dtype(jnp.result_type(float) if dtype is None else dtype)


class GaussianSensing(AbstractSensing):
    """Dense Gaussian measurements: y_i = <A_i, Z>, the entries of A_i drawn from N(0, 1/m).

    A*A is the identity in mean. It stores m n1 n2 numbers, and measuring costs as many products;
    see `RankOneSensing` for large matrices.

    **Arguments:**

    - `key`: the key of the matrices.
    - `m`: the number of measurements.
    - `shape`: `(n1, n2)`.
    - `dtype`: of the matrices; JAX's default real dtype if None.
    """

    matrices: Float[Array, "m n1 n2"]

    def __init__(self, key: PRNGKeyArray, m: int, shape: _Shape, *, dtype: Any = None):
        check_at_least("m", m, 1)
        size = (m, *_check_shape(shape))
        self.matrices = jax.random.normal(key, size, _float_dtype(dtype)) * float(m) ** -0.5

    @property
    def shape(self) -> _Shape:
        """`(n1, n2)`."""
        _, n1, n2 = self.matrices.shape
        return n1, n2

    def mv(self, vector: Float[Array, "n1 n2"]) -> Float[Array, " m"]:
        """The measurements A(Z)."""
        return jnp.einsum("mij,ij->m", self.matrices, vector)

    def adjoint(self, vector: Float[Array, " m"]) -> Float[Array, "n1 n2"]:
        """The sum of u_i A_i."""
        return jnp.einsum("mij,m->ij", self.matrices, vector)

    def mv_product(
        self, left: Float[Array, "n1 k"], right: Float[Array, "n2 k"]
    ) -> Float[Array, " m"]:
        """The measurements A(F G^T)."""
        return self.mv(left @ right.T)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """An (n1, n2) matrix."""
        return jax.ShapeDtypeStruct(self.shape, self.matrices.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        """A vector of m numbers."""
        return jax.ShapeDtypeStruct(self.matrices.shape[:1], self.matrices.dtype)


class RankOneSensing(AbstractSensing):
    """Rank-one measurements: y_i = a_i^T Z b_i.

    It stores m (n1 + n2) numbers; measuring a product F G^T of width k costs m (n1 + n2) k products
    and never forms the (n1, n2) matrix. With a_i = b_i these are the quadratic measurements of
    phase retrieval.

    **Arguments:**

    - `left`, `right`: the vectors a_i and b_i in rows, scaled as they are to be used.
    """

    left: Float[Array, "m n1"]
    right: Float[Array, "m n2"]

    def __init__(self, left: Float[Array, "m n1"], right: Float[Array, "m n2"]):
        if jnp.ndim(left) != 2 or jnp.ndim(right) != 2 or len(left) != len(right):
            raise ValueError(
                "`left` and `right` must be two matrices with the same number of rows, got the "
                f"shapes {jnp.shape(left)} and {jnp.shape(right)}."
            )
        self.left, self.right = left, right

    @classmethod
    def gaussian(
        cls, key: PRNGKeyArray, m: int, shape: _Shape, *, dtype: Any = None
    ) -> "RankOneSensing":
        """Gaussian vectors of variance 1/sqrt(m) a entry, for which A*A is the identity in mean.

        The arguments are those of `GaussianSensing`.
        """
        check_at_least("m", m, 1)
        n1, n2 = _check_shape(shape)
        keys, dtype, scale = jax.random.split(key), _float_dtype(dtype), float(m) ** -0.25
        return cls(
            scale * jax.random.normal(keys[0], (m, n1), dtype),
            scale * jax.random.normal(keys[1], (m, n2), dtype),
        )

    @property
    def shape(self) -> _Shape:
        """`(n1, n2)`."""
        return self.left.shape[-1], self.right.shape[-1]

    def mv(self, vector: Float[Array, "n1 n2"]) -> Float[Array, " m"]:
        """The measurements A(Z)."""
        return jnp.sum((self.left @ vector) * self.right, axis=1)

    def adjoint(self, vector: Float[Array, " m"]) -> Float[Array, "n1 n2"]:
        """The sum of u_i a_i b_i^T."""
        return (self.left * vector[:, None]).T @ self.right

    def mv_product(
        self, left: Float[Array, "n1 k"], right: Float[Array, "n2 k"]
    ) -> Float[Array, " m"]:
        """The measurements A(F G^T)."""
        return jnp.sum((self.left @ left) * (self.right @ right), axis=1)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """An (n1, n2) matrix."""
        return jax.ShapeDtypeStruct(self.shape, jnp.result_type(self.left, self.right))

    def out_structure(self) -> jax.ShapeDtypeStruct:
        """A vector of m numbers."""
        dtype = jnp.result_type(self.left, self.right)
        return jax.ShapeDtypeStruct(self.left.shape[:1], dtype)


class EntrySampling(AbstractSensing):
    """Some entries of the matrix: y = scale * Z[mask], in row-major order (matrix completion).

    **Arguments:**

    - `mask`: which entries are seen. Its number of true entries sets the shape of y, so it must be
        concrete.
    - `scale`: multiplies the entries. 1 leaves them as they are; `sqrt(n1 n2 / m)` makes A*A the
        identity in mean over uniform masks, as a step size tuned to full observation expects.
    - `dtype`: what `in_structure` says; JAX's default real dtype if None. Measurements have the
        dtype of the matrix.
    """

    rows: Int[Array, " m"]
    columns: Int[Array, " m"]
    scale: Float[Array, ""]
    shape: _Shape = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)

    def __init__(
        self, mask: Bool[ArrayLike, "n1 n2"], *, scale: ArrayLike = 1.0, dtype: Any = None
    ):
        if not is_concrete(mask):
            raise ValueError(
                "`mask` must be concrete: its number of true entries is a shape; got a tracer."
            )
        seen = np.asarray(mask)
        if seen.ndim != 2 or seen.dtype != bool or not seen.any():
            raise ValueError(
                "`mask` must be a boolean matrix with a true entry, got shape "
                f"{seen.shape} and dtype {seen.dtype} with {int(np.sum(seen != 0))} true entries."
            )
        check_positive("scale", scale)
        self.dtype = _float_dtype(dtype)
        self.rows, self.columns = (jnp.asarray(i, jnp.int32) for i in np.nonzero(seen))
        self.scale = jnp.asarray(scale, self.dtype)
        self.shape = seen.shape

    def mv(self, vector: Float[Array, "n1 n2"]) -> Float[Array, " m"]:
        """The sampled entries."""
        return self.scale.astype(vector.dtype) * vector[self.rows, self.columns]

    def adjoint(self, vector: Float[Array, " m"]) -> Float[Array, "n1 n2"]:
        """The matrix with the values at the sampled entries and zero elsewhere."""
        values = self.scale.astype(vector.dtype) * vector
        return jnp.zeros(self.shape, vector.dtype).at[self.rows, self.columns].add(values)

    def mv_product(
        self, left: Float[Array, "n1 k"], right: Float[Array, "n2 k"]
    ) -> Float[Array, " m"]:
        """The sampled entries of F G^T, without the others."""
        entries = jnp.sum(left[self.rows] * right[self.columns], axis=1)
        return self.scale.astype(entries.dtype) * entries

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """An (n1, n2) matrix."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        """A vector of m numbers."""
        return jax.ShapeDtypeStruct(self.rows.shape, self.dtype)


class Identity(AbstractSensing):
    """Full observation: y is the matrix itself. The infinite-sample limit of Gaussian sensing.

    **Arguments:**

    - `shape`: `(n1, n2)`. If None, matrices of any shape are taken, and the structure that
        `lineax` solvers ask for is not known.
    - `dtype`: what `in_structure` says; JAX's default real dtype if None.
    """

    shape: _Shape | None = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)

    def __init__(self, shape: _Shape | None = None, *, dtype: Any = None):
        self.shape = None if shape is None else _check_shape(shape)
        self.dtype = _float_dtype(dtype)

    def mv(self, vector: Float[Array, "n1 n2"]) -> Float[Array, "n1 n2"]:
        """The matrix."""
        return vector

    def adjoint(self, vector: Float[Array, "n1 n2"]) -> Float[Array, "n1 n2"]:
        """The matrix."""
        return vector

    def mv_product(
        self, left: Float[Array, "n1 k"], right: Float[Array, "n2 k"]
    ) -> Float[Array, "n1 n2"]:
        """The product F G^T."""
        return left @ right.T

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """An (n1, n2) matrix."""
        if self.shape is None:
            raise ValueError("`Identity()` has no structure; give it a `shape`, (n1, n2).")
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        """An (n1, n2) matrix."""
        return self.in_structure()
