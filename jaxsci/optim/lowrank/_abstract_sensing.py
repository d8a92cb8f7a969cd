"""What a sensing operator is: a linear map from matrices to measurements, and its adjoint.

It is a lineax operator, y = A(Z), that can also measure a product F G^T without forming it. Losses
and `recover` take any linear callable or lineax operator beside it.
"""

import abc
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from jaxsci._base import register_operator

SensingOperator = lx.AbstractLinearOperator | Callable[[Array], Array]


class AbstractSensing(lx.AbstractLinearOperator):
    """A linear map A from (n1, n2) matrices to measurements."""

    shape: eqx.AbstractVar[tuple[int, int] | None]

    @abc.abstractmethod
    def mv(self, vector: Float[Array, "n1 n2"]) -> Float[Array, "..."]:
        """The measurements A(Z) of a matrix Z."""

    @abc.abstractmethod
    def adjoint(self, vector: Float[Array, "..."]) -> Float[Array, "n1 n2"]:
        """The matrix A*(u), for which <A(Z), u> = <Z, A*(u)>."""

    @abc.abstractmethod
    def mv_product(
        self, left: Float[Array, "n1 k"], right: Float[Array, "n2 k"]
    ) -> Float[Array, "..."]:
        """The measurements A(F G^T) of a product."""

    def transpose(self) -> lx.AbstractLinearOperator:
        """A* as an operator."""
        return _Adjoint(self)

    def as_matrix(self) -> Float[Array, "measurements entries"]:
        """The dense matrix that acts on raveled matrices."""
        return _as_function(self).as_matrix()


class _Adjoint(lx.AbstractLinearOperator):
    operator: AbstractSensing

    def mv(self, vector: Float[Array, "..."]) -> Float[Array, "n1 n2"]:
        return self.operator.adjoint(vector)

    def transpose(self) -> lx.AbstractLinearOperator:
        return self.operator

    def as_matrix(self) -> Float[Array, "entries measurements"]:
        return self.operator.as_matrix().T

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return self.operator.out_structure()

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.operator.in_structure()


def _as_function(operator: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
    return lx.FunctionLinearOperator(operator.mv, operator.in_structure())


for _cls in (AbstractSensing, _Adjoint):
    register_operator(_cls)


def measure(op: SensingOperator, matrix: Float[Array, "n1 n2"]) -> Float[Array, "..."]:
    """A(Z) for any operator; one that acts on vectors of n1 n2 entries gets the raveled matrix."""
    if not isinstance(op, lx.AbstractLinearOperator):
        return op(matrix)
    if isinstance(op, AbstractSensing):
        return op.mv(matrix)
    shape = getattr(op.in_structure(), "shape", None)
    if shape == matrix.shape:
        return op.mv(matrix)
    if shape == (math.prod(matrix.shape),):
        return op.mv(jnp.ravel(matrix))
    raise ValueError(
        f"`op` must take a matrix of shape {matrix.shape} or the vector of its entries, got an "
        f"operator on {op.in_structure()!r}."
    )


def residual_of_product(
    op: SensingOperator,
    left: Float[Array, "n1 k"],
    right: Float[Array, "n2 k"],
    y: Float[Array, "..."],
) -> Float[Array, "..."]:
    """A(F G^T) - y."""
    if jnp.ndim(left) != 2 or jnp.ndim(right) != 2 or left.shape[1] != right.shape[1]:
        raise ValueError(
            "The factors must be two matrices with the same number of columns, got the shapes "
            f"{jnp.shape(left)} and {jnp.shape(right)}."
        )
    shape = (left.shape[0], right.shape[0])
    if isinstance(op, AbstractSensing):
        if op.shape is not None and op.shape != shape:
            raise ValueError(
                f"`op` measures matrices of shape {op.shape}, got factors of a matrix of shape "
                f"{shape}."
            )
        measured = op.mv_product(left, right)
    else:
        measured = measure(op, left @ right.T)
    if jnp.shape(measured) != jnp.shape(y):
        raise ValueError(
            f"`y` must have the shape {jnp.shape(measured)} of the measurements of `op`, got "
            f"{jnp.shape(y)}."
        )
    return measured - y
