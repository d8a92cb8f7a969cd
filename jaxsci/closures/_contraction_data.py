"""A-priori learning of a closure: snapshots of a kinetic run, the loss and the metric."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from .._base import check_at_least
from ._active_fluid import ActiveFluid
from ._closure import Closure, contracted_moment
from ._moments import contract_fourth_moment


class ContractionData(eqx.Module):
    """Local states and the contraction S:T that a closure is to predict from them.

    Arrays have samples along their leading axis, snapshots (grid shape (N_x, N_y)) or points (grid
    shape ()), as `jaxsci.train.minibatches` takes them.

    **Arguments:**

    - `c`, `z`, `eps`: concentration, second angular mode and rate of strain, (samples, *grid).
    - `zeta`: strength of the steric alignment of each sample, (samples,).
    - `target`: components 11, 12, 22 of S:T, T = E + 2 zeta D, (samples, 3, *grid).
    """

    c: Float[Array, "samples *grid"]
    z: Complex[Array, "samples *grid"]
    eps: Complex[Array, "samples *grid"]
    zeta: Float[Array, " samples"]
    target: Float[Array, "samples 3 *grid"]

    def points(self) -> "ContractionData":
        """The same data with every grid point a sample of its own."""
        points_a_sample = self.c[0].size
        return ContractionData(
            self.c.reshape(-1),
            self.z.reshape(-1),
            self.eps.reshape(-1),
            jnp.repeat(self.zeta, points_a_sample),
            jnp.moveaxis(self.target, 1, -1).reshape(-1, 3),
        )

    def select(self, samples: Int[Array, " selected"]) -> "ContractionData":
        """Some of the samples.

        **Arguments:**

        - `samples`: their indices.
        """
        return jax.tree.map(lambda x: x[samples], self)


def contraction_data(fluid: ActiveFluid, ys: dict[str, Array]) -> ContractionData:
    """Snapshots of a kinetic run as training data, with the exact S:T.

    **Arguments:**

    - `fluid`: the kinetic model, without a closure.
    - `ys`: states along a leading axis, as saved by `jaxsci.integrate.rollout`.

    **Raises:** `ValueError` if `fluid` has a closure, whose S:T is no truth.
    """
    if fluid.closure is not None:
        raise ValueError("`fluid` must be a kinetic model, without a closure.")

    def one(y):
        f = fluid.fields(y)
        zeta = fluid.params.zeta.astype(f.c.dtype)
        tau = f.eps + zeta * f.z
        assert f.a4 is not None
        trace, traceless = contract_fourth_moment(f.c, f.z, f.a4, 2 * zeta * f.c, tau)
        target = jnp.stack([trace / 2 + traceless.real, traceless.imag, trace / 2 - traceless.real])
        return ContractionData(*(x[None] for x in (f.c, f.z, f.eps, zeta, target)))

    batched = jax.lax.map(one, ys)
    return jax.tree.map(lambda x: x[:, 0], batched)


def _predict(closure: Closure, data: ContractionData) -> Float[Array, "samples 3 *grid"]:
    def one(c, z, eps, zeta):
        return contracted_moment(closure, c, z, eps, zeta)

    return jax.vmap(one)(data.c, data.z, data.eps, data.zeta)


def contraction_loss(closure: Closure, batch: ContractionData, key: Any = None) -> Float[Array, ""]:
    """Mean squared error of the three components of S:T; a loss for `jaxsci.train.fit`.

    **Arguments:**

    - `closure`: the closure.
    - `batch`: samples.
    - `key`: not used.
    """
    del key
    return jnp.mean((_predict(closure, batch) - batch.target) ** 2)


def contraction_errors(closure: Closure, data: ContractionData) -> Float[Array, " samples"]:
    """Relative error of each snapshot: mean over components of mean((p - t)^2)/mean(t^2).

    The mean over snapshots is the metric of Maddu et al. (2024).

    **Arguments:**

    - `closure`: the closure.
    - `data`: snapshots.
    """
    axes = tuple(range(2, data.target.ndim))
    error = jnp.mean((_predict(closure, data) - data.target) ** 2, axis=axes)
    return jnp.mean(error / jnp.mean(data.target**2, axis=axes), axis=1)


def acquire_worst(
    errors: Float[Array, " samples"], used: Int[Array, " used"], num: int
) -> Int[Array, " num"]:
    """Active learning: indices of the samples of largest error among those not used yet.

    A sample is a snapshot, or a simulation at one (alpha, zeta); train, evaluate the errors of the
    whole pool, add the worst, train again.

    **Arguments:**

    - `errors`: error of every sample of the pool; NaN counts as the largest.
    - `used`: indices of the samples trained on already.
    - `num`: number of samples to add.

    **Raises:** `ValueError` if `num` is not between 1 and the number of unused samples, counting
    entries of `used` as distinct.
    """
    check_at_least("num", num, 1)
    available = errors.shape[0] - used.shape[0]
    if num > available:
        raise ValueError(f"`num` must be at most the {available} unused samples, got {num}.")
    ranked = jnp.where(jnp.isnan(errors), jnp.inf, errors)
    taken = jnp.zeros(errors.shape, bool).at[used].set(True)
    order = jnp.lexsort((-ranked, taken))
    return order[:num]
