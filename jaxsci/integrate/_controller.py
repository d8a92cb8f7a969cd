"""Step-size control for spectral states."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._base import check_nonnegative


class SpectralPIDController(diffrax.AbstractAdaptiveStepSizeController):
    """A PID controller that compares norms: ||error|| against atol + rtol max(||y0||, ||y1||).

    `diffrax.PIDController` divides each entry of the error by atol + rtol |y| before it takes a
    norm. For Fourier coefficients that makes the step depend on the resolution and asks for
    relative accuracy of modes that are zero to rounding. Here the number of steps is independent of
    the resolution. `diffrax.diffeqsolve` must be given `dt0`.

    **Arguments:**

    - `rtol`, `atol`: tolerances, in the units of `norm`.
    - `norm`: norm of a state, such as `grid.norm` (root mean square of the field).
    - `pcoeff`, `icoeff`, `dcoeff`, `dtmin`, `dtmax`, `force_dtmin`, `factormin`, `factormax`,
        `safety`, `error_order`: as for `diffrax.PIDController`.
    """

    rtol: Float[ArrayLike, ""]
    atol: Float[ArrayLike, ""]
    norm: Callable[[PyTree[Array]], Float[Array, ""]]
    inner: diffrax.PIDController

    def __init__(
        self,
        rtol: Float[ArrayLike, ""],
        atol: Float[ArrayLike, ""],
        norm: Callable[[PyTree[Array]], Float[Array, ""]],
        **options: Any,
    ):
        check_nonnegative("rtol", rtol)
        check_nonnegative("atol", atol)
        self.rtol = rtol
        self.atol = atol
        self.norm = norm
        # The inner controller sees the ratio as a scalar error of a scalar state.
        self.inner = diffrax.PIDController(rtol=0.0, atol=1.0, norm=jnp.abs, **options)

    def wrap(self, direction):
        """Unchanged: nothing depends on the direction."""
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        """First step and state of the inner controller."""
        if dt0 is None:
            raise ValueError(
                "`SpectralPIDController` needs `dt0` in `diffrax.diffeqsolve`, got None; a tenth "
                "of the time scale of the solution will do, the step adapts at once."
            )
        return self.inner.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        """Accept or reject by the ratio of norms, and choose the next step."""
        if y_error is None:
            raise ValueError(
                "`SpectralPIDController` needs a solver with an error estimate (ETDRK2, ETDRK3, "
                "ETDRK4); use `diffrax.ConstantStepSize()` with this one."
            )
        size = jnp.maximum(self.norm(y0), _finite_or_zero(self.norm(y1_candidate)))
        ratio = self.norm(y_error) / (self.atol + self.rtol * size)
        # A step that blew up is a very large error, not an undefined one.
        ratio = jnp.where(jnp.isfinite(ratio), ratio, jnp.inf).astype(size.dtype)
        state = jnp.zeros_like(ratio)
        return self.inner.adapt_step_size(
            t0, t1, state, state, args, ratio, error_order, controller_state
        )


def _finite_or_zero(x):
    return jnp.where(jnp.isfinite(x), x, 0)


def nonfinite(t: Any, y: PyTree[Array], args: Any, **kwargs: Any) -> Any:
    """Condition for `diffrax.Event`: stop at the first non-finite state.

    A solve with a constant step otherwise goes on with NaNs to its end; with
    `event=diffrax.Event(nonfinite)` it ends with `RESULTS.event_occurred`.
    """
    del t, args, kwargs
    return ~jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(y)]))
