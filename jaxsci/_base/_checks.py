"""Argument checks. Each raises naming the argument, what was given and what is allowed.

A traced value cannot be checked while tracing, so every check passes it through: under `jax.jit`,
`jax.vmap` and `optax.inject_hyperparams` the checks cost nothing and never fail.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree


def is_concrete(*values: Any) -> bool:
    """Whether no leaf of `values` is a tracer."""
    return not any(isinstance(x, Tracer) for x in jax.tree.leaves(values))


def _fail(name: str, value: Any, allowed: str):
    raise ValueError(f"`{name}` must be {allowed}, got {value!r}.")


def _checkable(value: Any) -> bool:
    return is_concrete(value) and not isinstance(value, jax.ShapeDtypeStruct)


def check_finite(name: str, value: Any) -> None:
    """Raise unless every entry of `value` is finite."""
    if _checkable(value) and not np.all(np.isfinite(np.asarray(value))):
        _fail(name, value, "finite")


def check_positive(name: str, value: Any) -> None:
    """Raise unless every entry of `value` is finite and positive."""
    check_finite(name, value)
    if _checkable(value) and not np.all(np.asarray(value) > 0):
        _fail(name, value, "positive")


def check_nonnegative(name: str, value: Any) -> None:
    """Raise unless every entry of `value` is finite and at least zero."""
    check_finite(name, value)
    if _checkable(value) and not np.all(np.asarray(value) >= 0):
        _fail(name, value, "at least zero")


def check_at_least(name: str, value: Any, minimum: int) -> None:
    """Raise unless `value` is at least `minimum`."""
    if _checkable(value) and not np.all(np.asarray(value) >= minimum):
        _fail(name, value, f"at least {minimum}")


def check_interval(name: str, value: Any, low: Any, high: Any, *, closed: str = "both") -> None:
    """Raise unless `value` is in the interval; `closed` is "both", "left", "right" or "neither"."""
    if not _checkable(value):
        return
    v = np.asarray(value)
    above = v >= low if closed in ("both", "left") else v > low
    below = v <= high if closed in ("both", "right") else v < high
    if not np.all(above & below):
        left = "[" if closed in ("both", "left") else "("
        right = "]" if closed in ("both", "right") else ")"
        _fail(name, value, f"in {left}{low}, {high}{right}")


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        _fail(name, value, "one of " + ", ".join(repr(c) for c in choices))


def check_real_leaves(name: str, tree: PyTree) -> None:
    """Raise `TypeError` unless every leaf of `tree` is a real floating array or number."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        is_array = hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)
        dtype = jnp.result_type(leaf) if is_array else None
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
            continue
        remedy = "leave it out, e.g. by `equinox.filter` or `optax.masked`"
        if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating):
            remedy = "split it into its real and imaginary part"
        raise TypeError(
            f"`{name}` must have real floating leaves, got {dtype or type(leaf).__name__} at "
            f"{jax.tree_util.keystr(path)!r}; {remedy}."
        )
