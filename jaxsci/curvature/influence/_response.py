"""The proximal Bregman response: what an influence function of a network computes.

With h_i the outputs at example i and theta_s the trained parameters,

    PBO(theta, eps) = 1/N sum_i D_i(h_i(theta), h_i(theta_s)) + eps L(z, theta)
                      + lambda/2 |theta - theta_s|^2,
    D_i(h, g) = l_i(h) - l_i(g) - grad l_i(g) . (h - g),

whose minimiser moves, from theta_s at eps = 0, at the rate -(G + lambda I)^-1 grad L(z). It is this
response, not that of retraining without z, that influence functions predict (Bae et al. 2022, "If
influence functions are the answer, then what is the question?", arXiv:2209.05364).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..._base import check_positive, raise_if_failed, RESULTS
from ._batches import leading_size
from ._output_losses import output_loss


class ResponseSolution(eqx.Module):
    """What [`pbrf`][jaxsci.curvature.influence.pbrf] returns.

    - `response`: (theta(eps) - theta_s) / eps, a pytree like the parameters.
    - `params`: theta(eps), the minimiser.
    - `result`: why the solver ended, a code of `RESULTS`.
    - `stats`: `num_steps`, the Newton steps taken, and `residual`, the largest entry of the
        gradient of the objective over eps.
    """

    response: PyTree
    params: PyTree
    result: RESULTS
    stats: dict[str, Any]


def pbrf(
    model_fn: Callable[[PyTree, PyTree], PyTree],
    loss: Any,
    params: PyTree,
    data: tuple[PyTree, PyTree],
    example: tuple[PyTree, PyTree],
    *,
    damping: ArrayLike,
    epsilon: ArrayLike = 1e-5,
    rtol: float = 1e-6,
    max_steps: int = 20,
    linear_solver: lx.AbstractLinearSolver | None = None,
    throw: bool = True,
) -> ResponseSolution:
    """Minimise the proximal Bregman objective by Newton's method: the truth for influence scores.

    The unknown is the response itself, so that a small `epsilon` costs no digits of the tolerance.
    In float64 the default `epsilon` leaves a difference of about 1e-4 to the derivative; float32
    needs a larger one.

    **Arguments:**

    - `model_fn`, `loss`, `params`, `data`: as in
        [`exact_ggn`][jaxsci.curvature.influence.exact_ggn]; `params` are theta_s, converged or not.
    - `example`: `(x, y)`, the training example z that is weighted up, without a batch axis.
    - `damping`: lambda, positive: without it the objective may have no minimum.
    - `epsilon`: the weight of the example, not zero. The weight of one example is 1/N.
    - `rtol`: tolerance of Newton's method, relative to the largest response.
    - `max_steps`: the most Newton steps.
    - `linear_solver`: the solver of each step, by default `lineax.CG` at a hundredth of `rtol`.
    - `throw`: raise on failure.

    **Returns:**

    A `ResponseSolution`.

    **Raises:**

    `ValueError` if an argument is out of range; `RuntimeError` if Newton's method fails and
    `throw`.
    """
    check_positive("damping", damping)
    check_positive("abs(epsilon)", abs(epsilon))
    leading_size("data", data)
    if linear_solver is None:
        linear_solver = lx.CG(rtol=rtol / 100, atol=0.0, max_steps=10_000)
    solution = _solve(
        model_fn,
        output_loss(loss),
        params,
        data,
        example,
        jnp.asarray(damping),
        jnp.asarray(epsilon),
        jnp.asarray(rtol),
        jnp.asarray(max_steps),
        linear_solver,
    )
    if throw:
        raise_if_failed(solution.result, "pbrf")
    return solution


@eqx.filter_jit
def _solve(
    model_fn, loss_fn, params, data, example, damping, epsilon, rtol, max_steps, linear_solver
) -> ResponseSolution:
    inputs, targets = data
    size = leading_size("data", data)

    def outputs_at(p):
        return jax.vmap(lambda x: model_fn(p, x))(inputs)

    def slope(outputs):
        """The gradient of each example's loss in its outputs."""
        return jax.vmap(jax.grad(loss_fn))(outputs, targets)

    trained = slope(outputs_at(params))
    example_grad = jax.grad(lambda p: loss_fn(model_fn(p, example[0]), example[1]))

    def moved(r):
        return jax.tree.map(lambda p, s: p + epsilon.astype(p.dtype) * s, params, r)

    def gradient(r):
        """The gradient of the objective in the parameters, over epsilon."""
        outputs, vjp = jax.vjp(outputs_at, moved(r))
        change = jax.tree.map(
            lambda a, b: (a - b) / epsilon.astype(a.dtype), slope(outputs), trained
        )
        (bregman,) = vjp(change)

        def combine(b: Array, g: Array, s: Array) -> Array:
            return b / size + g + damping.astype(s.dtype) * s

        return jax.tree.map(combine, bregman, example_grad(moved(r)), r)

    def newton(state):
        r, _, num_steps = state
        residual, tangent = jax.linearize(gradient, r)
        hessian = lx.FunctionLinearOperator(
            tangent, jax.eval_shape(lambda: r), lx.positive_semidefinite_tag
        )
        step = lx.linear_solve(hessian, residual, linear_solver, throw=False).value
        r = jax.tree.map(jnp.subtract, r, step)
        return r, _largest(step) / _largest(r), num_steps + 1

    def unfinished(state):
        _, change, num_steps = state
        return (num_steps < max_steps) & (change > rtol)

    start = jax.tree.map(jnp.zeros_like, params)
    unknown = jnp.full_like(_largest(start), jnp.inf)
    response, change, num_steps = jax.lax.while_loop(unfinished, newton, (start, unknown, 0))
    residual = _largest(gradient(response))
    result = RESULTS.where(change <= rtol, RESULTS.successful, RESULTS.max_steps_reached)
    result = RESULTS.where(jnp.isfinite(residual), result, RESULTS.nonfinite)
    stats = {"num_steps": num_steps, "residual": residual}
    return ResponseSolution(response, moved(response), result, stats)


def _largest(tree: PyTree) -> Float[Array, ""]:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree)]))
