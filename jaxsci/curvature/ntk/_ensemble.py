"""The distribution, over random initialisations, of infinitely wide networks in training.

At time zero the outputs are a Gaussian process of covariance K (the NNGP kernel). Gradient flow on
the square loss is linear in them, f_t(x) = f_0(x) - M (f_0(X) - y) with M = T(x, X) filter(T), so
they stay Gaussian:

    mean = M y,        covariance = K(x, x') + M K(X, X) M'^T - M K(X, x') - K(x, X) M'^T

(Lee et al. 2019, arXiv:1902.06720, equations 15 and 16).
"""

import math
from typing import NamedTuple

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
    learning_rate,
    make_clock,
    targets,
)
from ._filters import Clock, pick_filter
from ._layers import Kernels
from ._spectral_function import Eigendecomposition


class GaussianPrediction(NamedTuple):
    """Mean (*t, k, *out) and covariance (*t, k, k) of the outputs; outputs are independent."""

    mean: Array
    covariance: Array


class Ensemble(eqx.Module):
    """Infinitely wide networks in training on the square loss; made by `ensemble`."""

    spectrum: Eigendecomposition
    nngp_tt: Array
    y: Array
    across: tuple[Kernels, Array] | None
    ridge: ArrayLike
    reduction: str = eqx.field(static=True)

    def __call__(
        self, t: ArrayLike, discrete: bool = False, lr: ArrayLike = 1.0
    ) -> GaussianPrediction:
        """Mean and covariance of the outputs at time `t`.

        **Arguments:**

        - `t`: time, infinity included, or number of steps when `discrete`; its axes lead.
        - `discrete`: gradient descent step by step instead of gradient flow.
        - `lr`: learning rate; in continuous time the factor of the gradient.

        **Returns:**

        `GaussianPrediction(mean, covariance)` on the test points, or on the training points if
        there are none.
        """
        check_time(t, discrete)
        evaluate = pick_filter(discrete, None, None)
        rate = learning_rate(lr, self.reduction, self.y)
        clock = make_clock(self.spectrum, rate, self.ridge, None, None)
        n = self.y.shape[0]
        flat = self.y.reshape(n, -1)
        dtype = self.spectrum.eigenvalues.dtype

        def learned(w: Array, clock: Clock) -> Array:
            return jnp.maximum(w, 0) * evaluate(w, clock)

        def at(time):
            if self.across is None:
                gain = self.spectrum.apply(learned, clock(time), jnp.eye(n, dtype=dtype))
                k_ss, k_st = self.nngp_tt, self.nngp_tt
            else:
                kernels, k_ss = self.across
                k_st = kernels.nngp
                gain = self.spectrum.apply(evaluate, clock(time), kernels.ntk.T).T
            mean = (gain @ flat).reshape(gain.shape[0], *self.y.shape[1:])
            mixed = gain @ k_st.T
            covariance = k_ss + gain @ self.nngp_tt @ gain.T - mixed - mixed.T
            return GaussianPrediction(mean, covariance)

        return at_times(at, t, dtype)


def ensemble(
    kernels_tt: Kernels,
    y: ArrayLike,
    kernels_st: Kernels | None = None,
    nngp_ss: Float[Array | np.ndarray, "k k"] | None = None,
    reduction: str = "sum",
    ridge: ArrayLike = 0.0,
) -> Ensemble:
    """The law of infinitely wide networks in training on the square loss, as a function of time.

    Over random initialisations the outputs are Gaussian at all times. With `w_std` and `b_std` as
    in `mlp_kernels`, this is the law of the outputs themselves, not only of their mean.

    **Arguments:**

    - `kernels_tt`: `Kernels(nngp, ntk)` between the training points, each (n, n).
    - `y`: targets, (n, *out).
    - `kernels_st`: kernels between the test points and the training points, each (k, n).
    - `nngp_ss`: NNGP kernel between the test points, (k, k); needed with `kernels_st`.
    - `reduction`: "sum" or "mean" of the square errors over all outputs of all points.
    - `ridge`: as in `gradient_descent_mse`.

    **Returns:**

    `predict(t, discrete=False, lr=1.0) -> GaussianPrediction(mean, covariance)`.

    **Raises:**

    `ValueError` if the shapes do not fit or the tangent kernel is not symmetric and positive
    semidefinite.
    """
    check_choice("reduction", reduction, ("sum", "mean"))
    check_nonnegative("ridge", ridge)
    y = targets(y)
    n = y.shape[0]
    if (kernels_st is None) != (nngp_ss is None):
        raise ValueError("`kernels_st` and `nngp_ss` belong together: give both or neither.")
    spectrum = decompose("kernels_tt.ntk", kernels_tt.ntk, n, math.prod(y.shape[1:]))
    if kernels_tt.nngp.shape != (n, n) or kernels_tt.ntk.shape != (n, n):
        raise ValueError(
            f"`kernels_tt` must hold kernels of shape {(n, n)}, got {kernels_tt.nngp.shape} and "
            f"{kernels_tt.ntk.shape}."
        )
    across = None
    if kernels_st is not None and nngp_ss is not None:
        k = nngp_ss.shape[0]
        for part in kernels_st:
            as_matrix("kernels_st", part, k, n, 1)
        across = kernels_st, jnp.asarray(nngp_ss)
    return Ensemble(spectrum, kernels_tt.nngp, y, across, ridge, reduction)
