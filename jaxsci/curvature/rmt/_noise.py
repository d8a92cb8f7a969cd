"""The noise of batch Hessians, measured with Hessian-vector products.

Drawing B of N examples without replacement gives the noise of a batch of the effective size b,
1/b = 1/B - 1/N. `noise` stands for P sigma^2 throughout, the part that does not depend on the batch
size: an entry of the noise has variance sigma^2 / b, and s^2 = noise / b.

In a network the entries are far from independent and alike. What lifts the top eigenvalue is the
noise along its own eigenvector, which can be many times that of the average direction; in the
independent model both are equal.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from jaxsci._base import at_least_float32, check_at_least, is_concrete

from .._probes import average_over_probes, rademacher_like
from ._values import real_values


def effective_batch_size(
    batch_size: ArrayLike, n_data: ArrayLike | None = None
) -> Float[Array, "*shape"]:
    """b with 1/b = 1/B - 1/N: the batch size whose noise, drawn with replacement, is the same.

    **Arguments:**

    - `batch_size`: B, from 1 to `n_data`.
    - `n_data`: N, the number of examples to draw from; `None` is infinite.

    **Returns:**

    b; infinite for B = N.

    **Raises:**

    `ValueError` if B is below one or above N.
    """
    inverse = inverse_batch_size(batch_size, n_data)
    return jnp.where(inverse > 0, 1 / jnp.where(inverse > 0, inverse, 1), jnp.inf)


def inverse_batch_size(batch_size: ArrayLike, n_data: ArrayLike | None = None) -> Array:
    """1 / b, zero for the whole data set."""
    check_at_least("batch_size", batch_size, 1)
    if n_data is None:
        (size,) = real_values(batch_size)
        return 1 / size
    if is_concrete(batch_size, n_data) and not np.all(np.asarray(batch_size) <= np.asarray(n_data)):
        raise ValueError(
            f"`batch_size` must be at most `n_data`, {n_data!r}, got {batch_size!r}: there are no "
            "more examples to draw without replacement."
        )
    size, total = real_values(batch_size, n_data)
    return jnp.maximum(1 / size - 1 / total, 0)


def batch_noise(
    batch_hvp: Callable[[Any, PyTree], PyTree],
    lam1: ArrayLike,
    u1: PyTree,
    batches: PyTree,
    n_data: ArrayLike | None = None,
) -> Float[Array, ""]:
    """The noise along the top eigenvector, s1^2 = b E|H_b u1 - lam1 u1|^2, one product a batch.

    **Arguments:**

    - `batch_hvp`: `(batch, v) -> H_b v`, the Hessian-vector product of one batch.
    - `lam1`, `u1`: the largest eigenvalue of the Hessian of all data and its unit eigenvector, as
        from [`extremal_eigs`][jaxsci.curvature.extremal_eigs].
    - `batches`: a pytree whose leaves have the leading axes `(batches, examples)`, of examples or
        of indices, whichever `batch_hvp` takes; or a list of batches of one size.
    - `n_data`: the number of examples the batches were drawn from without replacement; `None` for
        drawing with replacement.

    **Returns:**

    s1^2, to be given to the rules of this subpackage as `noise`.

    **Raises:**

    `ValueError` if the leaves of `batches` differ in their leading axes, or a batch is larger than
    `n_data`.
    """
    batches, size = _stacked(batches)
    types = [at_least_float32(x) for x in jax.tree.leaves(u1)]
    dtype = jnp.result_type(*types)

    def square(batch):
        image = batch_hvp(batch, u1)
        return _squared_norm(
            jax.tree.map(lambda h, u: h - jnp.asarray(lam1, h.dtype) * u, image, u1), dtype
        )

    return _per_inverse(jnp.mean(jax.lax.map(square, batches)), size, n_data)


def bulk_noise(
    batch_hvp: Callable[[Any, PyTree], PyTree],
    operator: lx.AbstractLinearOperator,
    key: Key[Array, ""],
    batches: PyTree,
    n_data: ArrayLike | None = None,
    *,
    num_probes: int = 1,
) -> Float[Array, ""]:
    """The noise of the average direction, P sigma^2 = b E|(H_b - H) v|^2 / P, v random signs.

    It sets the edges of the bulk, and the negative end of the spectrum of a batch.

    **Arguments:**

    - `batch_hvp`: `(batch, v) -> H_b v`.
    - `operator`: the Hessian H of all data.
    - `key`: a typed key.
    - `batches`, `n_data`: as in [`batch_noise`][jaxsci.curvature.rmt.batch_noise].
    - `num_probes`: the number of probes, each one product with every batch and one with `operator`.

    **Returns:**

    P sigma^2, in the units of `batch_noise`.

    **Raises:**

    As `batch_noise`; `ValueError` if `num_probes < 1`.
    """
    check_at_least("num_probes", num_probes, 1)
    batches, size = _stacked(batches)
    structure = operator.in_structure()
    leaves = jax.tree.leaves(structure)
    dtype = jnp.result_type(*map(at_least_float32, leaves))
    entries = sum(int(np.prod(x.shape)) for x in leaves)

    def sample(k):
        v = rademacher_like(k, structure)
        image = operator.mv(v)

        def square(batch):
            difference = jax.tree.map(jnp.subtract, batch_hvp(batch, v), image)
            return _squared_norm(difference, dtype)

        return jnp.mean(jax.lax.map(square, batches)) / entries

    mean = average_over_probes(sample, jnp.zeros((), dtype), key, num_probes)
    return _per_inverse(mean, size, n_data)


def _stacked(batches: PyTree) -> tuple[PyTree, int]:
    """The batches as one pytree with leading axes (batches, examples), and their size."""
    if isinstance(batches, list):
        if not batches:
            raise ValueError("`batches` must hold at least one batch, got none.")
        batches = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(a) for a in x]), *batches)
    batches = jax.tree.map(jnp.asarray, batches)
    shapes = {x.shape[:2] for x in jax.tree.leaves(batches)}
    if len(shapes) != 1 or len(min(shapes)) < 2:
        raise ValueError(
            "`batches` must have leaves with the same two leading axes, (batches, examples), got "
            f"the shapes {[x.shape for x in jax.tree.leaves(batches)]}."
        )
    return batches, shapes.pop()[1]


def _squared_norm(tree: PyTree, dtype: Any) -> Array:
    squares = jax.tree.map(lambda x: jnp.sum(jnp.square(x.astype(dtype))), tree)
    return sum(jax.tree.leaves(squares), jnp.zeros((), dtype))


def _per_inverse(mean: Array, size: int, n_data: ArrayLike | None) -> Array:
    inverse = inverse_batch_size(size, n_data).astype(mean.dtype)
    # A batch of all the data has no noise and tells nothing about that of a smaller one.
    return jnp.where(inverse > 0, mean / jnp.where(inverse > 0, inverse, 1), 0)
