"""Gradients of factors preconditioned by the Gram matrix of the other factor.

    symmetric   d X = D X (X^T X + delta I)^-1,
    asymmetric  d F = D G (G^T G + delta I)^-1,    d G = D^T F (F^T F + delta I)^-1.

delta = 0: ScaledGD, Tong, Ma and Chi 2021, "Accelerating ill-conditioned low-rank matrix estimation
via scaled gradient descent" (arXiv:2005.08898). delta of the size of the error: PrecGD, Zhang,
Fattahi and Zhang 2021, "Preconditioned gradient descent for over-parameterized nonconvex matrix
factorization" (arXiv:2504.09708).
"""

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, ArrayLike, Float


def over_gram(
    gradient: Float[Array, "n k"], factor: Float[Array, "p k"], damping: ArrayLike
) -> Float[Array, "n k"]:
    """`gradient (factor^T factor + damping I)^-1`, damped by at least the rounding errors."""
    gram = factor.T @ factor
    floor = 4 * jnp.finfo(gram.dtype).eps * jnp.trace(gram)
    shift = jnp.asarray(damping, gram.dtype) + floor
    damped = gram + shift * jnp.eye(len(gram), dtype=gram.dtype)
    return cho_solve(cho_factor(damped), gradient.T).T
