"""Gradient flow of any loss in function space.

With a constant kernel T, f_t = f_0 - T(., X) a with coefficients a' = lr dC/df(f_t(X)). These live
on the training points alone, however many points the function is wanted on.
"""

import math
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..._base import check_nonnegative, is_concrete
from ._checked_kernel import as_matrix, check_time, decompose, initial_values, targets


class GradientFlow(eqx.Module):
    """Training on any loss with a constant kernel; made by `gradient_flow`."""

    matrix: Array
    y: Array
    loss: Callable[[Array, Array], Array]
    solver: diffrax.AbstractSolver
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    output_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(
        self,
        t: ArrayLike,
        f0_train: ArrayLike = 0.0,
        f0_test: ArrayLike | None = None,
        ntk_st: Array | np.ndarray | None = None,
        lr: ArrayLike = 1.0,
        *,
        friction: ArrayLike | None = None,
    ) -> Array | tuple[Array, Array]:
        """The function at time `t`.

        **Arguments:**

        - `t`: finite time, a scalar or (times,) in any order.
        - `f0_train`: the function on the training points at time zero, (n, *out), or a scalar.
        - `f0_test`: the same on other points, (k, *out), or a scalar.
        - `ntk_st`: kernel between the other points and the training points, (k, n) or
            (k, n, *out, *out); needed with `f0_test`, whose default with it is zero.
        - `lr`: factor of the gradient.
        - `friction`: of the heavy ball, params'' + friction params' = -lr gradient, from rest.

        **Returns:**

        The training values, (*t, n, *out); with `ntk_st` the pair of these and the other values,
        (*t, k, *out).

        **Raises:**

        `ValueError` if `t` is negative or a shape does not fit. `RuntimeError`, outside `jax.jit`,
        if the solver does not reach the last time; under `jax.jit` the values are infinite then.
        """
        check_time(t)
        check_nonnegative("lr", lr)
        n, out = self.y.shape[0], self.output_shape
        dtype, size = self.matrix.dtype, math.prod(out)
        times = jnp.asarray(t, dtype)
        if times.ndim > 1:
            raise ValueError(f"`t` must be a scalar or have one axis, got shape {times.shape}.")
        f0 = initial_values("f0_train", f0_train, (n, *out), dtype)
        columns = 1 if self.matrix.shape[0] != n else size
        rate = jnp.asarray(lr, dtype)

        def values(coefficients):
            return f0 - (self.matrix @ coefficients).reshape(f0.shape)

        def slope(coefficients):
            gradient = jax.grad(lambda f: self.loss(f, self.y))(values(coefficients))
            return rate * gradient.reshape(-1, columns)

        start = jnp.zeros((self.matrix.shape[0], columns), dtype)
        if friction is None:
            state, field = start, lambda _, a, args: slope(a)
        else:
            drag = jnp.asarray(friction, dtype)
            state = (start, start)
            field = lambda _, s, args: (s[1], slope(s[0]) - drag * s[1])
        flat = jnp.atleast_1d(times)
        order = jnp.argsort(flat)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            self.solver,
            t0=jnp.zeros((), dtype),
            t1=jnp.max(flat),
            dt0=None,
            y0=state,
            saveat=diffrax.SaveAt(ts=flat[order]),
            stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            max_steps=self.max_steps,
            throw=False,
        )
        failed = solution.result != diffrax.RESULTS.successful
        if is_concrete(failed) and bool(failed):
            raise RuntimeError(
                f"gradient_flow: the last time was not reached in {self.max_steps} steps; a kernel "
                "of large eigenvalues is stiff: give an implicit `solver`, or more `max_steps`."
            )
        ys: Any = solution.ys
        history = (ys if friction is None else ys[0])[jnp.argsort(order)]
        if times.ndim == 0:
            history = history[0]
        train = values(history) if times.ndim == 0 else jax.vmap(values)(history)
        if ntk_st is None:
            if f0_test is not None:
                raise ValueError("`f0_test` needs `ntk_st`, the kernel to the training points.")
            return train
        across = as_matrix("ntk_st", ntk_st, None, n, size, like=self.matrix)
        shape = (ntk_st.shape[0], *out)
        begin = initial_values("f0_test", 0.0 if f0_test is None else f0_test, shape, dtype)
        test = begin - (across @ history).reshape(*times.shape, *shape)
        return train, test


def gradient_flow(
    ntk_tt: Float[Array | np.ndarray, "n n ..."],
    loss: Callable[[Array, Array], Array],
    y: ArrayLike,
    *,
    output_shape: tuple[int, ...] | None = None,
    solver: diffrax.AbstractSolver | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    max_steps: int = 4096,
) -> GradientFlow:
    """Training on any loss as a function of time, for a constant tangent kernel.

    For the square loss `gradient_descent_mse` is exact and cheaper.

    **Arguments:**

    - `ntk_tt`: kernel between the training points, (n, n), the same for every output, or
        (n, n, *out, *out).
    - `loss`: `(f, y) -> scalar`, of the outputs on all training points, (n, *out). Whether it sums
        or averages over points is its own affair.
    - `y`: targets, (n, ...), whatever `loss` takes.
    - `output_shape`: `out`, where it is not the shape of a target (integer labels).
    - `solver`: a diffrax solver; `diffrax.Tsit5()` by default. Steps are then limited by the
        largest eigenvalue; an implicit solver (`diffrax.Kvaerno5()`) has no such limit.
    - `rtol`, `atol`: tolerances of a step.
    - `max_steps`: largest number of steps.

    **Returns:**

    `predict(t, f0_train, f0_test=None, ntk_st=None, lr=1.0)`, see `GradientFlow`.

    **Raises:**

    `ValueError` if the shapes do not fit or the kernel is not symmetric and positive semidefinite.
    """
    y = jnp.asarray(y)
    if y.ndim < 1:
        raise ValueError(f"`y` must have shape (n, ...), got {y.shape}.")
    out = tuple(y.shape[1:]) if output_shape is None else tuple(output_shape)
    kernel = jnp.asarray(ntk_tt)
    spectrum = decompose("ntk_tt", kernel, y.shape[0], math.prod(out))
    if output_shape is None:
        y = targets(y)
    solver = diffrax.Tsit5() if solver is None else solver
    return GradientFlow(spectrum.matrix, y, loss, solver, rtol, atol, max_steps, out)
