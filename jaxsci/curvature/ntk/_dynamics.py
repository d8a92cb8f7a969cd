"""Gradient descent on the square loss in function space, in closed form.

With a constant kernel T and the residual r_0 = f_0(X) - y,

    f_t(X) = f_0(X) - T filter(T) r_0,        f_t(x) = f_0(x) - T(x, X) filter(T) r_0,

where filter(w) = (1 - decay(w)) / w says how far a mode has come (see `_filters`); T is never
inverted (Jacot, Gabriel and Hongler 2018, arXiv:1806.07572, section 5; Lee et al. 2019,
arXiv:1902.06720, equations 8 to 11).
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..._base import check_choice, check_nonnegative
from ._checked_kernel import (
    as_matrix,
    at_times,
    check_time,
    decompose,
    initial_values,
    learning_rate,
    make_clock,
    targets,
)
from ._filters import Clock, pick_filter
from ._spectral_function import Eigendecomposition


class GradientDescentMSE(eqx.Module):
    """Training on the square loss with a constant kernel; made by `gradient_descent_mse`."""

    spectrum: Eigendecomposition
    y: Array
    ridge: ArrayLike
    reduction: str = eqx.field(static=True)

    def __call__(
        self,
        t: ArrayLike,
        f0_train: ArrayLike = 0.0,
        f0_test: ArrayLike | None = None,
        ntk_st: Array | np.ndarray | None = None,
        discrete: bool = False,
        lr: ArrayLike = 1.0,
        *,
        momentum: ArrayLike | None = None,
        friction: ArrayLike | None = None,
    ) -> Array | tuple[Array, Array]:
        """The function at time `t`.

        **Arguments:**

        - `t`: time, or number of steps when `discrete`; its axes lead those of the results.
            Infinity is allowed in continuous time without friction.
        - `f0_train`: the function on the training points at time zero, (n, *out), or a scalar.
        - `f0_test`: the same on other points, (k, *out), or a scalar.
        - `ntk_st`: kernel between the other points and the training points, (k, n) or
            (k, n, *out, *out); needed with `f0_test`, whose default with it is zero.
        - `discrete`: gradient descent step by step instead of gradient flow. It converges for
            `lr` below `max_learning_rate()`.
        - `lr`: learning rate; in continuous time the factor of the gradient.
        - `momentum`: of discrete descent: v <- momentum v - lr gradient, params <- params + v.
        - `friction`: of the continuous heavy ball: params'' + friction params' = -lr gradient,
            from rest.

        **Returns:**

        The training values, (*t, n, *out); with `ntk_st` the pair of these and the other values,
        (*t, k, *out).

        **Raises:**

        `ValueError` if `t` is negative, a shape does not fit or options contradict each other.
        """
        check_time(t, discrete)
        evaluate = pick_filter(discrete, momentum, friction)
        y = self.y
        size = math.prod(y.shape[1:])
        columns = 1 if self.spectrum.eigenvalues.shape[0] != y.shape[0] or size == 1 else size
        f0 = initial_values("f0_train", f0_train, y.shape, y.dtype)
        residual = (f0 - y).reshape(-1, columns)
        rate = learning_rate(lr, self.reduction, y)
        clock = make_clock(self.spectrum, rate, self.ridge, momentum, friction)
        tangent_dtype = self.spectrum.eigenvalues.dtype

        def filtered(w: Array, clock: Clock) -> Array:
            return jnp.maximum(w, 0) * evaluate(w, clock)

        def train(time):
            return f0 - self.spectrum.apply(filtered, clock(time), residual).reshape(y.shape)

        if ntk_st is None:
            if f0_test is not None:
                raise ValueError("`f0_test` needs `ntk_st`, the kernel to the training points.")
            return at_times(train, t, tangent_dtype)
        train_kernel = self.spectrum.matrix
        across = as_matrix("ntk_st", ntk_st, None, y.shape[0], size, like=train_kernel)
        shape = (ntk_st.shape[0], *y.shape[1:])
        start = initial_values("f0_test", 0.0 if f0_test is None else f0_test, shape, y.dtype)

        def both(time):
            coefficients = self.spectrum.apply(evaluate, clock(time), residual)
            return train(time), start - (across @ coefficients).reshape(shape)

        return at_times(both, t, tangent_dtype)

    def effective_dim(
        self, t: ArrayLike, discrete: bool = False, lr: ArrayLike = 1.0
    ) -> Float[Array, "..."]:
        """How many modes have been learned: sum over eigenvalues w of 1 - exp(-lr w t).

        With a ridge it is the trace of what maps the residual to the change of the function, and at
        t = inf the sum of w / (w + ridge).
        """
        check_time(t, discrete)
        evaluate = pick_filter(discrete, None, None)
        rate = learning_rate(lr, self.reduction, self.y)
        clock = make_clock(self.spectrum, rate, self.ridge, None, None)

        def learned(w: Array, clock: Clock) -> Array:
            return jnp.maximum(w, 0) * evaluate(w, clock)

        return at_times(
            lambda time: self.spectrum.trace(learned, clock(time)),
            t,
            self.spectrum.eigenvalues.dtype,
        )

    def max_learning_rate(self) -> Float[Array, ""]:
        """The learning rate from which discrete descent without momentum diverges, 2 / w_max."""
        largest = jnp.maximum(self.spectrum.eigenvalues[-1], 0) + self.ridge
        return 2 / largest * (self.y.size if self.reduction == "mean" else 1)


def gradient_descent_mse(
    ntk_tt: Float[Array | np.ndarray, "n n ..."],
    y: ArrayLike,
    reduction: str = "sum",
    ridge: ArrayLike = 0.0,
) -> GradientDescentMSE:
    """Training on the square loss as a function of time, for a constant tangent kernel.

    The loss is 1/2 sum (f - y)^2 over all points and outputs ("sum"), or 1/2 of the mean, which is
    the same at a learning rate divided by their number. A ridge adds
    ridge / 2 |params - params_0|^2 (to the sum), so that the function ends in kernel ridge
    regression: f(x) = f_0(x) + T(x, X) (T + ridge)^-1 (y - f_0(X)).

    The result can be called under `jax.jit` and differentiated, also with respect to the kernel and
    where eigenvalues coincide (once).

    **Arguments:**

    - `ntk_tt`: kernel between the training points, (n, n), the same for every output, or
        (n, n, *out, *out).
    - `y`: targets, (n, *out).
    - `reduction`: "sum" or "mean".
    - `ridge`: at least zero.

    **Returns:**

    `predict(t, f0_train, f0_test=None, ntk_st=None, discrete=False, lr=1.0)`, see
    `GradientDescentMSE`.

    **Raises:**

    `ValueError` if the shapes do not fit, the kernel is not symmetric, or has an eigenvalue further
    below zero than rounding explains.
    """
    check_choice("reduction", reduction, ("sum", "mean"))
    check_nonnegative("ridge", ridge)
    y = targets(y)
    spectrum = decompose("ntk_tt", jnp.asarray(ntk_tt), y.shape[0], math.prod(y.shape[1:]))
    return GradientDescentMSE(spectrum, y, ridge, reduction)


def effective_dim(
    ntk_tt: Float[Array | np.ndarray, "n n"], t: ArrayLike, lr: ArrayLike = 1.0
) -> Float[Array, "..."]:
    """How many modes gradient flow has learned by time `t`: sum over w of 1 - exp(-lr w t).

    Stopping at `t` keeps the modes with eigenvalues above about 1 / (lr t).

    **Arguments:**

    - `ntk_tt`: kernel between the training points, (n, n).
    - `t`: time; any shape.
    - `lr`: factor of the gradient of the loss 1/2 sum (f - y)^2.

    **Returns:**

    The effective dimension, of the shape of `t`.
    """
    kernel = jnp.asarray(ntk_tt)
    zeros = jnp.zeros(kernel.shape[0], kernel.dtype)
    return gradient_descent_mse(kernel, zeros).effective_dim(t, lr=lr)
