"""The two losses of factored matrix sensing, as functions of the factors.

    symmetric   1/4 |A(X X^T) - y|^2,   gradient  sym(D) X,       D = A*(A(X X^T) - y),
    asymmetric  1/2 |A(F G^T) - y|^2,   gradient  (D G, D^T F),   D = A*(A(F G^T) - y).

Xiong, Ding and Du 2023, "How over-parameterization slows down gradient descent in matrix sensing:
the curses of symmetry and initialization" (arXiv:2310.01769).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._abstract_sensing import residual_of_product, SensingOperator


def symmetric_loss(
    X: Float[Array, "n k"], op: SensingOperator, y: Float[Array, "..."]
) -> Float[Array, ""]:
    """The loss 1/4 |A(X X^T) - y|^2 of a symmetric factorisation.

    **Arguments:**

    - `X`: the factor.
    - `op`: the sensing operator: one of this package, a lineax operator on matrices or on their
        raveled entries, or a linear callable.
    - `y`: the measurements.

    **Returns:** the loss; a function of `X` for any optax optimizer.

    **Raises:** `ValueError` where the shapes of `X`, `op` and `y` do not fit.
    """
    return jnp.sum(residual_of_product(op, X, X, y) ** 2) / 4


def asymmetric_loss(
    F: Float[Array, "n1 k"],
    G: Float[Array, "n2 k"],
    op: SensingOperator,
    y: Float[Array, "..."],
) -> Float[Array, ""]:
    """The loss 1/2 |A(F G^T) - y|^2 of a factorisation in two factors.

    **Arguments:**

    - `F`, `G`: the factors.
    - `op`, `y`: as in `symmetric_loss`.

    **Returns:** the loss.

    **Raises:** `ValueError` where the shapes do not fit.
    """
    return jnp.sum(residual_of_product(op, F, G, y) ** 2) / 2
