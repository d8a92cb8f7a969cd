"""The curvature inputs of an optax `update`: checks, and trees with masked parts.

`optax.masked` and `optax.partition` hand a transform the parameters with `MaskedNode()` in place of
the leaves that are not its own. An objective cannot be evaluated there, so it is completed with the
caller's full parameters and differentiated with respect to the leaves present.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxsci.curvature import AbstractObjective

ObjFn = Callable[[PyTree], Any]
_keystr = jax.tree_util.keystr


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def _leaves_with_path(tree: PyTree) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_masked)


def has_masked(tree: PyTree) -> bool:
    """Whether `tree` comes from `optax.masked` or `optax.partition`."""
    return any(_is_masked(x) for _, x in _leaves_with_path(tree))


def the_obj_fn(obj_fn: ObjFn | None, value_fn: ObjFn | None) -> ObjFn | None:
    """The closure given under either of optax's two names for it.

    An objective that shows its parts may come with a plain closure for line searches beside it.
    """
    two = obj_fn is not None and value_fn is not None and obj_fn is not value_fn
    if two and not isinstance(obj_fn, AbstractObjective):
        raise ValueError("`obj_fn` and `value_fn` are two names of one closure, got two closures.")
    return value_fn if obj_fn is None else obj_fn


def aligned(name: str, tree: PyTree, params: PyTree) -> PyTree:
    """`tree` with the leaves that `params` has, in the structure of `params`.

    `tree` may be masked like `params`, or be the full tree.
    """
    mask = [path for path, x in _leaves_with_path(params) if _is_masked(x)]
    given = {
        _keystr(path): x
        for path, x in _leaves_with_path(tree)
        if not _is_masked(x) and not any(path[: len(m)] == m for m in mask)
    }
    wanted = {_keystr(path): p for path, p in jax.tree_util.tree_leaves_with_path(params)}
    for path, p in wanted.items():
        if path not in given:
            raise ValueError(f"`{name}` must have the leaves of `params`, got none at {path!r}.")
        if jnp.shape(given[path]) != jnp.shape(p):
            raise ValueError(
                f"`{name}` must have the shapes of `params`, got {jnp.shape(given[path])} instead "
                f"of {jnp.shape(p)} at {path!r}."
            )
    for path in given:
        if path not in wanted:
            raise ValueError(
                f"`{name}` must have the leaves of `params`, got one more at {path!r}."
            )
    return jax.tree.unflatten(jax.tree.structure(params), [given[path] for path in wanted])


def restricted(obj_fn: ObjFn, params: PyTree, full_params: PyTree) -> ObjFn:
    """`obj_fn` as a function of the leaves that `params` has, the others held at `full_params`."""
    if full_params is None or has_masked(full_params):
        raise ValueError(
            "`params` has masked leaves (from `optax.masked` or `optax.partition`), where `obj_fn` "
            "cannot be evaluated. Either pass `full_params=params` to `update` (with "
            "`mask_compatible_extra_args=False`, the default), or pass `hessian_diag` with "
            "`mask_compatible_extra_args=True`."
        )
    aligned("full_params", full_params, params)

    def fill(present: PyTree) -> PyTree:
        return jax.tree.map(
            lambda p, full: full if _is_masked(p) else p, present, full_params, is_leaf=_is_masked
        )

    if isinstance(obj_fn, AbstractObjective):
        return obj_fn.precompose(fill)
    return lambda present: obj_fn(fill(present))
