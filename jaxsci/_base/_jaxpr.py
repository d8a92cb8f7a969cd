"""Read and re-run jaxprs: what JAX changes between versions about them is kept here.

A jaxpr is the straight-line program that `jax.make_jaxpr` returns: a list of equations, some of
which hold jaxprs themselves (a jitted call, a scan). `evaluate` runs one equation by equation and
lets the caller run any of them in its own way; primitives are matched by name.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import PyTree

# Calls whose body may be run in place of the call.
_CALLS = frozenset(("jit", "pjit", "closed_call", "core_call", "core_closed_call"))
_CHECKPOINTS = frozenset(("checkpoint", "remat", "remat2"))
_CUSTOM_RULES = frozenset(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"))
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def trace(fn: Callable[..., Any], *args: PyTree) -> tuple[ClosedJaxpr, PyTree]:
    """The jaxpr of `fn(*args)`, with the flattened array leaves of `args` as its inputs.

    **Arguments:**

    - `fn`: a function; results are any pytree of arrays.
    - `args`: pytrees; arrays (also traced or only described) become inputs, other leaves are fixed.

    **Returns:** the jaxpr and the pytree of described results.
    """
    dynamic, static = eqx.partition(args, _is_traceable)
    return jax.make_jaxpr(lambda dynamic: fn(*eqx.combine(dynamic, static)), return_shape=True)(
        dynamic
    )


def traceable_leaves(*args: PyTree) -> list[Any]:
    """The values of the inputs of the jaxpr of `trace(fn, *args)`, in order."""
    return jax.tree.leaves(eqx.filter(args, _is_traceable))


def _is_traceable(leaf: Any) -> bool:
    return eqx.is_array_like(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def is_literal(atom: Any) -> bool:
    """Whether an input of an equation is a constant written in place."""
    return isinstance(atom, Literal)


def use_counts(jaxpr: Jaxpr) -> Counter[Var]:
    """How often each variable is an input of an equation or a result."""
    atoms = [x for eqn in jaxpr.eqns for x in eqn.invars] + list(jaxpr.outvars)
    return Counter(x for x in atoms if not isinstance(x, Literal))


def equation_kind(eqn: JaxprEqn) -> str | None:
    """What an equation that holds jaxprs does; None for an ordinary equation.

    "call" (a jitted or closed call), "checkpoint", "custom" (with a derivative rule of its own),
    "scan", "while", "cond", and "other" for everything else that holds jaxprs.
    """
    name = eqn.primitive.name
    for kind, names in (("call", _CALLS), ("checkpoint", _CHECKPOINTS), ("custom", _CUSTOM_RULES)):
        if name in names:
            return kind
    if name in ("scan", "while", "cond"):
        return name
    holds = any(
        isinstance(x, ClosedJaxpr | Jaxpr)
        for value in eqn.params.values()
        for x in (value if isinstance(value, tuple | list) else (value,))
    )
    return "other" if holds else None


def body_of(eqn: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]]:
    """The jaxpr and constants of a call, checkpoint, custom-rule or scan equation."""
    body = next(eqn.params[name] for name in _BODIES if name in eqn.params)
    return (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())


class ScanSizes(NamedTuple):
    """How many of the inputs of a scan are constants and carries; the rest is scanned over."""

    consts: int
    carry: int
    length: int


def scan_sizes(eqn: JaxprEqn) -> ScanSizes:
    """The split of the inputs of a scan equation."""
    params = eqn.params
    if "num_consts" in params:
        return ScanSizes(params["num_consts"], params["num_carry"], params["length"])
    consts, carry, _ = params["ft_in"].update(list(range(len(eqn.invars)))).unpack()
    return ScanSizes(len(list(consts)), len(list(carry)), params["length"])


def bind(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """Run an equation on other values, custom derivative rules and all."""
    params = eqn.primitive.get_bind_params(eqn.params)
    # Before JAX 0.10 the traced functions came apart from the parameters.
    functions, params = params if isinstance(params, tuple) else ((), params)
    context = getattr(eqn.ctx, "manager", None) or contextlib.nullcontext()
    with context:
        out = eqn.primitive.bind(*functions, *values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


EquationPath = tuple[int, ...]
"""Where an equation stands: its index in the jaxpr, then its index in the body of that one, ..."""

Rule = Callable[[JaxprEqn, Sequence[Any], EquationPath], Sequence[Any] | None]


def evaluate(
    jaxpr: Jaxpr, consts: Sequence[Any], values: Sequence[Any], rule: Rule, path: EquationPath = ()
) -> list[Any]:
    """Run a jaxpr equation by equation.

    **Arguments:**

    - `jaxpr`, `consts`: the program and its constants.
    - `values`: one value an input.
    - `rule`: `rule(eqn, values, path)` returns the results of an equation, or None to have it run
        as it is.
    - `path`: where `jaxpr` itself stands; it is put before the paths that `rule` sees.

    **Returns:** one value an output.
    """
    env: dict[Var, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else env[atom]

    for index, eqn in enumerate(jaxpr.eqns):
        inputs = [read(x) for x in eqn.invars]
        outputs = rule(eqn, inputs, (*path, index))
        outputs = bind(eqn, inputs) if outputs is None else outputs
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(x) for x in jaxpr.outvars]
