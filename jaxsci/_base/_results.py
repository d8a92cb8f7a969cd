"""Result codes of iterative algorithms, and raising from them outside compiled code."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ._checks import is_concrete


class RESULTS(eqx.Enumeration):
    """Why an iterative algorithm ended."""

    successful = ""
    nonfinite = "A non-finite value (NaN or infinity) was met."
    max_steps_reached = "The maximum number of steps was reached before the target."
    not_converged = "The iteration did not converge to its tolerance."


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every inexact leaf of `tree` is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if eqx.is_inexact_array(x)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves] or [jnp.array(True)]))


def raise_if_failed(result: RESULTS, what: str) -> None:
    """Raise `RuntimeError` on a failed `result`; passes while tracing, where it cannot be known.

    **Arguments:**

    - `result`: a code of `RESULTS`, possibly batched.
    - `what`: the name of the computation, for the message.
    """
    if not is_concrete(result):
        return
    worst = int(jnp.max(jnp.atleast_1d(result._value)))
    if worst:
        raise RuntimeError(f"{what}: {RESULTS._index_to_message[worst]}")
