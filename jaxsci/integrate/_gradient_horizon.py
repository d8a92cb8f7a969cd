"""`gradient_horizon`: how far a gradient through a chaotic flow means anything.

A perturbation grows as exp(rate t), rate the largest Lyapunov exponent, and so does the gradient of
a loss of the state after t. It describes the response to a change of relative size eps only while
eps exp(rate t) is small: t < log(1/eps)/rate. Benettin et al. 1980; Metz et al. 2021,
arXiv 2111.05803.
"""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from .._base import check_at_least, check_interval, real_dtype
from ._rollout import make_step


class GradientHorizon(eqx.Module):
    """What `gradient_horizon` returns.

    **Attributes:**

    - `growth_rate`: the largest Lyapunov exponent, per unit of time.
    - `standard_error`: its statistical error.
    - `length`: time over which gradients are useful; infinite where nothing grows.
    - `num_steps`: the same in steps, rounded down (float, may be infinite).
    """

    growth_rate: Float[Array, ""]
    standard_error: Float[Array, ""]
    length: Float[Array, ""]
    num_steps: Float[Array, ""]


def gradient_horizon(
    solver: diffrax.AbstractSolver,
    term: PyTree[diffrax.AbstractTerm],
    y0: PyTree[Array],
    *,
    dt: Float[ArrayLike, ""],
    num_steps: int,
    key: PRNGKeyArray,
    t0: Float[ArrayLike, ""] = 0.0,
    args: Any = None,
    spin_up: int = 0,
    perturbation: float = 1e-3,
    batches: int = 20,
) -> GradientHorizon:
    """Growth rate of perturbations of a flow, and the time over which its gradients are useful.

    A random perturbation is carried along the solution by forward-mode differentiation of the steps
    and rescaled to length one after each; the mean logarithm of the factors is the rate. The length
    is log(1/perturbation)/rate.

    **Arguments:**

    - `solver`, `term`, `y0`, `dt`, `t0`, `args`: as for `rollout`. Runge-Kutta methods of diffrax
        need `scan_kind="lax"` for forward-mode differentiation.
    - `num_steps`: steps to average over; the error falls with its root.
    - `key`: key of the first perturbation.
    - `spin_up`: steps before those, for the solution to reach its attractor and the perturbation
        its fastest direction.
    - `perturbation`: relative change that the gradient is to describe, in (0, 1): about the
        relative size of an update in training.
    - `batches`: batches whose means give the statistical error.

    **Returns:** a `GradientHorizon`.

    **Raises:** `ValueError` for bad numbers of steps or batches, or a bad perturbation.
    """
    check_at_least("batches", batches, 2)
    check_at_least("num_steps", num_steps, batches)
    check_at_least("spin_up", spin_up, 0)
    check_interval("perturbation", perturbation, 0, 1, closed="neither")
    time_dtype = real_dtype(jnp.result_type(*jax.tree.leaves(y0)))
    t0, dt = jnp.asarray(t0, time_dtype), jnp.asarray(dt, time_dtype)
    y0 = jax.tree.map(jnp.asarray, y0)
    step, carry = make_step(solver, term, y0, t0, dt, args)
    carry, static = eqx.partition(carry, eqx.is_inexact_array)
    tangent, _ = _rescaled(_random_like(carry, key))

    def body(loop, index):
        carry, tangent = loop

        def inexact(carry):
            return eqx.filter(step(eqx.combine(carry, static), index), eqx.is_inexact_array)

        carry, tangent = jax.jvp(inexact, (carry,), (tangent,))
        tangent, log_length = _rescaled(tangent)
        return (carry, tangent), log_length

    loop, _ = jax.lax.scan(body, (carry, tangent), jnp.arange(spin_up))
    _, logs = jax.lax.scan(body, loop, spin_up + jnp.arange(num_steps))
    rates = logs / jnp.abs(dt)
    size = num_steps // batches
    means = jnp.mean(rates[: size * batches].reshape(batches, size), axis=1)
    rate = jnp.mean(rates)
    length = jnp.where(rate > 0, math.log(1 / perturbation) / jnp.where(rate > 0, rate, 1), jnp.inf)
    return GradientHorizon(
        growth_rate=rate,
        standard_error=jnp.std(means, ddof=1) / math.sqrt(batches),
        length=length,
        num_steps=jnp.floor(length / jnp.abs(dt)),
    )


def _random_like(tree, key):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves)]
    )


def _rescaled(tangent):
    """The tangent at length one, and the logarithm of its length before."""
    square = sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(tangent))
    # A perturbation that has died out is not divided by zero.
    length = jnp.sqrt(jnp.maximum(square, jnp.finfo(jnp.result_type(square)).tiny))
    return jax.tree.map(lambda x: x / length.astype(real_dtype(x)), tangent), jnp.log(length)
