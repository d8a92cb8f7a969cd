"""Dense output of exponential solvers: the exponential update itself, stopped between the steps."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._propagator import AbstractPropagator, cast_coefficients


def etd_update(
    propagator: AbstractPropagator,
    propagate: PyTree[Array],
    moments: tuple[PyTree[Array], ...],
    u0: PyTree[Array],
    derivatives: tuple[PyTree[Array], ...],
) -> PyTree[Array]:
    """u1 = propagate u0 + sum_k M_k N^(k)(t0), the update of every exponential solver."""
    u1 = propagator.act(propagate, u0)
    for moment, derivative in zip(moments, derivatives):
        u1 = jax.tree.map(jnp.add, u1, propagator.act(moment, derivative))
    return u1


class ETDInterpolation(diffrax.AbstractLocalInterpolation):
    """u(t) = exp((t - t0) L) u0 + sum_k M_k(t0, t) N^(k)(t0).

    Exact where N vanishes, of the accuracy of the stages elsewhere, and stable for stiff modes,
    which polynomials in t are not.
    """

    t0: Any
    t1: Any
    y0: PyTree[Array]
    derivatives: tuple[PyTree[Array], ...]
    propagator: AbstractPropagator
    direction: Any

    def evaluate(self, t0, t1=None, left=True):
        """The state at `t0`, or its increment from `t0` to `t1`."""
        del left
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        start, end = self.direction * self.t0, self.direction * t0
        coefficients = (
            self.propagator.propagate(start, end),
            self.propagator.moments(start, end, len(self.derivatives)),
        )
        propagate, moments = cast_coefficients(coefficients, self.derivatives[0])
        encoded = jax.tree.leaves(self.y0)[0].ndim != jax.tree.leaves(self.derivatives[0])[0].ndim
        u0 = self.y0
        if encoded:
            u0 = jax.tree.map(lambda x: jax.lax.complex(x[0], x[1]), u0)
        u = etd_update(self.propagator, propagate, moments, u0, self.derivatives)
        if encoded:
            u = jax.tree.map(lambda x: jnp.stack([x.real, x.imag]), u)
        return u
