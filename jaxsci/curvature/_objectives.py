"""Objectives: functions `params -> scalar`, and those that also show the parts they are made of.

A Hessian needs only the scalar function. The Gauss-Newton matrix and the empirical Fisher matrix
are not properties of that function alone: the first needs the split into model and loss, the second
the terms of the mean; Kronecker factors need the model of one example and its likelihood. An
objective of this file is called like the plain function, so it stands wherever an `obj_fn` does,
and carries the parts with it.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._likelihoods import as_likelihood


class AbstractObjective(eqx.Module):
    """A scalar objective of `params` that shows its parts."""

    @abc.abstractmethod
    def __call__(self, params: PyTree) -> Float[Array, ""]:
        """The value at `params`."""

    @abc.abstractmethod
    def precompose(self, fn: Callable[[PyTree], PyTree]) -> "AbstractObjective":
        """The objective of other parameters q with `params = fn(q)`."""


class CompositeObjective(AbstractObjective):
    """`loss_fn(model_fn(params))`: a model followed by a loss that is convex in its outputs.

    **Arguments:**

    - `model_fn`: maps the parameters to the outputs, any pytree of arrays.
    - `loss_fn`: maps the outputs to a scalar.
    """

    model_fn: Callable[[PyTree], PyTree]
    loss_fn: Callable[[PyTree], Any]

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        """The value at `params`."""
        return self.loss_fn(self.model_fn(params))

    def precompose(self, fn: Callable[[PyTree], PyTree]) -> "CompositeObjective":
        """The objective of other parameters q with `params = fn(q)`."""
        return CompositeObjective(lambda q: self.model_fn(fn(q)), self.loss_fn)


class MeanObjective(AbstractObjective):
    """`mean(losses_fn(params))`: a mean over examples.

    **Arguments:**

    - `losses_fn`: maps the parameters to the loss of each example, shape `(batch,)`.
    """

    losses_fn: Callable[[PyTree], Any]

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        """The value at `params`."""
        return jnp.mean(self.losses_fn(params))

    def precompose(self, fn: Callable[[PyTree], PyTree]) -> "MeanObjective":
        """The objective of other parameters q with `params = fn(q)`."""
        return MeanObjective(lambda q: self.losses_fn(fn(q)))


class LikelihoodObjective(AbstractObjective):
    """`mean_i -log p(y_i | model_fn(params, x_i))`: a model of one example under a likelihood.

    **Arguments:**

    - `model_fn`: `(params, x) -> outputs` of one example.
    - `likelihood`: a name or an object, see [`as_likelihood`][jaxsci.curvature.as_likelihood].
    - `inputs`, `targets`: the batch, pytrees whose leaves have a leading axis over examples.

    **Raises:**

    `ValueError`, `TypeError` for another name or object.
    """

    model_fn: Callable[[PyTree, Any], Any]
    likelihood: Any
    inputs: PyTree
    targets: PyTree

    def __init__(
        self,
        model_fn: Callable[[PyTree, Any], Any],
        likelihood: Any,
        inputs: PyTree,
        targets: PyTree,
    ):
        self.model_fn = model_fn
        self.likelihood = as_likelihood(likelihood)
        self.inputs, self.targets = inputs, targets

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        """The value at `params`."""

        def one(x, y):
            return self.likelihood.loss(self.model_fn(params, x), y)

        return jnp.mean(jax.vmap(one)(self.inputs, self.targets))

    def precompose(self, fn: Callable[[PyTree], PyTree]) -> "LikelihoodObjective":
        """The objective of other parameters q with `params = fn(q)`."""

        def model_fn(q, x):
            return self.model_fn(fn(q), x)

        return LikelihoodObjective(model_fn, self.likelihood, self.inputs, self.targets)


def scalar_valued(obj_fn: Callable[[PyTree], Any]) -> Callable[[PyTree], Float[Array, ""]]:
    """`obj_fn`, with a clear error where it returns anything but one real floating scalar."""

    def checked(params: PyTree) -> Float[Array, ""]:
        value = obj_fn(params)
        ok = len(jax.tree.leaves(value)) == 1 and jax.tree.leaves(value)[0] is value
        if not ok:
            raise ValueError(
                f"`obj_fn` must return one scalar, got the pytree {jax.tree.structure(value)}; "
                "leave auxiliary outputs out, e.g. `lambda p: loss(p)[0]`."
            )
        if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise ValueError(
                "`obj_fn` must return a real floating scalar, got "
                f"shape {jnp.shape(value)} and dtype {jnp.result_type(value)}."
            )
        return value

    return checked
