"""Losses of one prediction, and the batch loss that `fit` takes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from .._base import real_dtype
from ..curvature import as_likelihood, LikelihoodObjective


def _difference(pred: Array, true: Array) -> tuple[Array, Array]:
    if jnp.shape(pred) != jnp.shape(true):
        raise ValueError(
            f"`pred` and `true` must have the same shape, got {jnp.shape(pred)} and "
            f"{jnp.shape(true)}."
        )
    # Sums of squares of half-precision numbers overflow or lose most digits.
    dtype = jnp.promote_types(jnp.result_type(pred, true), jnp.float32)
    true = jnp.asarray(true, dtype)
    return jnp.asarray(pred, dtype) - true, true


def _abs2(x: Array) -> Array:
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x**2


def mse(pred: Inexact[Array, "*shape"], true: Inexact[Array, "*shape"]) -> Float[Array, ""]:
    """Mean squared error, `mean |pred - true|^2` over all entries.

    **Arguments:**

    - `pred`, `true`: arrays of one shape, real or complex.

    **Returns:**

    A real scalar of the precision of the inputs, at least float32.

    **Raises:**

    - `ValueError`: the shapes differ (they are not broadcast).
    """
    return jnp.mean(_abs2(_difference(pred, true)[0]))


def relative_l2(pred: Inexact[Array, "*shape"], true: Inexact[Array, "*shape"]) -> Float[Array, ""]:
    """Relative error in the Euclidean norm, `|pred - true| / |true|` over all entries.

    One sample per call: the usual training loss of neural operators is the mean over samples of
    this quantity (`supervised(relative_l2)`), not the ratio of the norms of whole batches. Its
    gradient at `pred = true`, where the norm has a corner, is zero.

    **Arguments:**

    - `pred`, `true`: arrays of one shape, real or complex.

    **Returns:**

    A real scalar of the precision of the inputs, at least float32; infinite if `true` is zero and
    `pred` is not, zero if both are.

    **Raises:**

    - `ValueError`: the shapes differ (they are not broadcast).
    """
    error, true = _difference(pred, true)

    def scaled(x):
        # Dividing by the largest entry keeps the squares from overflowing and underflowing.
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), initial=0))
        largest = jnp.where(largest > 0, largest, 1)
        return x / largest, largest

    error, error_scale = scaled(error)
    true, true_scale = scaled(true)
    error2, true2 = jnp.sum(_abs2(error)), jnp.sum(_abs2(true))
    exact = error2 == 0
    ratio2 = jnp.where(exact, 1, error2) / jnp.where(exact, 1, true2)
    zero = jnp.zeros((), real_dtype(ratio2))
    return jnp.where(exact, zero, jnp.sqrt(ratio2) * (error_scale / true_scale))


def supervised(
    metric: Callable[[Any, Any], Array] = mse,
) -> Callable[[PyTree, tuple[PyTree, PyTree], PRNGKeyArray], Float[Array, ""]]:
    """The batch loss of pairs: the mean over samples of `metric(model(x), y)`.

    **Arguments:**

    - `metric`: `(prediction, target) -> scalar` of one sample.

    **Returns:**

    `loss(model, (x, y), key) -> scalar` for [`fit`][jaxsci.train.fit]; the leading axis of `x` and
    `y` counts samples, `model(x)` takes one, and the key is not used.
    """

    def loss(model, batch, key):
        del key
        inputs, targets = batch
        return jnp.mean(jax.vmap(lambda x, y: metric(model(x), y))(inputs, targets))

    return loss


class LikelihoodLoss(eqx.Module):
    """The batch loss of [`likelihood_loss`][jaxsci.train.likelihood_loss]."""

    likelihood: Any

    def __call__(
        self, model: PyTree, batch: tuple[PyTree, PyTree], key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The mean over the examples of the batch."""
        return self.objective(batch, key)(model)

    def objective(self, batch: tuple[PyTree, PyTree], key: PRNGKeyArray) -> LikelihoodObjective:
        """The loss on a batch as a function of the model that shows its parts."""
        del key
        inputs, targets = batch
        return LikelihoodObjective(lambda model, x: model(x), self.likelihood, inputs, targets)


def likelihood_loss(likelihood: Any) -> LikelihoodLoss:
    """The batch loss of pairs under a likelihood: the mean over samples of -log p(y | model(x)).

    [`fit`][jaxsci.train.fit] hands transforms that precondition by Kronecker factors
    (`optim.kfac`, `optim.ekfac`) the model and the likelihood with it.

    **Arguments:**

    - `likelihood`: `"softmax"`, `"mse"`, `"bernoulli"` or an object, see
        [`as_likelihood`][jaxsci.curvature.as_likelihood].

    **Returns:**

    `loss(model, (x, y), key) -> scalar`; the leading axis of `x` and `y` counts samples, `model(x)`
    takes one, and the key is not used.

    **Raises:**

    `ValueError`, `TypeError` for another name or object.
    """
    return LikelihoodLoss(as_likelihood(likelihood))
