"""An equation with a learned (or any other) correction in its nonlinearity."""

from collections.abc import Callable

from jaxtyping import Array, Inexact

from .._base import check_at_least
from ._equation import AbstractEquation


class CorrectedEquation(AbstractEquation):
    """u_t = L u + N(t, u) + c(u): an equation and a correction evaluated on the grid points.

    The correction is what a coarse solve lacks: subgrid stress, an unknown reaction, an error of
    the discretisation. It sits inside the nonlinearity, so that every solver, step control and
    checkpoint mode works with it, and is trained through the solve. With a correction of zero the
    equation is unchanged. Invariants are those of the equation, which a correction may break.

    **Arguments:**

    - `equation`: the equation to correct.
    - `correction`: any pytree callable from fields `(channels, *grid.shape)` to fields of that
        shape, such as an `equinox.nn` module; its array leaves are trainable parameters.
    - `order`: degree of nonlinearity for which the result is dealiased, as for
        `FourierGrid.dealias`; 0 leaves it as it is.

    **Raises:** `TypeError` if `correction` is not callable.
    """

    equation: AbstractEquation
    correction: Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]]
    order: int

    def __init__(
        self,
        equation: AbstractEquation,
        correction: Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]],
        order: int = 2,
    ):
        if not callable(correction):
            raise TypeError(f"`correction` must be callable, got {correction!r}.")
        check_at_least("order", order, 0)
        self.equation = equation
        self.correction = correction
        self.order = order

    @property
    def grid(self):
        """The grid of the equation."""
        return self.equation.grid

    @property
    def walls(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """The walls that the equation takes; the correction must keep their series."""
        return self.equation.walls

    @property
    def growing(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the linear part of the equation can grow."""
        return self.equation.growing

    @property
    def channels(self):
        """The fields of the equation."""
        return self.equation.channels

    def symbol(self):
        """The symbol of the equation."""
        return self.equation.symbol()

    def linear(self):
        """The linear part of the equation."""
        return self.equation.linear()

    def nonlinear(self, t, uh, args=None):
        """N(t, u) + c(u)."""
        grid = self.grid
        u = grid.ifft(uh)
        c = self.correction(u)
        if c.shape != u.shape:
            raise ValueError(
                f"`correction` must return the shape {u.shape} of the fields, got {c.shape}."
            )
        ch = grid.fft(c.astype(u.dtype))
        ch = grid.dealias(ch, order=self.order) if self.order else ch
        return self.equation.nonlinear(t, uh, args) + ch

    def invariants(self, uh):
        """Those of the equation."""
        return self.equation.invariants(uh)

    def initial(self, key):
        """As for the equation."""
        return self.equation.initial(key)
