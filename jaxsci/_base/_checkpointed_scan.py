"""Scan whose reverse mode keeps a fixed number of carries, placed by the binomial schedule."""

from collections.abc import Callable
from typing import Any

import equinox.internal as eqxi
import jax.numpy as jnp


def checkpointed_scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    length: int,
    snapshots: int | None = None,
) -> tuple[Any, Any]:
    """`jax.lax.scan(body, carry, jnp.arange(length))` with `snapshots` stored carries.

    **Arguments:**

    - `body`: `body(carry, index) -> (carry, output)`.
    - `carry`: the first carry.
    - `length`: number of steps.
    - `snapshots`: number of carries that reverse mode stores, by default about sqrt(2 length).

    **Returns:** the last carry and the stacked outputs. Forward mode is not supported.
    """
    return eqxi.scan(
        body, carry, jnp.arange(length), length, kind="checkpointed", checkpoints=snapshots
    )
