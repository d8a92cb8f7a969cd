"""Where the factors start, and the rescaling that leaves their product alone.

With the thin singular value decomposition F = U S V^T,

    F <- beta U,    G <- G V S / beta,    so that F G^T is unchanged and F^T F = beta^2 I.

Near a solution, gradient descent with step eta then contracts the error of a rank-r matrix M by
1 - eta min(beta^2, sigma_r(M)^2 / beta^2) a step, best at beta = sqrt(sigma_r(M)), whatever the
scale of the start was. Without it the factor is 1 - eta sigma_k(F)^2, and sigma_k(F) is as small
as the start.

Xiong, Ding and Du 2023 (arXiv:2310.01769).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from jaxsci._base import check_at_least, check_positive, is_concrete


def init_symmetric(
    key: PRNGKeyArray, n: int, k: int, scale: ArrayLike, *, dtype: np.dtype | type | None = None
) -> Float[Array, "n k"]:
    """A start for the symmetric factorisation: `scale` times entries from N(0, 1/n).

    **Arguments:**

    - `key`: the key of the draw.
    - `n`, `k`: the size of the matrix and the width of the factor.
    - `scale`: the scale alpha of the start, positive.
    - `dtype`: JAX's default real dtype if None.

    **Returns:** the factor.

    **Raises:** `ValueError` for a size below one or a scale that is not positive.
    """
    check_at_least("n", n, 1)
    check_at_least("k", k, 1)
    check_positive("scale", scale)
    dtype = jnp.result_type(float) if dtype is None else dtype
    return jnp.asarray(scale, dtype) * jax.random.normal(key, (n, k), dtype) * float(n) ** -0.5


def init_asymmetric(
    key: PRNGKeyArray,
    n1: int,
    n2: int,
    k: int,
    scale: ArrayLike,
    ratio: ArrayLike = 1 / 3,
    *,
    dtype: np.dtype | type | None = None,
) -> tuple[Float[Array, "n1 k"], Float[Array, "n2 k"]]:
    """A start for two factors: independent, and out of balance by `ratio`.

    The imbalance is what makes gradient descent converge linearly when k exceeds the rank: two
    equal factors stay equal, and do no better than the symmetric factorisation.

    **Arguments:**

    - `key`: the key of the draws.
    - `n1`, `n2`, `k`: the sizes of the matrix and the width of the factors.
    - `scale`: the scale alpha of F, positive; entries are alpha N(0, 1/n1).
    - `ratio`: the scale of G over that of F, positive.
    - `dtype`: JAX's default real dtype if None.

    **Returns:** the factors `(F, G)`.

    **Raises:** `ValueError` for a size below one or a scale or ratio that is not positive.
    """
    check_positive("ratio", ratio)
    check_positive("scale", scale)
    keys = jax.random.split(key)
    left = init_symmetric(keys[0], n1, k, scale, dtype=dtype)
    right = init_symmetric(keys[1], n2, k, scale, dtype=dtype)
    return left, jnp.asarray(ratio, right.dtype) * right


def rebalance(
    F: Float[Array, "n1 k"], G: Float[Array, "n2 k"], beta: ArrayLike
) -> tuple[Float[Array, "n1 k"], Float[Array, "n2 k"]]:
    """Make F^T F = beta^2 I without changing F G^T.

    **Arguments:**

    - `F`, `G`: the factors; F has full column rank.
    - `beta`: the common singular value of the new F, positive. The square root of the smallest
        singular value of the matrix sought is best.

    **Returns:** the new factors.

    **Raises:** `ValueError` if the shapes do not fit, `beta` is not positive, or F is rank
    deficient to working precision (not checked on traced values).
    """
    check_positive("beta", beta)
    if jnp.ndim(F) != 2 or jnp.ndim(G) != 2 or F.shape[1] != G.shape[1] or F.shape[0] < F.shape[1]:
        raise ValueError(
            "`F` and `G` must be matrices with the same number of columns, F with at least as many "
            f"rows, got the shapes {jnp.shape(F)} and {jnp.shape(G)}."
        )
    left, values, right = jnp.linalg.svd(F, full_matrices=False)
    if is_concrete(values):
        smallest, largest = float(values[-1]), float(values[0])
        if not smallest > max(F.shape) * float(jnp.finfo(F.dtype).eps) * largest:
            raise ValueError(
                "`F` must have full column rank, got singular values from "
                f"{largest:.3g} down to {smallest:.3g}."
            )
    beta = jnp.asarray(beta, F.dtype)
    return beta * left, (G @ right.T * (values / beta)).astype(G.dtype)
