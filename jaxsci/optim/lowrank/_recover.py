"""`recover`: find a low-rank matrix from linear measurements by gradient descent on its factors.

All factors of a step are updated from the same residual. Xiong, Ding and Du 2023, "How
over-parameterization slows down gradient descent in matrix sensing: the curses of symmetry and
initialization" (arXiv:2310.01769).
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from jaxsci._base import (
    check_at_least,
    check_choice,
    check_nonnegative,
    check_positive,
    is_concrete,
    raise_if_failed,
    RESULTS,
)

from ._abstract_sensing import residual_of_product, SensingOperator
from ._factors import init_asymmetric, init_symmetric, rebalance
from ._gram import over_gram
from ._sensing import Identity

METHODS = ("asymmetric", "symmetric", "rescaled", "scaledgd", "precgd")
_SYMMETRIC = ("symmetric", "precgd")


class History(NamedTuple):
    """What `recover` records, at steps 0, `record_every`, 2 `record_every`, ..."""

    loss: Float[Array, " records"]
    error: Float[Array, " records"] | None  # |F G^T - truth|_F, where `truth` is given


class Result(eqx.Module):
    """What `recover` found.

    - `matrix`: F G^T (X X^T for the symmetric methods).
    - `factors`: `(F, G)`, or `(X,)`.
    - `history`: a `History` of losses and errors.
    - `diverged_at`: the first step with a non-finite loss; -1 if there is none.
    - `result`: the code, `RESULTS.successful` or `RESULTS.nonfinite`.
    """

    matrix: Float[Array, "n1 n2"]
    factors: tuple[Float[Array, "..."], ...]
    history: History
    diverged_at: Int[Array, ""]
    result: RESULTS


def recover(
    op: SensingOperator,
    y: Float[ArrayLike, "..."],
    shape: Sequence[int],
    rank: int,
    method: str = "asymmetric",
    lr: ArrayLike = 0.1,
    num_steps: int = 1000,
    scale: ArrayLike = 0.1,
    rebalance_at: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    key: PRNGKeyArray | None = None,
    init: Any = None,
    ratio: ArrayLike = 1 / 3,
    true_rank: int | None = None,
    damping: ArrayLike | None = None,
    truth: Float[ArrayLike, "n1 n2"] | None = None,
    record_every: int = 1,
    throw: bool = True,
) -> Result:
    """Gradient descent on the factors of a matrix M, from y = A(M).

    With more columns than M has rank, `symmetric` converges like 1/T, `asymmetric` linearly at a
    rate proportional to `scale`^2, and `rescaled` linearly at a rate that does not depend on it.
    Under `jax.vmap` over `key`, seeds run side by side.

    **Arguments:**

    - `op`: the sensing operator: one of this package, a lineax operator on matrices or on their
        raveled entries, or a linear callable. Step sizes assume A*A to be near the identity.
    - `y`: the measurements; the factors have its dtype.
    - `shape`: `(n1, n2)`.
    - `rank`: the number k of columns of the factors.
    - `method`: one of

        - `"symmetric"`: X <- X - lr sym(D) X, D = A*(A(X X^T) - y);
        - `"asymmetric"`: (F, G) <- (F - lr D G, G - lr D^T F), D = A*(A(F G^T) - y);
        - `"rescaled"`: the same, with one `rebalance(F, G, beta)` before step `rebalance_at`;
        - `"precgd"` and `"scaledgd"`: the first two with gradients preconditioned by the damped
            Gram matrices of the factors (Zhang, Fattahi and Zhang 2021, arXiv:2504.09708; Tong, Ma
            and Chi 2021, arXiv:2005.08898).
    - `lr`: the step size, well below 1 / sigma_1(M) (below 1 for the preconditioned methods).
    - `num_steps`: how many steps.
    - `scale`: the scale of the random start.
    - `rebalance_at`: the step of the change of `"rescaled"`, when the error is already small
        compared with sigma_r(M). Half of `num_steps` if None.
    - `beta`: the new singular value of F, best sqrt(sigma_r(M)). If None it is that of the
        iterate, which needs `true_rank`.
    - `key`: of the random start; `jax.random.key(0)` if None.
    - `init`: the start instead: `(F, G)`, or `X` for the symmetric methods.
    - `ratio`: the scale of G over that of F at the start.
    - `true_rank`: the rank r of M if it is known.
    - `damping`: of the Gram matrices; the norm of the residual if None.
    - `truth`: M, to record the error.
    - `record_every`: record every so many steps; divides `num_steps`.
    - `throw`: raise `RuntimeError` if the iteration diverged.

    **Returns:** a `Result`.

    **Raises:** `ValueError` for arguments out of their range or that do not fit together;
    `RuntimeError` if the loss stops being finite, naming the step. Equal factors given as `init` of
    an asymmetric method warn: they stay equal, which is the symmetric iteration.
    """
    check_choice("method", method, METHODS)
    y = jnp.asarray(y)
    y = y if jnp.issubdtype(y.dtype, jnp.floating) else y.astype(jnp.result_type(float))
    n1, n2 = _checked_shape(shape, method)
    _check_ranks(rank, true_rank, min(n1, n2))
    check_positive("lr", lr)
    check_at_least("num_steps", num_steps, 1)
    check_at_least("record_every", record_every, 1)
    if num_steps % record_every:
        raise ValueError(
            f"`record_every` must divide `num_steps` = {num_steps}, got {record_every}."
        )
    if damping is not None:
        check_nonnegative("damping", damping)
    if truth is not None:
        truth = jnp.asarray(truth, y.dtype)
        if truth.shape != (n1, n2):
            raise ValueError(f"`truth` must have the shape {(n1, n2)}, got {truth.shape}.")
    if method in _SYMMETRIC:
        _check_symmetric("truth", truth)
        _check_symmetric("y", y if isinstance(op, Identity) else None)
    if method == "rescaled":
        if beta is None and true_rank is None:
            raise ValueError('`method="rescaled"` needs `beta`, or `true_rank` to choose it.')
        if beta is not None:
            check_positive("beta", beta)
        rebalance_at = num_steps // 2 if rebalance_at is None else rebalance_at
        check_at_least("rebalance_at", rebalance_at, 0)
    elif rebalance_at is not None:
        raise ValueError(f'`rebalance_at` belongs to `method="rescaled"`, got method {method!r}.')

    factors = _start(key, init, (n1, n2), rank, method, scale, ratio, y.dtype)
    _ = jax.eval_shape(lambda f: residual_of_product(op, f[0], f[-1], y), factors)
    as_array = lambda x: None if x is None else jnp.asarray(x, y.dtype)
    out = _descend(
        op,
        y,
        factors,
        method,
        as_array(lr),
        num_steps,
        None if rebalance_at is None else jnp.asarray(rebalance_at, jnp.int32),
        as_array(beta),
        true_rank,
        as_array(damping),
        truth,
        record_every,
    )
    if throw and is_concrete(out.diverged_at):
        raise_if_failed(out.result, f"`recover` diverged at step {np.asarray(out.diverged_at)}")
    return out


def _checked_shape(shape: Sequence[int], method: str) -> tuple[int, int]:
    if len(tuple(shape)) != 2 or min(shape) < 1:
        raise ValueError(f"`shape` must be two positive sizes (n1, n2), got {shape!r}.")
    n1, n2 = (int(n) for n in shape)
    if method in _SYMMETRIC and n1 != n2:
        raise ValueError(f"`shape` must be square for method {method!r}, got {shape!r}.")
    return n1, n2


def _check_ranks(rank: int, true_rank: int | None, largest: int) -> None:
    check_at_least("rank", rank, 1)
    if true_rank is not None:
        check_at_least("true_rank", true_rank, 1)
        if rank < true_rank:
            raise ValueError(f"`rank` must be at least `true_rank` = {true_rank}, got {rank}.")
        if true_rank > largest:
            raise ValueError(f"`true_rank` must be at most {largest}, got {true_rank}.")


def _check_symmetric(name: str, matrix: Any) -> None:
    if matrix is None or not is_concrete(matrix) or matrix.ndim != 2:
        return
    m = np.asarray(matrix)
    tolerance = 100 * np.finfo(m.dtype).eps * np.max(np.abs(m), initial=0.0)
    if m.shape[0] != m.shape[1] or np.max(np.abs(m - m.T), initial=0.0) > tolerance:
        raise ValueError(f"`{name}` must be symmetric for the symmetric methods, got {m.shape}.")


def _start(key, init, shape, rank, method, scale, ratio, dtype) -> tuple[Array, ...]:
    symmetric = method in _SYMMETRIC
    if init is None:
        check_positive("scale", scale)
        key = jax.random.key(0) if key is None else key
        if symmetric:
            return (init_symmetric(key, shape[0], rank, scale, dtype=dtype),)
        return init_asymmetric(key, shape[0], shape[1], rank, scale, ratio, dtype=dtype)
    given = tuple(init) if isinstance(init, tuple | list) else (init,)
    factors = tuple(jnp.asarray(x, dtype) for x in given)
    wanted = tuple((n, rank) for n in (shape[:1] if symmetric else shape))
    if tuple(x.shape for x in factors) != wanted:
        raise ValueError(
            f"`init` must hold factors of the shapes {wanted} for method {method!r}, got "
            f"{tuple(x.shape for x in factors)}."
        )
    if not symmetric and is_concrete(factors) and shape[0] == shape[1]:
        left, right = (np.asarray(x) for x in factors)
        if np.array_equal(left, right):
            warnings.warn(
                "The two factors of `init` are equal. They stay equal where the data are "
                "symmetric: this is the symmetric iteration, slow if `rank` exceeds the rank of "
                "the matrix. Draw them independently, e.g. with `init_asymmetric`.",
                stacklevel=3,
            )
    return factors


def _slopes(op, y, factors, method, damping):
    """The loss and the direction of descent of each factor."""
    symmetric = method in _SYMMETRIC
    share = 4 if symmetric else 2

    def loss_fn(f):
        return jnp.sum(residual_of_product(op, f[0], f[-1], y) ** 2) / share

    loss, slopes = jax.value_and_grad(loss_fn)(factors)
    if method in ("scaledgd", "precgd"):
        delta = jnp.sqrt(share * loss) if damping is None else damping
        slopes = tuple(over_gram(s, f, delta) for s, f in zip(slopes, factors[::-1], strict=True))
    return loss, slopes


@eqx.filter_jit
def _descend(
    op,
    y,
    factors,
    method,
    lr,
    num_steps,
    rebalance_at,
    beta,
    true_rank,
    damping,
    truth,
    record_every,
) -> Result:
    def change(f):
        if beta is not None:
            return rebalance(f[0], f[1], beta)
        # sigma_r(F G^T) is that of the small matrix R_F R_G^T of the QR factors.
        core = jnp.linalg.qr(f[0], mode="r") @ jnp.linalg.qr(f[1], mode="r").T
        values = jnp.linalg.svd(core, compute_uv=False)
        return rebalance(f[0], f[1], jnp.sqrt(values[true_rank - 1]))

    def step(carry, index):
        f, diverged_at = carry
        if rebalance_at is not None:
            f = jax.lax.cond(index == rebalance_at, change, lambda f: f, f)
        loss, slopes = _slopes(op, y, f, method, damping)
        first = (diverged_at < 0) & ~jnp.isfinite(loss)
        diverged_at = jnp.where(first, index, diverged_at)
        f = tuple((x - lr * s).astype(x.dtype) for x, s in zip(f, slopes, strict=True))
        return (f, diverged_at), loss

    def record(f):
        return None if truth is None else jnp.linalg.norm(f[0] @ f[-1].T - truth)

    def block(carry, indices):
        error = record(carry[0])
        carry, loss = step(carry, indices[0])
        if record_every > 1:
            carry, _ = jax.lax.scan(step, carry, indices[1:])
        return carry, History(loss, error)

    indices = jnp.arange(num_steps, dtype=jnp.int32).reshape(-1, record_every)
    start = (factors, jnp.asarray(-1, jnp.int32))
    (factors, diverged_at), history = jax.lax.scan(block, start, indices)
    loss, _ = _slopes(op, y, factors, method, damping)
    last = History(loss, record(factors))
    diverged_at = jnp.where((diverged_at < 0) & ~jnp.isfinite(loss), num_steps, diverged_at)
    return Result(
        matrix=factors[0] @ factors[-1].T,
        factors=factors,
        history=jax.tree.map(lambda h, x: jnp.append(h, x), history, last),
        diverged_at=diverged_at,
        result=RESULTS.where(diverged_at >= 0, RESULTS.nonfinite, RESULTS.successful),
    )
