"""A-posteriori learning: fit a closure, or the constants, through the differentiable solver."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from jaxsci.integrate import rollout, SBDF2

from .._base import check_at_least
from ._active_fluid import ActiveFluid


class TrajectoryWindows(eqx.Module):
    """Pieces of trajectories: an initial state of the moment system, and z at the times after it.

    Samples stand along the leading axis, as `jaxsci.train.minibatches` takes them.

    **Arguments:**

    - `start`: Fourier coefficients of a_0 and a_2, (samples, 2, N_x, N_y).
    - `z`: second angular mode on the grid at the saved times after it, (samples, saves, N_x, N_y).
    """

    start: Complex[Array, "samples 2 nx ny"]
    z: Complex[Array, "samples saves nx ny"]


def trajectory_windows(
    fluid: ActiveFluid, ys: dict[str, Array], num_saves: int, *, stride: int = 1
) -> TrajectoryWindows:
    """Cut a trajectory of `fluid` into windows of one initial state and `num_saves` later ones.

    **Arguments:**

    - `fluid`: the model that made the trajectory.
    - `ys`: states at equal distances in time, along a leading axis.
    - `num_saves`: saved times compared in each window.
    - `stride`: distance of the starts of the windows, in saved times.

    **Raises:** `ValueError` if the trajectory is shorter than one window.
    """
    check_at_least("num_saves", num_saves, 1)
    check_at_least("stride", stride, 1)
    a = fluid.coarse_state(ys)["a"]
    if a.shape[0] < num_saves + 1:
        raise ValueError(
            f"`ys` must have at least num_saves + 1 = {num_saves + 1} states, got {a.shape[0]}."
        )
    starts = jnp.arange(0, a.shape[0] - num_saves, stride)
    z = fluid.grid.ifft(a[:, 1])
    return TrajectoryWindows(a[starts], z[starts[:, None] + jnp.arange(1, num_saves + 1)])


def rollout_loss(
    fluid_of: Callable[[Any], ActiveFluid],
    *,
    dt: float,
    save_every: int = 1,
    solver: diffrax.AbstractSolver | None = None,
    checkpoint: str = "step",
) -> Callable[[Any, TrajectoryWindows, Any], Float[Array, ""]]:
    """A loss for `jaxsci.train.fit`: mean |z_model - z_data|^2 over windows, saved times and space.

    The model runs from the start of each window through the time stepper, and the gradient goes
    back through all steps. The mean of few steps is an easy loss: start with windows of one saved
    time and lengthen them to 10 or 20.

    !!! example

        ```python
        loss = rollout_loss(kinetic.with_closure, dt=0.02)    # fit(loss, closure, ...)
        loss = rollout_loss(moments.with_params, dt=0.02)     # fit(loss, params, ...)
        ```

    **Arguments:**

    - `fluid_of`: function from what is trained to a moment system.
    - `dt`: time step.
    - `save_every`: steps between the saved times of the data.
    - `solver`: a solver of `jaxsci.integrate`; `SBDF2()` by default.
    - `checkpoint`: as for `jaxsci.integrate.rollout`.
    """
    check_at_least("save_every", save_every, 1)
    solver = SBDF2() if solver is None else solver

    def loss(model, batch, key=None):
        del key
        fluid = fluid_of(model)
        term = fluid.term()

        def error(start, z):
            steps = save_every * z.shape[0]
            saved = rollout(
                solver,
                term,
                {"a": start},
                dt=dt,
                num_steps=steps,
                save_every=save_every,
                save=lambda t, y, args: fluid.grid.ifft(y["a"][1]),
                checkpoint=checkpoint,
            )
            return jnp.mean(jnp.real(saved - z) ** 2 + jnp.imag(saved - z) ** 2)

        return jnp.mean(jax.vmap(error)(batch.start, batch.z))

    return loss
