"""Teach lineax a class of linear operators: what it asks of every operator, in one place."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import lineax as lx

_UNKNOWN = (
    lx.is_diagonal,
    lx.is_tridiagonal,
    lx.is_lower_triangular,
    lx.is_upper_triangular,
    lx.has_unit_diagonal,
    lx.is_negative_semidefinite,
)


def register_operator(
    cls: type, symmetric: bool = False, positive: Callable[[Any], bool] = lambda operator: False
) -> None:
    """Register a class of real operators, and so its subclasses, with the functions of lineax.

    **Arguments:**

    - `cls`: a subclass of `lineax.AbstractLinearOperator` with `mv`, `in_structure` and
        `as_matrix`.
    - `symmetric`: whether its operators are.
    - `positive`: which of its operators are positive semidefinite; these are symmetric.
    """
    lx.is_symmetric.register(cls)(lambda operator: symmetric)
    lx.is_positive_semidefinite.register(cls)(positive)
    for unknown in _UNKNOWN:
        unknown.register(cls)(lambda operator: False)
    lx.linearise.register(cls)(lambda operator: operator)
    lx.conj.register(cls)(lambda operator: operator)
    lx.diagonal.register(cls)(lambda operator: jnp.diagonal(operator.as_matrix()))

    @lx.materialise.register(cls)
    def _(operator):
        tags = lx.symmetric_tag if symmetric else ()
        tags = lx.positive_semidefinite_tag if positive(operator) else tags
        function = lx.FunctionLinearOperator(operator.mv, operator.in_structure(), tags)
        return lx.materialise(function)
