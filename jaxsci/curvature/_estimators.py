"""Estimators of the diagonal of a curvature matrix: one protocol, three matrices.

An estimator is a value without state and is not callable: `optax.inject_hyperparams` takes every
callable argument for a schedule.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from jaxsci._base import at_least_float32, check_at_least

from ._hutchinson import hutchinson_diag
from ._hvp import hvp
from ._objectives import CompositeObjective, MeanObjective
from ._probes import average_over_probes, rademacher_like


class AbstractDiagonalEstimator(eqx.Module):
    """Estimates the diagonal of a curvature matrix of an objective."""

    @abc.abstractmethod
    def diagonal(
        self, obj_fn: Callable[[PyTree], Any], params: PyTree, key: Key[Array, ""]
    ) -> PyTree:
        """The estimate at `params`.

        **Arguments:**

        - `obj_fn`: `params -> scalar`; some estimators ask for one of the objectives of this room.
        - `params`: pytree of real floating arrays.
        - `key`: a typed key.

        **Returns:**

        A pytree with the structure and the shapes of `params`, in their dtypes and at least
        float32.
        """


def _check_num_samples(num_samples: Any) -> None:
    if isinstance(num_samples, bool) or not isinstance(num_samples, int):
        raise TypeError(f"`num_samples` must be a Python int, got {num_samples!r}.")
    check_at_least("num_samples", num_samples, 1)


class Hutchinson(AbstractDiagonalEstimator):
    """The Hessian, by `hutchinson_diag`.

    **Arguments:**

    - `num_samples`: the number of probes, each one Hessian-vector product.
    """

    num_samples: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        _check_num_samples(self.num_samples)

    def diagonal(
        self, obj_fn: Callable[[PyTree], Any], params: PyTree, key: Key[Array, ""]
    ) -> PyTree:
        """The estimate at `params`; see `AbstractDiagonalEstimator.diagonal`."""
        return hutchinson_diag(obj_fn, params, key, self.num_samples)


class GaussNewtonDiagonal(AbstractDiagonalEstimator):
    """The generalised Gauss-Newton matrix J^T L J, by Rademacher probes.

    J is the Jacobian of the model, L the Hessian of the loss at its outputs (Schraudolph 2002,
    "Fast curvature matrix-vector products for second-order gradient descent"). Positive
    semidefinite where the loss is convex; equal to the Hessian where the model is linear.

    **Arguments:**

    - `num_samples`: the number of probes; all share one linearisation of the model.
    """

    num_samples: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        _check_num_samples(self.num_samples)

    def diagonal(
        self, obj_fn: Callable[[PyTree], Any], params: PyTree, key: Key[Array, ""]
    ) -> PyTree:
        """The estimate at `params`; `obj_fn` must be a `CompositeObjective`."""
        if not isinstance(obj_fn, CompositeObjective):
            raise TypeError(
                "`GaussNewtonDiagonal` needs `obj_fn` to be a `CompositeObjective(model_fn, "
                f"loss_fn)`, got {type(obj_fn).__name__}."
            )
        outputs, jvp = jax.linearize(obj_fn.model_fn, params)
        vjp = jax.linear_transpose(jvp, params)

        def sample(k):
            v = rademacher_like(k, params)
            (gv,) = vjp(hvp(obj_fn.loss_fn, outputs, jvp(v)))
            return jax.tree.map(lambda a, s: a.astype(at_least_float32(s)) * s, gv, v)

        return average_over_probes(sample, params, key, self.num_samples)


class EmpiricalFisherDiagonal(AbstractDiagonalEstimator):
    """The empirical Fisher matrix: the mean over examples of g g^T, g one example's gradient.

    **Arguments:**

    - `num_samples`: `None` computes the diagonal exactly, holding the gradient of every example at
        once. A number n instead averages n unbiased sketches (sum of +-g)^2 / batch, each at the
        cost of one gradient and in the memory of one.
    """

    num_samples: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.num_samples is not None:
            _check_num_samples(self.num_samples)

    def diagonal(
        self, obj_fn: Callable[[PyTree], Any], params: PyTree, key: Key[Array, ""]
    ) -> PyTree:
        """The estimate at `params`; `obj_fn` must be a `MeanObjective`."""
        if not isinstance(obj_fn, MeanObjective):
            raise TypeError(
                "`EmpiricalFisherDiagonal` needs `obj_fn` to be a `MeanObjective(losses_fn)`, "
                f"got {type(obj_fn).__name__}."
            )
        losses, vjp = jax.vjp(obj_fn.losses_fn, params)
        if jnp.ndim(losses) != 1:
            raise ValueError(
                f"`losses_fn` must return one loss an example, shape (batch,), got shape "
                f"{jnp.shape(losses)}."
            )

        def squares(grad: PyTree) -> PyTree:
            return jax.tree.map(lambda g: jnp.square(g.astype(at_least_float32(g))), grad)

        if self.num_samples is None:
            examples = jnp.eye(losses.size, dtype=losses.dtype)
            (grads,) = jax.vmap(vjp)(examples)
            return jax.tree.map(lambda s: jnp.mean(s, axis=0), squares(grads))

        def sample(k):
            (grad,) = vjp(rademacher_like(k, losses))
            return jax.tree.map(lambda s: s / losses.size, squares(grad))

        return average_over_probes(sample, params, key, self.num_samples)
