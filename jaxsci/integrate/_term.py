"""`SemilinearTerm`: the right-hand side u' = L(t) u + N(t, u) as a diffrax term."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._base import is_complex, real_dtype
from ._propagator import AbstractPropagator, DiagonalPropagator


class SemilinearTerm(diffrax.AbstractTerm):
    """The right-hand side of u' = L(t) u + N(t, u, args), split in its two parts.

    Let u have structure T. L maps T to T linearly and is known well enough to be exponentiated or
    inverted; N maps T to T. The exponential and IMEX solvers of this room use the parts; every
    other diffrax solver sees the sum.

    **Arguments:**

    - `linear`: a propagator, or its diagonal as for `DiagonalPropagator`.
    - `nonlinear`: N, called as `nonlinear(t, u, args)`; or None for zero.
    - `real_state`: let the solver see each complex array u as a real one with a leading axis of
        two, real and imaginary part. diffrax warns on complex states, since some of its features
        are untested on them; `encode` before the solve, `decode` after it.
    - `projection`: a function of the state that the solvers of this room apply after each step, or
        None. It is for redundant parts of a state that the nonlinearity does not see and that a
        growing linear part would amplify: `grid.project_real` for real fields in two and three
        dimensions.
    """

    linear: AbstractPropagator
    nonlinear_fn: Callable[..., PyTree[Array]] | None
    real_state: bool
    projection: Callable[[PyTree[Array]], PyTree[Array]] | None

    def __init__(
        self,
        linear: AbstractPropagator | PyTree[ArrayLike] | Callable[[], PyTree[ArrayLike]],
        nonlinear: Callable[..., PyTree[Array]] | None = None,
        *,
        real_state: bool = False,
        projection: Callable[[PyTree[Array]], PyTree[Array]] | None = None,
    ):
        if nonlinear is not None and not callable(nonlinear):
            raise TypeError(
                f"`nonlinear` must be a function of (t, u, args) or None, got {nonlinear!r}."
            )
        if not isinstance(linear, AbstractPropagator):
            linear = DiagonalPropagator(linear)
        self.linear = linear
        self.nonlinear_fn = nonlinear
        self.real_state = real_state
        self.projection = projection

    def project(self, u: PyTree[Array]) -> PyTree[Array]:
        """The state after a step, projected."""
        return u if self.projection is None else self.projection(u)

    def encode(self, u: PyTree[Array]) -> PyTree[Array]:
        """The state as the solver sees it."""
        if not self.real_state:
            return u
        return jax.tree.map(lambda x: jnp.stack([x.real, x.imag]), u)

    def decode(self, y: PyTree[Array]) -> PyTree[Array]:
        """The state as the equation sees it."""
        if not self.real_state:
            return y
        return jax.tree.map(lambda x: jax.lax.complex(x[0], x[1]), y)

    def nonlinear(
        self, t: Float[ArrayLike, ""], u: PyTree[Array], args: Any = None
    ) -> PyTree[Array]:
        """N(t, u, args) of the decoded state, in its precision.

        **Raises:** `ValueError` if N returns another structure or shape than `u`.
        """
        if self.nonlinear_fn is None:
            return jax.tree.map(jnp.zeros_like, u)
        n = self.nonlinear_fn(t, u, args)
        return _checked_like(n, u)

    def vf(self, t, y, args):
        """L(t) u + N(t, u)."""
        u = self.decode(y)
        total = jax.tree.map(jnp.add, self.linear.apply(t, u), self.nonlinear(t, u, args))
        return self.encode(_checked_like(total, u))

    def contr(self, t0, t1, **kwargs):
        """The length of the step."""
        return t1 - t0

    def prod(self, vf, control):
        """Vector field times length of the step."""
        return jax.tree.map(lambda v: jnp.asarray(control, real_dtype(v)) * v, vf)

    def to_multiterm(self) -> diffrax.MultiTerm:
        """(explicit N, implicit L), as diffrax's own IMEX solvers (KenCarp4, Sil3) take it."""

        def explicit(t, y, args):
            return self.encode(self.nonlinear(t, self.decode(y), args))

        def implicit(t, y, args):
            return self.encode(self.linear.apply(t, self.decode(y)))

        return diffrax.MultiTerm(diffrax.ODETerm(explicit), diffrax.ODETerm(implicit))


def _checked_like(n, u):
    if jax.tree.structure(n) != jax.tree.structure(u):
        raise ValueError(
            f"The right-hand side must return the structure of the state, "
            f"{jax.tree.structure(u)}, got {jax.tree.structure(n)}."
        )
    return jax.tree.map(_checked_leaf, n, u)


def _checked_leaf(n, u):
    if jnp.shape(n) != jnp.shape(u):
        raise ValueError(
            f"The right-hand side must return the shape of the state, {jnp.shape(u)}, "
            f"got {jnp.shape(n)}."
        )
    if is_complex(n) and not is_complex(u):
        raise TypeError(f"The right-hand side is complex ({n.dtype}) but the state is {u.dtype}.")
    return jnp.asarray(n, u.dtype)
