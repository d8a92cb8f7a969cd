"""Symmetric lineax operators: what they share, and one made from its product."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .._base import register_operator


class AbstractSymmetricOperator(lx.AbstractLinearOperator):
    """A symmetric operator, `positive` if it is positive semidefinite."""

    positive: eqx.AbstractVar[bool]

    def transpose(self) -> "AbstractSymmetricOperator":
        """The operator itself: it is symmetric."""
        return self

    def out_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """As `in_structure`."""
        return self.in_structure()


register_operator(AbstractSymmetricOperator, True, lambda operator: operator.positive)


class SymmetricOperator(AbstractSymmetricOperator):
    """The symmetric operator `v -> fn(v)` on vectors like `like`.

    `lineax.FunctionLinearOperator` would forget on which devices its arrays lie: on a mesh with
    explicit axes it fails.

    **Arguments:**

    - `fn`: a linear function; what it closes over becomes part of the operator.
    - `like`: pytree of arrays, or of their shapes and dtypes.
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

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """The structure of a vector."""
        return self.treedef.unflatten(self.shapes)
