"""Likelihoods: the losses -log p(y | f) whose Fisher matrix is their Gauss-Newton matrix.

For an exponential family with the outputs f as natural parameters (or a Gaussian with its mean) the
Hessian H of the loss in f does not depend on the label, and

    H = E_{y ~ p(.|f)}[g g^T] = sum_k B_k B_k^T,   g = d loss / d f.

So the expectation over labels drawn from the model needs no drawing: backpropagating the columns
B_k of a square root of H sums the same outer products exactly. With p = softmax(f) and q = sqrt(p)
a unit vector, H = diag(p) - p p^T = diag(q) (I - q q^T) diag(q), and a Householder reflection that
takes q to an axis splits the projection into one column less than there are classes.

Martens 2020, "New insights and perspectives on the natural gradient method" (arXiv:1412.1193).
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxsci._base import check_choice


class AbstractLikelihood(eqx.Module):
    """The loss of one example, its labels' distribution, and a square root of its Hessian."""

    @abc.abstractmethod
    def loss(self, outputs: Any, labels: Any) -> Float[Array, ""]:
        """-log p(labels | outputs) of one example, up to a constant; summed over positions."""

    @abc.abstractmethod
    def sample(self, key: Key[Array, ""], outputs: Any) -> Any:
        """Labels drawn from p(. | outputs)."""

    @abc.abstractmethod
    def num_columns(self, outputs: Any) -> int:
        """The number of columns of the square root, from the shape of the outputs."""

    @abc.abstractmethod
    def root_column(self, outputs: Any, index: Int[Array, ""]) -> Any:
        """Column `index` of a square root of the Hessian of the loss, shaped like the outputs."""

    @abc.abstractmethod
    def mask(self, labels: Any) -> Bool[Array, "..."] | None:
        """Which positions of the labels count; None if all do."""


def _check_shapes(name: str, outputs: Array, labels: Array, wanted: tuple[int, ...]) -> None:
    if jnp.shape(labels) != wanted:
        raise ValueError(
            f"The labels of {name} must have shape {wanted} for outputs of shape "
            f"{jnp.shape(outputs)} (one example), got {jnp.shape(labels)}."
        )


class CategoricalLikelihood(AbstractLikelihood):
    """Softmax cross-entropy of logits `(*positions, classes)` with integer labels `(*positions,)`.

    The losses of the positions are summed; a negative label leaves its position out.
    """

    def loss(
        self, outputs: Float[Array, "*positions classes"], labels: Int[Array, "*positions"]
    ) -> Float[Array, ""]:
        """-sum log softmax(outputs)[labels]."""
        _check_shapes("a categorical likelihood", outputs, labels, jnp.shape(outputs)[:-1])
        kept = labels >= 0
        index = jnp.where(kept, labels, 0)[..., None]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(outputs, axis=-1), index, axis=-1)[..., 0]
        return -jnp.sum(jnp.where(kept, log_p, 0))

    def sample(
        self, key: Key[Array, ""], outputs: Float[Array, "*positions classes"]
    ) -> Int[Array, "*positions"]:
        """Labels drawn from the softmax."""
        return jax.random.categorical(key, outputs)

    def num_columns(self, outputs: Any) -> int:
        """`positions * (classes - 1)`."""
        *positions, classes = jnp.shape(outputs)
        return math.prod(positions) * (classes - 1)

    def root_column(
        self, outputs: Float[Array, "*positions classes"], index: Int[Array, ""]
    ) -> Float[Array, "*positions classes"]:
        """diag(q) times a column of the reflection that takes q = sqrt(p) to the first axis."""
        shape = jnp.shape(outputs)
        position, column = index // (shape[-1] - 1), index % (shape[-1] - 1) + 1
        logits = outputs.reshape(-1, shape[-1])
        q = jnp.exp(0.5 * jax.nn.log_softmax(logits[position]))
        v = q.at[0].add(1)
        reflection = (jnp.arange(shape[-1]) == column) - v * (q[column] / (1 + q[0]))
        return jnp.zeros_like(logits).at[position].set(q * reflection).reshape(shape)

    def mask(self, labels: Int[Array, "*positions"]) -> Bool[Array, "*positions"]:
        """Labels that are not negative."""
        return labels >= 0


class GaussianLikelihood(AbstractLikelihood):
    """Half the squared error, `1/2 |outputs - labels|^2`: a Gaussian of unit variance."""

    def loss(self, outputs: Float[Array, "*shape"], labels: Any) -> Float[Array, ""]:
        """Half the squared distance."""
        _check_shapes("a Gaussian likelihood", outputs, labels, jnp.shape(outputs))
        return 0.5 * jnp.sum(jnp.square(outputs - labels))

    def sample(self, key: Key[Array, ""], outputs: Float[Array, "*shape"]) -> Array:
        """The outputs plus unit noise."""
        return outputs + jax.random.normal(key, jnp.shape(outputs), outputs.dtype)

    def num_columns(self, outputs: Any) -> int:
        """The number of outputs."""
        return math.prod(jnp.shape(outputs))

    def root_column(
        self, outputs: Float[Array, "*shape"], index: Int[Array, ""]
    ) -> Float[Array, "*shape"]:
        """A unit vector."""
        unit = jnp.arange(math.prod(jnp.shape(outputs))) == index
        return unit.astype(outputs.dtype).reshape(jnp.shape(outputs))

    def mask(self, labels: Any) -> None:
        """Every position counts."""
        return None


class BernoulliLikelihood(AbstractLikelihood):
    """Sigmoid cross-entropy of logits with labels of the same shape in {0, 1}, summed.

    A negative label leaves its position out.
    """

    def loss(self, outputs: Float[Array, "*shape"], labels: Any) -> Float[Array, ""]:
        """sum softplus(outputs) - labels * outputs."""
        _check_shapes("a Bernoulli likelihood", outputs, labels, jnp.shape(outputs))
        terms = jax.nn.softplus(outputs) - labels * outputs
        return jnp.sum(jnp.where(labels >= 0, terms, 0))

    def sample(self, key: Key[Array, ""], outputs: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Labels drawn from the sigmoid."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(outputs)).astype(jnp.int32)

    def num_columns(self, outputs: Any) -> int:
        """The number of logits."""
        return math.prod(jnp.shape(outputs))

    def root_column(
        self, outputs: Float[Array, "*shape"], index: Int[Array, ""]
    ) -> Float[Array, "*shape"]:
        """A unit vector times sqrt(p (1 - p))."""
        root = jnp.exp(0.5 * (jax.nn.log_sigmoid(outputs) + jax.nn.log_sigmoid(-outputs)))
        unit = jnp.arange(math.prod(jnp.shape(outputs))) == index
        return root * unit.reshape(jnp.shape(outputs))

    def mask(self, labels: Any) -> Bool[Array, "..."]:
        """Labels that are not negative."""
        return labels >= 0


_BY_NAME = {
    "softmax": CategoricalLikelihood(),
    "mse": GaussianLikelihood(),
    "bernoulli": BernoulliLikelihood(),
}


def as_likelihood(loss: Any) -> Any:
    """The likelihood of a name, or the object given if it has the methods `sample` and `loss`.

    **Arguments:**

    - `loss`: `"softmax"`, `"mse"` (half the squared error), `"bernoulli"`; or an object with
        `sample(key, outputs) -> labels` and `loss(outputs, labels) -> scalar`.

    **Returns:**

    An `AbstractLikelihood`, or the object.

    **Raises:**

    `ValueError` for another name; `TypeError` for an object without these methods.
    """
    if isinstance(loss, str):
        check_choice("loss", loss, tuple(_BY_NAME))
        return _BY_NAME[loss]
    for method in ("sample", "loss"):
        if not callable(getattr(loss, method, None)):
            raise TypeError(
                f"`loss` must be one of {', '.join(map(repr, _BY_NAME))} or have the methods "
                f"`sample(key, outputs)` and `loss(outputs, labels)`, got {loss!r}."
            )
    return loss


def label_mask(likelihood: Any, labels: PyTree) -> Any:
    return likelihood.mask(labels) if isinstance(likelihood, AbstractLikelihood) else None


def num_cotangents(likelihood: Any, labels: str, outputs: Any) -> int:
    """How many backward passes an example takes: one, or for exact labels one a column."""
    return likelihood.num_columns(outputs) if labels == "exact" else 1


def output_cotangent(
    likelihood: Any, labels: str, outputs: Any, targets: Any, key: Any, index: Int[Array, ""]
) -> Any:
    """Cotangent `index` of the outputs of one example; their outer products sum to the Fisher's.

    **Arguments:**

    - `likelihood`: as from `as_likelihood`.
    - `labels`: "exact" (a column of the square root), "sampled" or "empirical" (the gradient at a
        label drawn from the model, or at the target).
    - `outputs`, `targets`: of one example; targets may be None unless labels are empirical.
    - `key`: a typed key, for sampled labels.
    - `index`: which, below `num_cotangents`.
    """
    mask = None if targets is None else label_mask(likelihood, targets)
    if labels == "exact":
        column = likelihood.root_column(outputs, index)
        if mask is None:
            return column
        mask = mask.reshape(mask.shape + (1,) * (column.ndim - mask.ndim))
        return jnp.where(mask, column, 0)
    if labels == "sampled":
        drawn = likelihood.sample(key, outputs)
        if mask is not None:
            drawn = jnp.where(mask, drawn, jnp.asarray(targets).astype(drawn.dtype))
        targets = jax.lax.stop_gradient(drawn)
    return jax.grad(likelihood.loss)(outputs, targets)
