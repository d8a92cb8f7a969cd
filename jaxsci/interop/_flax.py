"""Flax modules, of Linen and of NNX, as functions of their parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PyTree


def linen_function(
    module: Any, variables: Mapping[str, Any], **options: Any
) -> tuple[Callable[..., Any], PyTree]:
    """Split a Linen module and its variables into a pure function and its parameters.

    `fn(params, *args, **kwargs)` is `module.apply({"params": params, ...}, *args, **kwargs)`.
    Modules that have a batch axis run on one example too: `jax.vmap` maps `fn` over a batch.

    **Arguments:**

    - `module`: a `flax.linen.Module`.
    - `variables`: what `module.init` returned; collections other than "params" (statistics of a
        batch normalisation, ...) are fixed in `fn`.
    - `options`: more keyword arguments of `module.apply`, such as `method`; `rngs` may also be
        given at each call.

    **Returns:** the pair `(fn, params)`.

    **Raises:** `ImportError` without Flax, `TypeError` or `ValueError` for other arguments.
    """
    linen = _import("linen")
    if not isinstance(module, linen.Module):
        raise TypeError(f"`module` must be a `flax.linen.Module`, got {module!r}.")
    if not isinstance(variables, Mapping) or "params" not in variables:
        got = sorted(variables) if isinstance(variables, Mapping) else type(variables)
        raise ValueError(f'`variables` must be a mapping with an entry "params", got {got}.')
    fixed = {name: value for name, value in variables.items() if name != "params"}

    def fn(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        return module.apply({"params": params, **fixed}, *args, **options, **kwargs)

    return fn, variables["params"]


def nnx_function(model: Any) -> tuple[Callable[..., Any], PyTree]:
    """Split an NNX module into a pure function and the parameters it is a function of.

    `fn(params, *args, **kwargs)` is `model(*args, **kwargs)` with the parameters replaced. What a
    call changes in the module (batch statistics, counts of random streams) is not kept.

    **Arguments:**

    - `model`: a `flax.nnx.Module`; call its `eval()` first to have dropout and batch statistics
        fixed.

    **Returns:**

    The pair `(fn, params)`: `params` are the values of the `nnx.Param` of the module, as nested
    dictionaries; all other state is fixed in `fn`.

    **Raises:** `ImportError` without Flax, `TypeError` for another `model`.
    """
    nnx = _import("nnx")
    if not isinstance(model, nnx.Module):
        raise TypeError(f"`model` must be a `flax.nnx.Module`, got {model!r}.")
    graph, state, fixed = nnx.split(model, nnx.Param, ...)

    def fn(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        new = jax.tree.map(lambda x: x, state)
        nnx.replace_by_pure_dict(new, params)
        return nnx.merge(graph, new, fixed)(*args, **kwargs)

    return fn, nnx.to_pure_dict(state)


def _import(name: str) -> Any:
    try:
        from flax import linen, nnx
    except ImportError as error:
        raise ImportError("Flax modules need Flax: pip install 'jaxsci[flax]'.") from error
    return {"linen": linen, "nnx": nnx}[name]
