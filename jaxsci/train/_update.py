"""One parameter update, compiled once: gradient, optax transform, averages and finiteness."""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._base import all_finite, at_least_float32, strided_parts


class Carry(NamedTuple):
    """What an update changes.

    `step` counts the updates taken. `finite` turns false for good at the first non-finite loss or
    parameter; from then on nothing else changes.
    """

    params: PyTree
    opt_state: PyTree
    ema: PyTree
    step: Int[Array, ""]
    finite: Bool[Array, ""]


class Parts(NamedTuple):
    """What an update reads: pytrees whose arrays are arguments of the compiled step."""

    loss: Any
    batches: Any
    rest: PyTree


@dataclasses.dataclass(frozen=True)
class Program:
    """The static half of an update; equal programs share one compilation, across calls of `fit`.

    `update` takes flat lists of arrays: flattening modules in every call would cost more than
    starting a small update does.
    """

    static_leaves: tuple[tuple[type, Any], ...]
    static_tree: Any
    arrays_tree: Any
    carry_tree: Any
    tx: optax.GradientTransformation
    microbatch: int
    shardings: tuple[Any, ...]

    @classmethod
    def build(
        cls, static: Parts, arrays: Parts, carry: Carry, tx, microbatch: int, shardings: tuple
    ) -> "Program":
        leaves, tree = jax.tree.flatten(static)
        # Types are compared too: 1, 1.0 and True are equal in Python but not in a program.
        typed = tuple((type(x), x) for x in leaves)
        trees = jax.tree.structure(arrays), jax.tree.structure(carry)
        return cls(typed, tree, *trees, tx, microbatch, shardings)

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in dataclasses.fields(self)))

    def __hash__(self) -> int:
        return self._hash

    def parts(self, arrays: list[Array]) -> Parts:
        static = jax.tree.unflatten(self.static_tree, [x for _, x in self.static_leaves])
        return eqx.combine(jax.tree.unflatten(self.arrays_tree, arrays), static)

    def carry(self, leaves: list[Array]) -> Carry:
        return jax.tree.unflatten(self.carry_tree, leaves)


def evaluate(
    parts: Parts, params: PyTree, batch: PyTree, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss and its auxiliary metrics at `params`."""
    out = parts.loss(eqx.combine(params, parts.rest), batch, key)
    value, aux = out if isinstance(out, tuple) else (out, {})
    return jnp.asarray(value), jax.tree.map(jnp.asarray, aux)


def value_and_grad(
    program: Program, parts: Parts, params: PyTree, batch: PyTree, key: PRNGKeyArray
) -> tuple[Float[Array, ""], dict[str, Array], PyTree, Callable[[PyTree], Float[Array, ""]]]:
    """Value, metrics and gradient on the batch, and the value as a function of the parameters."""
    gradient = jax.value_and_grad(lambda *args: evaluate(parts, *args), has_aux=True)
    count = program.microbatch
    if count == 1:
        (value, aux), grads = gradient(params, batch, key)
        return value, aux, grads, lambda params: evaluate(parts, params, batch, key)[0]

    pieces = strided_parts(batch, count), jax.random.split(key, count)

    def accumulate(total, piece):
        out, grads = gradient(params, *piece)
        return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, grads), out

    zeros = jax.tree.map(lambda p: jnp.zeros_like(p, at_least_float32(p)), params)
    total, (values, auxs) = jax.lax.scan(accumulate, zeros, pieces)
    grads = jax.tree.map(lambda t, p: (t / count).astype(p.dtype), total, params)

    def value_at(params):
        # Without `checkpoint`, differentiating this would store the residuals of all microbatches.
        one = jax.checkpoint(lambda piece: evaluate(parts, params, *piece)[0])
        return jnp.mean(jax.lax.map(one, pieces))

    means = jax.tree.map(lambda x: jnp.mean(x, axis=0), (values, auxs))
    return *means, grads, value_at


def _global_norm(tree: PyTree) -> Float[Array, ""]:
    leaves = [x.astype(at_least_float32(x)) for x in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(jnp.sum(x**2) for x in leaves))


def _objective(parts: Parts, batch: PyTree, key: PRNGKeyArray) -> Any:
    """The objective that shows its parts, as a function of the parameters, if the loss has one."""
    if not hasattr(parts.loss, "objective"):
        return None
    objective = parts.loss.objective(batch, key)
    return objective.precompose(lambda params: eqx.combine(params, parts.rest))


def _advance(
    program: Program, parts: Parts, carry: Carry, batch: PyTree, key: PRNGKeyArray, decay: Any
) -> tuple[Carry, dict[str, Array]]:
    key = jax.random.fold_in(key, carry.step)
    value, aux, grads, value_at = value_and_grad(program, parts, carry.params, batch, key)

    def value_fn(params, *, obj_fn=None):
        # Optax's line searches hand the extra arguments of `update` on, and refuse unknown ones.
        del obj_fn
        return value_at(params)

    updates, opt_state = optax.with_extra_args_support(program.tx).update(
        grads,
        carry.opt_state,
        carry.params,
        value=value,
        grad=grads,
        value_fn=value_fn,
        obj_fn=_objective(parts, batch, key) or value_fn,
    )
    params: PyTree = optax.apply_updates(carry.params, updates)
    ema = jax.tree.map(
        lambda average, p: average + (1 - decay) * (p.astype(average.dtype) - average),
        carry.ema,
        None if carry.ema is None else params,
    )
    finite = carry.finite & jnp.isfinite(value) & all_finite(params)
    proposed = Carry(params, opt_state, ema, carry.step + 1, finite)

    def choose(new, old):
        new = jnp.asarray(new)
        if new.dtype != old.dtype and not jnp.can_cast(new.dtype, old.dtype, "same_kind"):
            raise TypeError(
                f"`tx` must keep the dtypes of its state, got {new.dtype} after {old.dtype}."
            )
        # A state that changed its type would compile again at the second step.
        return jnp.where(finite, new if new.dtype == old.dtype else new.astype(old.dtype), old)

    kept = jax.tree.map(choose, proposed, carry)._replace(finite=finite)
    return _constrain(kept, program.shardings), {
        "loss": value,
        "grad_norm": _global_norm(grads),
        **aux,
    }


def _constrain(carry: Carry, shardings: tuple[Any, ...]) -> Carry:
    leaves, tree = jax.tree.flatten(carry)
    kept = [
        x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)
        for x, sharding in zip(leaves, shardings, strict=True)
    ]
    return jax.tree.unflatten(tree, kept)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def update(
    program: Program,
    carry: list[Array],
    arrays: list[Array],
    batch: PyTree,
    key: PRNGKeyArray,
    decay: Any,
) -> tuple[list[Array], dict[str, Array]]:
    """One update on a given batch."""
    new, row = _advance(program, program.parts(arrays), program.carry(carry), batch, key, decay)
    return jax.tree.leaves(new), row


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def update_many(
    program: Program,
    carry: list[Array],
    arrays: list[Array],
    count: Any,
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    decay: Any,
) -> tuple[list[Array], dict[str, Array]]:
    """`count` (at least one) updates in one call, their batches made inside; the last metrics.

    The count is traced, so that chunks of any length run one program.
    """
    parts, (key, batch_key) = program.parts(arrays), keys

    def one(carry):
        batch = parts.batches(carry.step, jax.random.fold_in(batch_key, carry.step))
        return _advance(program, parts, carry, batch, key, decay)

    initial = program.carry(carry)
    _, shapes = jax.eval_shape(one, initial)
    row = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    new, row = jax.lax.fori_loop(0, count, lambda _, state: one(state[0]), (initial, row))
    return jax.tree.leaves(new), row
