"""The constants of the kinetic model, as differentiable arrays."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._base import check_finite, check_nonnegative


def _as_float(x) -> Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


class ActiveFluidParams(eqx.Module):
    """Constants of the kinetic theory of an active fluid (Maddu, Weady, Shelley 2024), all scalars.

    They are leaves of the pytree, so `jax.grad` with respect to them is parameter estimation; they
    are cast to the precision of the state where they are used.

    **Arguments:**

    - `alpha`: dipole strength; negative for extensile (pushers), positive for contractile.
    - `beta`: particle (constraint) stress, at least zero.
    - `zeta`: strength of the Maier-Saupe steric alignment.
    - `d_t`, `d_r`: translational and rotational diffusion, at least zero.
    - `v0`: swimming speed; zero for an apolar fluid.

    **Raises:**

    `ValueError` for a non-finite constant, or a negative `beta`, `d_t` or `d_r`.
    """

    alpha: Float[Array, "..."] = eqx.field(converter=_as_float)
    beta: Float[Array, "..."] = eqx.field(converter=_as_float, default=0.8)
    zeta: Float[Array, "..."] = eqx.field(converter=_as_float, default=0.0)
    d_t: Float[Array, "..."] = eqx.field(converter=_as_float, default=0.05)
    d_r: Float[Array, "..."] = eqx.field(converter=_as_float, default=0.05)
    v0: Float[Array, "..."] = eqx.field(converter=_as_float, default=0.0)

    def __check_init__(self):
        for name in ("alpha", "zeta", "v0"):
            check_finite(name, getattr(self, name))
        for name in ("beta", "d_t", "d_r"):
            check_nonnegative(name, getattr(self, name))
