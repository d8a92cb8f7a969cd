"""Where noise puts the extremal eigenvalues of a matrix with outliers.

Additive noise (a Hessian): H + E with E a symmetric P x P matrix of independent entries of variance
s^2 / P, whose own spectrum fills [-2s, 2s]. An eigenvalue lambda of H outside [-s, s] goes to

    lambda + s^2 / lambda,    its eigenvector keeping the squared overlap 1 - s^2 / lambda^2;

one inside is lost in the noise, and the end of the spectrum is the edge 2s or -2s.

Sample covariance (a Gauss-Newton matrix of B examples with independent rows): with the bulk at
sigma^2, one eigenvalue l outside it, gamma = P / B, the top eigenvalue goes to

    l (1 + gamma sigma^2 / (l - sigma^2))   if l > sigma^2 (1 + sqrt(gamma)),
    sigma^2 (1 + sqrt(gamma))^2             otherwise.

Benaych-Georges and Nadakuditi 2011 (arXiv:0910.2120); Baik, Ben Arous and Peche 2005
(arXiv:math/0403022).
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxsci._base import check_finite, check_nonnegative, check_positive

from ._values import real_values


def spiked_edges(
    lam: ArrayLike, s2: ArrayLike
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Where additive noise puts an extremal eigenvalue.

    **Arguments:**

    - `lam`: the eigenvalue without noise, of any shape: the largest one if positive, the smallest
        one if negative. Zero counts as the top of a spectrum.
    - `s2`: s^2, P times the variance of an entry of the noise; broadcasts against `lam`.

    **Returns:**

    `(lam_noisy, overlap2)`: the extremal eigenvalue with noise, and the squared overlap of its
    eigenvector with the one without noise, zero where the noise hides it.

    **Raises:**

    `ValueError` if `lam` is not finite or `s2` is negative.
    """
    check_finite("lam", lam)
    check_nonnegative("s2", s2)
    lam, s2 = jnp.broadcast_arrays(*real_values(lam, s2))
    seen = (jnp.square(lam) > s2) & (lam != 0)
    safe_lam, safe_s2 = jnp.where(seen, lam, 1), jnp.where(seen | (s2 == 0), 1, s2)
    sign = jnp.where(lam < 0, -1, 1).astype(lam.dtype)
    edge = jnp.where(s2 == 0, 0, 2 * sign * jnp.sqrt(safe_s2))
    moved = jnp.where(seen, safe_lam + s2 / safe_lam, edge)
    return moved, jnp.where(seen, 1 - s2 / jnp.square(safe_lam), 0)


def spiked_covariance_edge(
    ell: ArrayLike, sigma2: ArrayLike, gamma: ArrayLike
) -> Float[Array, "*shape"]:
    """The largest eigenvalue of a sample covariance with one spike.

    **Arguments:**

    - `ell`: the largest eigenvalue of the population.
    - `sigma2`: its other eigenvalues, positive.
    - `gamma`: the dimension divided by the number of samples, P / B; at least zero.

    **Returns:**

    The largest eigenvalue of the sample covariance, for many dimensions and samples.

    **Raises:**

    `ValueError` if `ell` is not finite, `sigma2` not positive or `gamma` negative.
    """
    check_finite("ell", ell)
    check_positive("sigma2", sigma2)
    check_nonnegative("gamma", gamma)
    ell, sigma2, gamma = real_values(ell, sigma2, gamma)
    root = jnp.where(gamma > 0, jnp.sqrt(jnp.where(gamma > 0, gamma, 1)), 0)
    seen = ell > sigma2 * (1 + root)
    gap = jnp.where(seen, ell - sigma2, 1)
    return jnp.where(seen, ell * (1 + gamma * sigma2 / gap), sigma2 * jnp.square(1 + root))
