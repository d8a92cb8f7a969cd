"""K-FAC and EK-FAC: gradients preconditioned by Kronecker-factored curvature.

With moving averages of A = E[a a^T] and S = E[sum_t delta_t delta_t^T], their eigenvectors Q_A, Q_S
and a layer's gradient matrix V, the step is

    u = Q_S [(Q_S^T V Q_A) / D] Q_A^T,

    K-FAC    D = (lambda_S + sqrt(lambda) / pi) (lambda_A + sqrt(lambda) pi)^T
             or  lambda_S lambda_A^T + lambda,
    EK-FAC   D = Lambda + lambda,  Lambda a moving average of E[(Q_S^T D Q_A)^2].

The eigenvectors are computed now and then; EK-FAC's Lambda follows at every step in the basis there
is, and is carried over to a new basis by the squares of the rotation between the two, which keeps
the diagonal of the matrix it stands for.

Martens and Grosse 2015, "Optimizing neural networks with Kronecker-factored approximate curvature"
(arXiv:1503.05671); Grosse and Martens 2016 (arXiv:1602.01407); George, Laurent, Bouthillier, Ballas
and Vincent 2018, "Fast approximate natural gradient descent in a Kronecker-factored eigenbasis"
(arXiv:1806.03884).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Int, PyTree

from jaxsci._base import (
    all_finite,
    at_least_float32,
    check_at_least,
    check_choice,
    check_interval,
    check_nonnegative,
    check_positive,
    check_real_leaves,
    example_structure,
)
from jaxsci.curvature import (
    block_columns,
    capture_layers,
    kronecker_statistics,
    KroneckerBlock,
    LayerBlock,
    LayerSites,
    LikelihoodObjective,
)

from ._extra_args import aligned, has_masked, the_obj_fn
from ._moments import bias_correction, moving_average

_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
_is_masked = lambda x: isinstance(x, optax.MaskedNode)
_Arrays = tuple[Array, ...]


class ScaleByKfacState(NamedTuple):
    """State of `scale_by_kfac` and `scale_by_ekfac`: arrays only; one entry a layer in the tuples.

    Averages are stored without bias correction; `n` and `m` count their updates.
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    n: Int[Array, ""]  # updates of the factors and of the diagonals
    m: Int[Array, ""]  # updates of EK-FAC's eigenvalues
    input_factors: _Arrays
    output_factors: _Arrays
    input_bases: tuple[Array | None, ...]  # None of an embedding, whose factor is diagonal
    output_bases: _Arrays
    input_values: _Arrays  # eigenvalues of the factors, for K-FAC
    output_values: _Arrays
    eigenvalues: _Arrays  # for EK-FAC
    diagonal: dict[str, Array]  # Fisher diagonals of the leaves that are not captured


class _Part(NamedTuple):
    """The columns of a layer's matrix whose leaves are there."""

    place: int
    block: LayerBlock
    start: int
    stop: int


def _present(params: PyTree) -> list[str] | None:
    """The paths of the leaves, if some are masked."""
    if not has_masked(params):
        return None
    return [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]


def _parts(layers: LayerSites, leaves: list[str] | None) -> list[_Part]:
    cuts = ((i, b, *block_columns(b, leaves)) for i, b in enumerate(layers.blocks))
    return [_Part(*cut) for cut in cuts if cut[3] > cut[2]]


def _average(decay: ArrayLike, old: PyTree, new: PyTree, ok: Array) -> PyTree:
    """The moving average, or the old one where the new values are not finite."""
    return jax.tree.map(lambda o, x: jnp.where(ok, moving_average(decay, o, x), o), old, new)


def _per_example(total: Array, count: Array) -> Array:
    return total / jnp.where(count > 0, count, 1)


def _when(due: Array | bool, fn: Callable[[Any], Any], state: Any) -> Any:
    """`fn(state)` if due, which the compiled program does not pay for otherwise."""
    if isinstance(due, bool):
        return fn(state) if due else state
    return jax.lax.cond(due, fn, lambda state: state, state)


def _due(interval: ArrayLike, count: Array, warmup: ArrayLike, first: Array) -> Array | bool:
    if isinstance(interval, int) and interval == 1:
        return True
    return (count % interval == 0) | (count < warmup) | first


def _rotated(values: Array, old: tuple[Any, Any], new: tuple[Any, Any]) -> Array:
    """The diagonal in a new basis of the matrix that is diagonal in an old one."""
    (old_in, old_out), (new_in, new_out) = old, new
    values = _einsum("spq,sqi->spi", jnp.square(_einsum("sop,soq->spq", new_out, old_out)), values)
    if new_in is None:
        return values
    return _einsum("soj,sij->soi", values, jnp.square(_einsum("sai,saj->sij", new_in, old_in)))


def _objective(name: str, params: Any, obj_fn: Any, value_fn: Any) -> LikelihoodObjective:
    obj_fn = the_obj_fn(obj_fn, value_fn)
    if params is None or obj_fn is None:
        missing = "`params`" if params is None else "`obj_fn`"
        raise ValueError(
            f"`update` of {name}: {missing} missing. It needs `params` and `obj_fn`, a "
            "`curvature.LikelihoodObjective(model_fn, likelihood, inputs, targets)` of the current "
            "batch."
        )
    if not isinstance(obj_fn, LikelihoodObjective):
        raise TypeError(
            f"`obj_fn` of {name} must be a `curvature.LikelihoodObjective`, which shows the model "
            f"of one example and the likelihood, got {type(obj_fn).__name__}."
        )
    check_real_leaves("params", params)
    return obj_fn


def _leaf_name(path: str) -> str:
    """A path of a leaf, the same whether a Flax NNX tree holds variables or their values.

    The NNX optimizer calls `init` with the first and `update` with the second.
    """
    return path.removesuffix(".value")


def _layers_now(layers: LayerSites, objective: LikelihoodObjective, params: PyTree) -> LayerSites:
    """The layers of the model of the objective, which must be those the state is made for."""
    found = capture_layers(objective.model_fn, params, example_structure(objective.inputs))

    def signature(sites: LayerSites) -> list[Any]:
        blocks = (
            (_leaf_name(b.path), _leaf_name(b.bias_path or ""), b.kind, b.shape)
            for b in sites.blocks
        )
        return [*blocks, *map(_leaf_name, sites.uncaptured)]

    if signature(found) != signature(layers):
        raise ValueError(
            "`layers` must be those of the model of `obj_fn`, got\n"
            f"{signature(layers)}\nfor a model with\n{signature(found)}."
        )
    return found


def _scale_by_kronecker(
    name: str,
    layers: LayerSites,
    *,
    corrected: bool,
    damping: ArrayLike,
    decay: ArrayLike,
    factor_interval: ArrayLike,
    basis_interval: ArrayLike,
    refresh_warmup: ArrayLike,
    labels: str,
    seed: ArrayLike,
    max_quadratic: ArrayLike | None,
    damping_rule: str,
) -> optax.GradientTransformationExtraArgs:
    """The transform of both methods; EK-FAC is the one with corrected eigenvalues."""
    if not isinstance(layers, LayerSites):
        raise TypeError(
            f"`layers` must be the `curvature.LayerSites` of the model, got {type(layers).__name__}"
            "; see `curvature.capture_layers`."
        )
    check_nonnegative("damping", damping)
    check_interval("decay", decay, 0.0, 1.0, closed="left")
    check_at_least("factor_interval", factor_interval, 1)
    check_at_least("basis_interval", basis_interval, 1)
    check_at_least("refresh_warmup", refresh_warmup, 0)
    check_choice("labels", labels, ("exact", "sampled", "empirical"))
    if max_quadratic is not None:
        check_positive("max_quadratic", max_quadratic)

    def init(params: PyTree) -> Any:
        check_real_leaves("params", params)
        given = {
            _leaf_name(jax.tree_util.keystr(p)): x
            for p, x in jax.tree_util.tree_leaves_with_path(params)
        }
        leaves = _present(params)
        if given and leaves is None:
            wanted = [
                *(b.path for b in layers.blocks),
                *(b.bias_path for b in layers.blocks if b.bias_path is not None),
                *layers.uncaptured,
            ]
            for path in map(_leaf_name, wanted):
                if path not in given:
                    raise ValueError(
                        f"`params` must have the leaves of `layers`, got none at {path!r}."
                    )
        parts = _parts(layers, leaves)
        dtype = jnp.result_type(jnp.float32, *(jnp.result_type(x) for x in given.values()))

        def eye(stack: int, size: int) -> Array:
            return jnp.broadcast_to(jnp.eye(size, dtype=dtype), (stack, size, size))

        zeros = partial(jnp.zeros, dtype=dtype)
        stacks = [p.block.stack for p in parts]
        ins, outs = [p.stop - p.start for p in parts], [p.block.out_features for p in parts]
        dense = [p.block.kind != "embedding" for p in parts]
        # A tree without leaves is what optax passes to learn the structure of the state.
        names = map(_leaf_name, layers.uncaptured)
        rest = {p: given.get(p, 0.0) for p in names if p in given or not given}
        return ScaleByKfacState(
            count=jnp.zeros((), jnp.int32),
            n=jnp.zeros((), jnp.int32),
            m=jnp.zeros((), jnp.int32),
            input_factors=tuple(
                zeros((s, i, i) if d else (s, i)) for s, i, d in zip(stacks, ins, dense)
            ),
            output_factors=tuple(zeros((s, o, o)) for s, o in zip(stacks, outs)),
            input_bases=tuple(eye(s, i) if d else None for s, i, d in zip(stacks, ins, dense)),
            output_bases=tuple(eye(s, o) for s, o in zip(stacks, outs)),
            input_values=() if corrected else tuple(zeros((s, i)) for s, i in zip(stacks, ins)),
            output_values=() if corrected else tuple(zeros((s, o)) for s, o in zip(stacks, outs)),
            eigenvalues=tuple(zeros((s, o, i)) for s, o, i in zip(stacks, outs, ins))
            if corrected
            else (),
            diagonal={p: jnp.zeros(jnp.shape(x), at_least_float32(x)) for p, x in rest.items()},
        )

    def refreshed(state: ScaleByKfacState) -> ScaleByKfacState:
        """New bases, and what was expressed in the old ones."""
        correction = bias_correction(decay, jnp.maximum(state.n, 1))
        in_values, in_bases, out_values, out_bases = [], [], [], []
        factors = zip(state.input_factors, state.input_bases, state.output_factors, strict=True)
        for a, basis, s in factors:
            if basis is None:
                values, vectors = a / correction.astype(a.dtype), None
            else:
                values, vectors = jnp.linalg.eigh(a / correction.astype(a.dtype))
            in_values.append(jnp.maximum(values, 0))
            in_bases.append(vectors)
            values, vectors = jnp.linalg.eigh(s / correction.astype(s.dtype))
            out_values.append(jnp.maximum(values, 0))
            out_bases.append(vectors)
        new = state._replace(input_bases=tuple(in_bases), output_bases=tuple(out_bases))
        if not corrected:
            return new._replace(input_values=tuple(in_values), output_values=tuple(out_values))
        return new._replace(
            eigenvalues=tuple(map(_rotated, state.eigenvalues, _pairs(state), _pairs(new)))
        )

    def denominators(state: ScaleByKfacState) -> list[Array]:
        if corrected:
            correction = bias_correction(decay, jnp.maximum(state.m, 1))
            return [x / correction.astype(x.dtype) + damping for x in state.eigenvalues]
        out = []
        for a, s in zip(state.input_values, state.output_values, strict=True):
            a, s = a[:, None, :], s[:, :, None]
            if damping_rule == "eigenvalue":
                out.append(s * a + damping)
                continue
            mean_a, mean_s = (jnp.mean(x, axis=(1, 2), keepdims=True) for x in (a, s))
            positive = (mean_a > 0) & (mean_s > 0)
            pi = jnp.where(positive, jnp.sqrt(mean_a / jnp.where(positive, mean_s, 1)), 1)
            root = jnp.sqrt(jnp.asarray(damping, a.dtype))
            out.append((s + root / pi) * (a + root * pi))
        return out

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        obj_fn: Callable[[PyTree], Any] | None = None,
        value_fn: Callable[[PyTree], Any] | None = None,
        full_params: PyTree | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, Any]:
        del extra_args
        objective = _objective(name, params, obj_fn, value_fn)
        leaves = _present(params)
        everything = params if leaves is None else _filled(params, full_params)
        now = _layers_now(layers, objective, everything)
        parts = _parts(now, leaves)
        key = jax.random.fold_in(jax.random.key(seed), state.count)

        def statistics(bases):
            return kronecker_statistics(
                objective.model_fn,
                objective.likelihood,
                everything,
                objective.inputs,
                objective.targets,
                key,
                labels,
                bases=bases,
                leaves=leaves,
                layers=now,
            )

        def with_factors(state: ScaleByKfacState) -> ScaleByKfacState:
            new = statistics(None)
            inputs = tuple(map(_per_example, new.input_grams, new.positions))
            outputs = tuple(x / new.count for x in new.output_grams)
            diagonal = {_leaf_name(p): x / new.count for p, x in new.diagonal.items()}
            ok = all_finite((inputs, outputs, diagonal))
            old = state.input_factors, state.output_factors, state.diagonal
            inputs, outputs, diagonal = _average(decay, old, (inputs, outputs, diagonal), ok)
            return state._replace(
                input_factors=inputs, output_factors=outputs, diagonal=diagonal, n=state.n + ok
            )

        first = state.n == 0
        state = _when(
            _due(factor_interval, state.count, refresh_warmup, first), with_factors, state
        )
        state = _when(_due(basis_interval, state.count, refresh_warmup, first), refreshed, state)
        if corrected:
            new = statistics(_pairs(state))
            squares = tuple(x / new.count for x in new.squares)
            ok = all_finite(squares)
            state = state._replace(
                eigenvalues=_average(decay, state.eigenvalues, squares, ok), m=state.m + ok
            )
        started = (state.n > 0) & ((state.m > 0) | (not corrected))

        gradient = (
            updates
            if leaves is None
            else _filled(updates, jax.tree.map(jnp.zeros_like, everything))
        )
        matrices, rest = now.to_matrices(gradient)
        steps = [jnp.zeros(v.shape, at_least_float32(v)) for v in matrices]
        bases = _pairs(state)
        for part, basis, total in zip(parts, bases, denominators(state), strict=True):
            v = matrices[part.place][..., part.start : part.stop].astype(total.dtype)
            curved = KroneckerBlock(part.block, None, None, *basis, total)
            u = curved.from_basis(_divided(curved.to_basis(v), total))
            width = matrices[part.place].shape[-1]
            padding = ((0, 0), (0, 0), (part.start, width - part.stop))
            steps[part.place] = jnp.pad(u, padding)
        correction = bias_correction(decay, jnp.maximum(state.n, 1))

        def of_leaf(path: str, g: Array) -> Array:
            if _leaf_name(path) not in state.diagonal:
                return g
            mean_square = state.diagonal[_leaf_name(path)] / correction.astype(at_least_float32(g))
            return _divided(g.astype(at_least_float32(g)), mean_square + damping)

        of_leaves = {path: of_leaf(path, g) for path, g in rest.items()}
        step = now.from_matrices(tuple(steps), of_leaves)
        if leaves is not None:
            step = aligned("updates", step, params)
        step = _limited(step, updates, max_quadratic)
        step = jax.tree.map(lambda u, g: jnp.where(started, u, 0).astype(g.dtype), step, updates)
        return step, state._replace(count=jnp.asarray(optax.safe_increment(state.count)))

    return optax.GradientTransformationExtraArgs(init, update)


def _divided(v: Array, total: Array) -> Array:
    """Directions without curvature and damping are left where they are."""
    return jnp.where(total > 0, v / jnp.where(total > 0, total, 1), 0)


def _pairs(state: ScaleByKfacState) -> tuple[tuple[Array | None, Array], ...]:
    return tuple(zip(state.input_bases, state.output_bases, strict=True))


def _filled(tree: PyTree, full: PyTree) -> PyTree:
    if full is None or has_masked(full):
        raise ValueError(
            "`params` has masked leaves (from `optax.masked` or `optax.partition`), where `obj_fn` "
            "cannot be evaluated: pass `full_params=params` to `update`."
        )
    return jax.tree.map(lambda x, f: f if _is_masked(x) else x, tree, full, is_leaf=_is_masked)


def _limited(step: PyTree, grads: PyTree, max_quadratic: ArrayLike | None) -> PyTree:
    """The step, shortened where step . grads (about step^T G step) exceeds the limit."""
    if max_quadratic is None:
        return step
    products = [
        jnp.sum(u.astype(at_least_float32(u)) * g.astype(at_least_float32(g)))
        for u, g in zip(jax.tree.leaves(step), jax.tree.leaves(grads), strict=True)
    ]
    quadratic = sum(products[1:], start=products[0])
    scale = jnp.sqrt(jnp.minimum(1, max_quadratic / jnp.where(quadratic > 0, quadratic, 1)))
    scale = jnp.where(quadratic > 0, scale, 1)
    return jax.tree.map(lambda u: u * scale.astype(u.dtype), step)


def scale_by_kfac(
    layers: LayerSites,
    damping: ArrayLike = 1e-3,
    decay: ArrayLike = 0.95,
    factor_interval: ArrayLike = 1,
    basis_interval: ArrayLike = 10,
    *,
    refresh_warmup: ArrayLike = 10,
    labels: str = "sampled",
    seed: ArrayLike = 0,
    max_quadratic: ArrayLike | None = None,
    damping_rule: str = "factored",
) -> optax.GradientTransformationExtraArgs:
    """Precondition gradients by K-FAC (Martens and Grosse 2015, arXiv:1503.05671).

    For the inputs of `update` see [`kfac`][jaxsci.optim.kfac].

    **Arguments:**

    - `layers`: the captured layers of the model, `curvature.capture_layers(model_fn, params, x)`;
        the state is shaped by them. Leaves that are not captured are divided by the diagonal of
        their Fisher matrix.
    - `damping`: lambda.
    - `decay`: the decay rate, in [0, 1), of the moving averages.
    - `factor_interval`: update the factors every so many steps. The other steps do not pay for it.
    - `basis_interval`: compute their eigenvectors every so many steps.
    - `refresh_warmup`: the first so many steps all do both.
    - `labels`: `"sampled"` (drawn from the model), `"exact"` (their expectation, one backward pass
        for each output but one) or `"empirical"` (the targets).
    - `seed`: an integer; the labels of step t are drawn from it and t.
    - `max_quadratic`: shorten a step u whose u . g, about u^T G u, exceeds this number: twice the
        change in KL divergence that it may make, over the square of the learning rate.
    - `damping_rule`: `"factored"` damps each factor by its share of sqrt(lambda) (section 6.3),
        `"eigenvalue"` adds lambda to the products of their eigenvalues.

    **Returns:**

    An `optax.GradientTransformationExtraArgs`. Updates have the dtypes of the gradients. Where the
    statistics of a batch hold a non-finite value, the last averages are kept; until the first
    finite ones, updates are zero.

    **Raises:**

    `ValueError` for a concrete argument out of its range. `init` raises it if `params` lacks a leaf
    of `layers`; `update` if `params` or `obj_fn` is missing, if the model of `obj_fn` has other
    layers, or if `params` is masked and `full_params` missing, and `TypeError` if `obj_fn` is not a
    `LikelihoodObjective`.
    """
    check_choice("damping_rule", damping_rule, ("factored", "eigenvalue"))
    return _scale_by_kronecker(
        "K-FAC",
        layers,
        corrected=False,
        damping=damping,
        decay=decay,
        factor_interval=factor_interval,
        basis_interval=basis_interval,
        refresh_warmup=refresh_warmup,
        labels=labels,
        seed=seed,
        max_quadratic=max_quadratic,
        damping_rule=damping_rule,
    )


def scale_by_ekfac(
    layers: LayerSites,
    damping: ArrayLike = 1e-3,
    decay: ArrayLike = 0.95,
    factor_interval: ArrayLike = 1,
    basis_interval: ArrayLike = 10,
    *,
    refresh_warmup: ArrayLike = 10,
    labels: str = "sampled",
    seed: ArrayLike = 0,
    max_quadratic: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Precondition gradients by EK-FAC (George et al. 2018, arXiv:1806.03884).

    K-FAC's eigenvectors with eigenvalues measured in their basis at every step. Arguments, returns
    and errors are those of [`scale_by_kfac`][jaxsci.optim.scale_by_kfac]; the damping is added to
    the eigenvalues.
    """
    return _scale_by_kronecker(
        "EK-FAC",
        layers,
        corrected=True,
        damping=damping,
        decay=decay,
        factor_interval=factor_interval,
        basis_interval=basis_interval,
        refresh_warmup=refresh_warmup,
        labels=labels,
        seed=seed,
        max_quadratic=max_quadratic,
        damping_rule="eigenvalue",
    )


def _finished(
    scaled: optax.GradientTransformationExtraArgs,
    learning_rate: optax.ScalarOrSchedule,
    momentum: ArrayLike | None,
    weight_decay: optax.ScalarOrSchedule,
    weight_decay_mask: PyTree | Callable[[PyTree], PyTree] | None,
) -> optax.GradientTransformationExtraArgs:
    steps: Sequence[Any] = [
        scaled,
        optax.identity() if momentum is None else optax.trace(momentum),  # pyright: ignore[reportArgumentType]
        optax.add_decayed_weights(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    ]
    return optax.chain(*steps)


def kfac(
    learning_rate: optax.ScalarOrSchedule,
    layers: LayerSites,
    damping: ArrayLike = 1e-3,
    decay: ArrayLike = 0.95,
    factor_interval: ArrayLike = 1,
    basis_interval: ArrayLike = 10,
    momentum: ArrayLike | None = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_decay_mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    refresh_warmup: ArrayLike = 10,
    labels: str = "sampled",
    seed: ArrayLike = 0,
    max_quadratic: ArrayLike | None = None,
    damping_rule: str = "factored",
) -> optax.GradientTransformationExtraArgs:
    """K-FAC with momentum and decoupled weight decay (Martens and Grosse 2015, arXiv:1503.05671).

    `model_fn(params, x)` is the model of one example; its layers are found in its trace.

    ```python
    layers = jaxsci.curvature.capture_layers(model_fn, params, x)
    tx = jaxsci.optim.kfac(0.05, layers)
    state = tx.init(params)

    @jax.jit
    def step(params, state, inputs, labels):
        obj_fn = jaxsci.curvature.LikelihoodObjective(model_fn, "softmax", inputs, labels)
        grads = jax.grad(obj_fn)(params)
        updates, state = tx.update(grads, state, params, obj_fn=obj_fn)
        return optax.apply_updates(params, updates), state
    ```

    `update(grads, state, params, *, obj_fn, value_fn=None, full_params=None, **extra)` takes

    - `obj_fn`, a `curvature.LikelihoodObjective` of the current batch (`train.fit` passes one with
        the loss [`likelihood_loss`][jaxsci.train.likelihood_loss]);
    - `full_params`: inside `optax.masked` and `optax.partition`, the unmasked parameters. The
        curvature is then that of the selected leaves.

    Under `optax.inject_hyperparams`, name a callable `weight_decay_mask` in `static_args`.
    `optax.MultiSteps` shows the last microbatch only.

    **Arguments:**

    - `learning_rate`: a number or a schedule.
    - `momentum`: the decay of a heavy-ball average of the steps; None for none.
    - `weight_decay`: decoupled and multiplied by the learning rate, as in AdamW.
    - `weight_decay_mask`: which leaves decay; see `optax.add_decayed_weights`.

    The other arguments are those of [`scale_by_kfac`][jaxsci.optim.scale_by_kfac].

    **Returns:**

    An `optax.GradientTransformationExtraArgs`.

    **Raises:**

    As `scale_by_kfac`.
    """
    scaled = scale_by_kfac(
        layers,
        damping,
        decay,
        factor_interval,
        basis_interval,
        refresh_warmup=refresh_warmup,
        labels=labels,
        seed=seed,
        max_quadratic=max_quadratic,
        damping_rule=damping_rule,
    )
    return _finished(scaled, learning_rate, momentum, weight_decay, weight_decay_mask)


def ekfac(
    learning_rate: optax.ScalarOrSchedule,
    layers: LayerSites,
    damping: ArrayLike = 1e-3,
    decay: ArrayLike = 0.95,
    factor_interval: ArrayLike = 1,
    basis_interval: ArrayLike = 10,
    momentum: ArrayLike | None = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    weight_decay_mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    refresh_warmup: ArrayLike = 10,
    labels: str = "sampled",
    seed: ArrayLike = 0,
    max_quadratic: ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """EK-FAC with momentum and decoupled weight decay (George et al. 2018, arXiv:1806.03884).

    Used as [`kfac`][jaxsci.optim.kfac], with its arguments; the damping is added to the
    eigenvalues, which are measured at every step.
    """
    scaled = scale_by_ekfac(
        layers,
        damping,
        decay,
        factor_interval,
        basis_interval,
        refresh_warmup=refresh_warmup,
        labels=labels,
        seed=seed,
        max_quadratic=max_quadratic,
    )
    return _finished(scaled, learning_rate, momentum, weight_decay, weight_decay_mask)
