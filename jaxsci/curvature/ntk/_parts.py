"""What the empirical kernels share: a function checked, its parameters set apart."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._base import example_structure, is_complex, parameter_mask


def split_parameters(fn: Callable, params: PyTree) -> tuple[Callable, PyTree]:
    """`fn` as a function of its floating array leaves alone, and these.

    `NonTrainable` leaves, integers and functions stay where they are.
    """
    leaves, rest = eqx.partition(params, parameter_mask(params))
    if not jax.tree.leaves(leaves):
        raise ValueError("`params` has no floating-point array leaves to differentiate.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(leaves):
        if is_complex(leaf):
            raise TypeError(
                f"`params{jax.tree_util.keystr(path)}` is complex: store its real and imaginary "
                "parts as two real leaves."
            )
    return lambda p, x: fn(eqx.combine(p, rest), x), leaves


def num_points(name: str, x: PyTree) -> int:
    """The common length of the leading axes of `x`."""
    leaves = [leaf for leaf in jax.tree.leaves(x) if eqx.is_array_like(leaf)]
    sizes = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(
            f"`{name}` must be points stacked along one leading axis, got leaves of shapes "
            f"{[jnp.shape(leaf) for leaf in leaves]}."
        )
    return sizes.pop()[0]


def output_of(fn: Callable, params: PyTree, x: PyTree) -> jax.ShapeDtypeStruct:
    """Shape and dtype of `fn` on a single point; raises unless it is one real array."""
    out: Any = jax.eval_shape(fn, params, example_structure(x))
    if not isinstance(out, jax.ShapeDtypeStruct):
        raise TypeError(
            "`fn(params, x)` must return one array for one point, got "
            f"{jax.tree.structure(out)}. A model that returns a state with its output (batch "
            "normalisation) or takes a key (dropout) needs its inference form: its kernel would "
            "depend on the batch or on the key."
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"`fn(params, x)` must return real floating numbers, got {out.dtype}.")
    return out
