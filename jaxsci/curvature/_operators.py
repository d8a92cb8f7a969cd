"""Curvature matrices as lineax operators on the pytree of parameters.

With model f, loss l and outputs z = f(params), J the Jacobian of f and L the Hessian of l in z,

    Hessian                H = d^2 l(f) / d params^2
    Gauss-Newton           G = J^T L J
    Fisher                 F = (1/N) sum_i E_{y ~ p(.|z_i)} [g_i g_i^T],  g_i = -grad log p(y|z_i)
    empirical Fisher       E = (1/N) sum_i g_i g_i^T at the labels of the data

None is formed. Without `batches` the function is linearised once, when the operator is built; each
product then runs only the linear part, and what that needs of the function is held in memory. With
`batches` a product goes through the microbatches one after the other and linearises each anew: more
arithmetic, the memory of one microbatch.

On sharded examples a product leaves the parameters' layout alone: it is summed over devices once.

Pearlmutter 1994, "Fast exact multiplication by the Hessian"; Schraudolph 2002, "Fast curvature
matrix-vector products for second-order gradient descent"; Martens 2020 (arXiv:1412.1193).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Key, PyTree

from jaxsci._base import check_nonnegative, check_real_leaves

from ._likelihoods import AbstractLikelihood, as_likelihood
from ._objectives import scalar_valued
from ._symmetric_operator import SymmetricOperator


def hessian_operator(
    fn: Callable[..., Any], params: PyTree, *, batches: PyTree = None
) -> lx.AbstractLinearOperator:
    """The Hessian of `fn` at `params`.

    **Arguments:**

    - `fn`: `params -> scalar`; with `batches`, `(params, batch) -> scalar`.
    - `params`: pytree of real floating arrays.
    - `batches`: a pytree whose leaves have a leading axis over microbatches. The operator is then
        the Hessian of the mean of `fn(params, batch)` over them.

    **Returns:**

    A symmetric lineax operator from and to pytrees like `params`.

    **Raises:**

    `ValueError` if `fn` does not return a scalar; `TypeError` if a leaf of `params` is not a real
    floating array.
    """

    def linear_part(params, *batch):
        return jax.linearize(jax.grad(scalar_valued(lambda p: fn(p, *batch))), params)[1]

    def product(params, v, batch):
        return jax.jvp(jax.grad(scalar_valued(lambda p: fn(p, batch))), (params,), (v,))[1]

    return _operator(linear_part, product, params, batches, positive=False)


def ggn_operator(
    model_fn: Callable[..., PyTree],
    loss_fn: Callable[..., Any],
    params: PyTree,
    *,
    batches: PyTree = None,
) -> lx.AbstractLinearOperator:
    """The generalised Gauss-Newton matrix J^T L J of `loss_fn(model_fn(params))`.

    **Arguments:**

    - `model_fn`: maps the parameters to the outputs, any pytree of arrays; with `batches`,
        `(params, batch) -> outputs`.
    - `loss_fn`: maps the outputs to a scalar; with `batches`, `(outputs, batch) -> scalar`. It must
        be convex for the operator to be positive semidefinite, as it is tagged.
    - `params`: pytree of real floating arrays.
    - `batches`: as in [`hessian_operator`][jaxsci.curvature.hessian_operator].

    **Returns:**

    A positive semidefinite lineax operator from and to pytrees like `params`.

    **Raises:**

    As `hessian_operator`.
    """

    def linear_part(params, *batch):
        outputs, jvp = jax.linearize(lambda p: model_fn(p, *batch), params)
        vjp = jax.linear_transpose(jvp, params)
        loss_hessian = jax.linearize(
            jax.grad(scalar_valued(lambda z: loss_fn(z, *batch))), outputs
        )[1]
        return lambda v: vjp(loss_hessian(jvp(v)))[0]

    def product(params, v, batch):
        return linear_part(params, batch)(v)

    return _operator(linear_part, product, params, batches, positive=True)


def fisher_operator(
    model_fn: Callable[..., Any],
    params: PyTree,
    likelihood: Any,
    *,
    key: Key[Array, ""] | None = None,
    targets: PyTree = None,
    batches: PyTree = None,
) -> lx.AbstractLinearOperator:
    """The Fisher matrix, averaged over examples; the labels are the model's own.

    **Arguments:**

    - `model_fn`: `params -> outputs`, with a leading axis over examples; with `batches`,
        `(params, batch) -> outputs`.
    - `params`: pytree of real floating arrays.
    - `likelihood`: "softmax", "mse" (half the squared error), "bernoulli", or an object, see
        [`as_likelihood`][jaxsci.curvature.as_likelihood].
    - `key`: `None` takes the expectation over labels exactly, as the Gauss-Newton matrix of the
        likelihood. A typed key draws one label for each example instead: unbiased, at the price of
        an empirical Fisher product. The labels are fixed when the operator is built.
    - `targets`: the labels of the data, only to leave out the positions they mask, for likelihoods
        that have masks. Not together with `batches`.
    - `batches`: as in [`hessian_operator`][jaxsci.curvature.hessian_operator].

    **Returns:**

    A positive semidefinite lineax operator from and to pytrees like `params`.

    **Raises:**

    `ValueError` for another name, or exact labels of an object that is not an
    [`AbstractLikelihood`][jaxsci.curvature.AbstractLikelihood]; `TypeError` if a leaf of `params`
    is not a real floating array.
    """
    likelihood = as_likelihood(likelihood)
    if targets is not None and batches is not None:
        raise ValueError("`targets` must be None where `batches` is given, got both.")
    if key is None and not isinstance(likelihood, AbstractLikelihood):
        raise ValueError(
            "`key` must be given for a `likelihood` whose Hessian is not known to be free of the "
            f"labels, got None and {likelihood!r}: subclass `AbstractLikelihood`, or sample."
        )

    def drawn_labels(outputs, key):
        outputs = jax.lax.stop_gradient(outputs)
        keys = jax.random.split(key, jax.tree.leaves(outputs)[0].shape[0])
        labels = jax.vmap(likelihood.sample)(keys, outputs)
        if targets is None or not isinstance(likelihood, AbstractLikelihood):
            return labels
        mask = likelihood.mask(targets)
        return labels if mask is None else jnp.where(mask, labels, targets)

    # A label enters the Hessian of such a likelihood only through its mask: any draw does.
    label_key = jax.random.key(0) if key is None else key
    keyed = None
    if batches is not None:
        count = jax.tree.leaves(batches)[0].shape[0]
        keyed = (jax.random.split(label_key, count), batches)

    def outputs_of(params, batch=(label_key,)):
        return model_fn(params, *batch[1:])

    def losses_of_outputs(outputs, batch=(label_key,)):
        return jax.vmap(likelihood.loss)(outputs, drawn_labels(outputs, batch[0]))

    if key is None:
        return ggn_operator(
            outputs_of,
            lambda *z: jnp.mean(losses_of_outputs(*z)),
            params,
            batches=keyed,
        )

    def losses(params, *batch):
        return losses_of_outputs(outputs_of(params, *batch), *batch)

    return empirical_fisher_operator(losses, params, batches=keyed)


def empirical_fisher_operator(
    losses_fn: Callable[..., Any], params: PyTree, *, batches: PyTree = None
) -> lx.AbstractLinearOperator:
    """The empirical Fisher matrix (1/N) sum_i g_i g_i^T, g_i the gradient of example i.

    With J the Jacobian of the N losses a product is J^T (J v) / N: no gradient of an example is
    formed.

    **Arguments:**

    - `losses_fn`: `params -> (N,)`, one loss an example; with `batches`, `(params, batch) -> (N,)`.
    - `params`: pytree of real floating arrays.
    - `batches`: as in [`hessian_operator`][jaxsci.curvature.hessian_operator].

    **Returns:**

    A positive semidefinite lineax operator from and to pytrees like `params`.

    **Raises:**

    `ValueError` if `losses_fn` does not return a vector; `TypeError` if a leaf of `params` is not
    a real floating array.
    """

    def linear_part(params, *batch):
        losses, jvp = jax.linearize(lambda p: losses_fn(p, *batch), params)
        if jnp.ndim(losses) != 1:
            raise ValueError(
                "`losses_fn` must return one loss an example, shape (N,), got shape "
                f"{jnp.shape(losses)}."
            )
        vjp = jax.linear_transpose(jvp, params)
        return lambda v: vjp(jvp(v) / losses.size)[0]

    def product(params, v, batch):
        return linear_part(params, batch)(v)

    return _operator(linear_part, product, params, batches, positive=True)


def damped_operator(
    operator: lx.AbstractLinearOperator,
    damping: ArrayLike,
    *,
    positive_semidefinite: bool = False,
) -> lx.AbstractLinearOperator:
    """`operator + damping * I`, tagged for the solvers of lineax.

    A plain sum of lineax operators loses the tag that `lineax.CG` asks for.

    **Arguments:**

    - `operator`: a symmetric operator.
    - `damping`: a scalar, at least zero.
    - `positive_semidefinite`: claim that the sum is, though `operator` is not: a Hessian whose
        smallest eigenvalue is above `-damping`.

    **Returns:**

    A symmetric operator with the structures of `operator`; positive semidefinite if `operator` is,
    or by the claim.

    **Raises:**

    `ValueError` if `damping` is negative or `operator` is not symmetric.
    """
    check_nonnegative("damping", damping)
    check_symmetric("operator", operator)
    positive = positive_semidefinite or lx.is_positive_semidefinite(operator)

    def product(v):
        return jax.tree.map(
            lambda a, x: a + jnp.asarray(damping, a.dtype) * x.astype(a.dtype), operator.mv(v), v
        )

    return SymmetricOperator(product, operator.in_structure(), positive)


def check_symmetric(name: str, operator: lx.AbstractLinearOperator) -> None:
    """Raise unless lineax knows `operator` to be symmetric."""
    if not (lx.is_symmetric(operator) or lx.is_positive_semidefinite(operator)):
        raise ValueError(
            f"`{name}` must be symmetric and say so by its tags, got {type(operator).__name__} "
            "without a symmetric tag; wrap it in "
            "`lineax.TaggedLinearOperator(operator, lineax.symmetric_tag)` if it is."
        )


def _operator(
    linear_part: Callable[..., Any],
    product: Callable[..., PyTree],
    params: PyTree,
    batches: PyTree,
    positive: bool,
) -> lx.AbstractLinearOperator:
    if not jax.tree.leaves(params):
        raise ValueError("`params` must have at least one array, got none.")
    check_real_leaves("params", params)
    params = jax.tree.map(jnp.asarray, params)
    if batches is None:
        return SymmetricOperator(linear_part(params), params, positive)
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(batches)}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(
            "`batches` must have leaves with one common leading axis over microbatches, got the "
            f"shapes {[jnp.shape(x) for x in jax.tree.leaves(batches)]}."
        )
    count = sizes.pop()[0]

    def mean_product(v):
        def add(total, batch):
            return jax.tree.map(jnp.add, total, product(params, v, batch)), None

        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), batches)
        return jax.tree.map(lambda x: x / count, total)

    return SymmetricOperator(mean_product, params, positive)
