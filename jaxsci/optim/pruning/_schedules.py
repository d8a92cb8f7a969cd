"""Sparsity against training step.

Cubic: s = s_f + (s_i - s_f) (1 - x)^3, x the fraction of the way (Zhu and Gupta 2017, "To prune, or
not to prune", arXiv:1710.01878). Exponential: the kept fraction falls by the same factor each step,
1 - s = (1 - s_i)^(1 - x) (1 - s_f)^x.
"""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxsci._base import check_at_least, check_choice, check_interval


def gradual_sparsity(
    final: float,
    steps: int,
    *,
    initial: float = 0.0,
    begin: int = 0,
    shape: Literal["cubic", "exponential"] = "cubic",
) -> Callable[[ArrayLike], Float[Array, ""]]:
    """A schedule of sparsities, `step -> sparsity`.

    **Arguments:**

    - `final`: sparsity in [0, 1) at step `begin + steps` and after.
    - `steps`: number of steps on the way, at least 1.
    - `initial`: sparsity until step `begin`, at most `final`.
    - `shape`: "cubic" prunes most at the start; "exponential" drops the same share of the kept
        weights each step.

    **Raises:**

    `ValueError` for an argument out of its range.
    """
    check_interval("final", final, 0.0, 1.0, closed="left")
    check_interval("initial", initial, 0.0, final)
    check_at_least("steps", steps, 1)
    check_at_least("begin", begin, 0)
    check_choice("shape", shape, ("cubic", "exponential"))

    def schedule(step: ArrayLike) -> Float[Array, ""]:
        x = jnp.clip((jnp.asarray(step) - begin) / steps, 0.0, 1.0)
        if shape == "cubic":
            return final + (initial - final) * (1 - x) ** 3
        return 1 - (1 - initial) ** (1 - x) * (1 - final) ** x

    return schedule
