"""Statistics of the orientation field and of the flow."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float


def order_parameter(c: Float[Array, "*grid"], z: Complex[Array, "*grid"]) -> Float[Array, "*grid"]:
    """Scalar order parameter s = |z|/c = 2 mu_1 - 1, mu_1 the larger eigenvalue of D/c.

    0 at isotropy, 1 at full alignment. The gradient at z = 0 is zero.

    **Arguments:**

    - `c`: concentration a_0.
    - `z`: second angular mode a_2.
    """
    square = z.real**2 + z.imag**2
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0) / c


def mean_speed(velocity: Float[Array, "2 *grid"]) -> Float[Array, ""]:
    """Space average of |u|.

    **Arguments:**

    - `velocity`: the two components of the velocity on the grid.
    """
    square = jnp.sum(velocity**2, axis=0)
    positive = square > 0
    return jnp.mean(jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0))


def order_density(
    s: Float[Array, "..."], num_bins: int = 50
) -> tuple[Float[Array, " num_bins"], Float[Array, " num_bins"]]:
    """Probability density of the order parameter over [0, 1], from a histogram.

    **Arguments:**

    - `s`: values of the order parameter, any shape.
    - `num_bins`: number of equal bins.

    **Returns:**

    Centres of the bins, and the density, whose integral over [0, 1] is one if all values lie there.
    """
    counts, edges = jnp.histogram(s, num_bins, range=(0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    return centres.astype(s.dtype), (counts * num_bins / s.size).astype(s.dtype)
