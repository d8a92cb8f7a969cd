"""A symmetric lineax operator from its product, one that also lives on explicit meshes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree


class SymmetricOperator(lx.AbstractLinearOperator):
    """The symmetric operator `v -> fn(v)` on vectors like `like`.

    `lineax.FunctionLinearOperator` would forget on which devices its arrays lie: on a mesh with
    explicit axes it fails.

    **Arguments:**

    - `fn`: a linear function; what it closes over becomes part of the operator.
    - `like`: pytree of arrays.
    - `positive`: whether it is positive semidefinite.
    """

    fn: Callable[[PyTree], PyTree]
    shapes: tuple[jax.ShapeDtypeStruct, ...] = eqx.field(static=True)
    treedef: Any = eqx.field(static=True)
    positive: bool = eqx.field(static=True)

    def __init__(self, fn: Callable[[PyTree], PyTree], like: PyTree, positive: bool):
        self.fn = eqx.filter_closure_convert(fn, jax.tree.map(jnp.zeros_like, like))
        leaves, treedef = jax.tree.flatten(like)
        self.shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves)
        self.treedef = treedef
        self.positive = positive

    def mv(self, vector: PyTree) -> PyTree:
        """The product with `vector`."""
        return self.fn(vector)

    def as_matrix(self) -> Float[Array, "d d"]:
        """The dense matrix, in the order of the flattened vector."""
        return lx.materialise(self).as_matrix()

    def transpose(self) -> "SymmetricOperator":
        """The operator itself."""
        return self

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """The structure of a vector."""
        return self.treedef.unflatten(self.shapes)

    def out_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """As `in_structure`."""
        return self.in_structure()


lx.is_symmetric.register(SymmetricOperator)(lambda operator: True)
lx.is_positive_semidefinite.register(SymmetricOperator)(lambda operator: operator.positive)
for _check in (
    lx.is_diagonal,
    lx.is_tridiagonal,
    lx.is_lower_triangular,
    lx.is_upper_triangular,
    lx.has_unit_diagonal,
    lx.is_negative_semidefinite,
):
    _check.register(SymmetricOperator)(lambda operator: False)
lx.linearise.register(SymmetricOperator)(lambda operator: operator)
lx.conj.register(SymmetricOperator)(lambda operator: operator)


@lx.materialise.register(SymmetricOperator)
def _(operator):
    tag = lx.positive_semidefinite_tag if operator.positive else lx.symmetric_tag
    return lx.materialise(lx.FunctionLinearOperator(operator.mv, operator.in_structure(), tag))


@lx.diagonal.register(SymmetricOperator)
def _(operator):
    return jnp.diagonal(operator.as_matrix())
