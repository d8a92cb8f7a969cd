"""Infinite-width layers: maps of the pair (NNGP kernel, neural tangent kernel).

A layer turns the covariance K of its inputs' features and their tangent kernel T into those of its
outputs. In the NTK parametrisation (Jacot, Gabriel and Hongler 2018, arXiv:1806.07572),

    dense:       K <- w^2 K + b^2,   T <- w^2 T + w^2 K + b^2,
    convolution: the same with the mean of K and T over the filter, position by position
                 (Novak et al. 2019, arXiv:1810.05148; Arora et al. 2019, arXiv:1904.11955),
    activation:  K <- E[s(u) s(v)],  T <- T E[s'(u) s'(v)],
    flatten:     the mean over equal positions,
    pooling:     the mean over all pairs of positions, which needs the covariance of every pair.

Layers compose by `serial` and `parallel_sum`; `kernels` runs them.
"""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from ..._base import check_choice, check_nonnegative, is_complex
from ._duals import dual
from ._quadrature import Dual


class Kernels(NamedTuple):
    """The two kernels of an infinitely wide network between two sets of points.

    - `nngp`: covariance of one output over random networks, shape (n1, n2).
    - `ntk`: neural tangent kernel of one output, shape (n1, n2).
    """

    nngp: Float[Array, "n1 n2"]
    ntk: Float[Array, "n1 n2"]


class _Features(eqx.Module):
    """Kernels on the way through the layers, over `rank` axes of positions.

    `pairs` says whether all pairs of positions are kept, (n1, n2, *s, *s), or equal positions
    only, (n1, n2, *s). `variance1` and `variance2` are the covariances of each point with itself,
    (n1, *s[, *s]); with `symmetric` both sets of points are the same. `gaussian` says whether the
    features are Gaussian of mean zero, as after a layer of weights; `mixed` whether they are
    independent of the input's features, as after any layer of weights.
    """

    nngp: Array
    ntk: Array
    variance1: Array
    variance2: Array
    rank: int = eqx.field(static=True)
    pairs: bool = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)
    gaussian: bool = eqx.field(static=True)
    mixed: bool = eqx.field(static=True)

    def update(self, **changes) -> "_Features":
        names = (*changes,)
        values = (*changes.values(),)
        return eqx.tree_at(lambda s: tuple(getattr(s, n) for n in names), self, values)

    def point_variances(self) -> tuple[Array, Array]:
        """Variances by position, shaped to broadcast against `nngp`."""
        rank = self.rank
        first, second = self.variance1, self.variance2
        if self.pairs:
            first, second = _equal_positions(first, rank, 1), _equal_positions(second, rank, 1)
        ones = (1,) * rank if self.pairs else ()
        first = first.reshape(first.shape[0], 1, *first.shape[1:], *ones)
        return first, second.reshape(1, second.shape[0], *ones, *second.shape[1:])

    def own_variances(self) -> list[tuple[Array, Array, Array]]:
        """For both sets of points, the covariance of each point with itself, and its diagonal
        shaped to broadcast against it: `(left, right, covariance)`."""
        return [(*self._sides(v), v) for v in (self.variance1, self.variance2)]

    def _sides(self, variance: Array) -> tuple[Array, Array]:
        if not self.pairs:
            return variance, variance
        at = _equal_positions(variance, self.rank, 1)
        n, ones = at.shape[0], (1,) * self.rank
        return at.reshape(n, *at.shape[1:], *ones), at.reshape(n, *ones, *at.shape[1:])


def _equal_positions(values: Array, rank: int, lead: int) -> Array:
    """(..., *s, *s) -> (..., *s): the entries where both positions are the same."""
    for i in range(rank):
        # Each step takes one pair of axes and puts its diagonal last.
        values = jnp.diagonal(values, axis1=lead, axis2=lead + rank - i)
    return values


class AbstractLayer(eqx.Module):
    """A layer of an infinitely wide network; make one by the functions of this module."""

    @abc.abstractmethod
    def __call__(self, features: _Features) -> _Features:
        """The kernels after the layer."""

    def needs_pairs(self) -> bool:
        """Whether the layer needs the covariances of all pairs of positions."""
        return False


def _affine(features: _Features, w_std, b_std, average: Callable[[Array, int], Array]) -> _Features:
    w, b = jnp.square(w_std), jnp.square(b_std)
    nngp = w * average(features.nngp, 2) + b
    out = features.update(
        nngp=nngp,
        ntk=w * average(features.ntk, 2) + nngp,
        variance1=w * average(features.variance1, 1) + b,
        variance2=w * average(features.variance2, 1) + b,
    )
    return _replace_static(out, gaussian=True, mixed=True)


def _replace_static(features: _Features, **changes) -> _Features:
    fields = {n: getattr(features, n) for n in features.__dataclass_fields__}
    return _Features(**{**fields, **changes})


def _same_points(features: _Features) -> _Features:
    """Read the variances off the diagonal of a symmetric kernel, so that they agree to the bit."""
    if not features.symmetric:
        return features
    variance = jnp.moveaxis(jnp.diagonal(features.nngp, axis1=0, axis2=1), -1, 0)
    return features.update(variance1=variance, variance2=variance)


class _Dense(AbstractLayer):
    w_std: ArrayLike
    b_std: ArrayLike

    def __call__(self, features):
        if features.rank:
            raise ValueError(
                "`dense` needs features without positions, got features with "
                f"{features.rank} axes of positions: put `flatten` or `global_average_pool` before."
            )
        return _affine(features, self.w_std, self.b_std, lambda k, lead: k)


class _Conv(AbstractLayer):
    w_std: ArrayLike
    b_std: ArrayLike
    size: tuple[int, ...] = eqx.field(static=True)
    strides: tuple[int, ...] = eqx.field(static=True)
    padding: str = eqx.field(static=True)

    def __call__(self, features):
        rank = len(self.size)
        if features.rank != rank:
            raise ValueError(
                f"`conv{rank}d` needs inputs of shape (n, channels, *{rank} axes), got features "
                f"with {features.rank} axes of positions."
            )
        groups = 2 if features.pairs else 1

        def average(k: Array, lead: int) -> Array:
            for axis in range(rank):
                axes = [lead + axis + rank * g for g in range(groups)]
                k = self._slide(k, axes, self.size[axis], self.strides[axis])
            return k

        return _affine(features, self.w_std, self.b_std, average)

    def _slide(self, k: Array, axes: list[int], size: int, stride: int) -> Array:
        """Mean over the filter, moved along `axes` at once."""
        length = k.shape[axes[0]]
        if self.padding == "valid":
            out, before, after = (length - size) // stride + 1, 0, 0
        else:
            out = -(-length // stride)
            total = max((out - 1) * stride + size - length, 0)
            before, after = total // 2, total - total // 2
        if out < 1:
            raise ValueError(
                f"`size` {self.size} is larger than the {length} positions left to a valid "
                "convolution."
            )
        widths = [(before, after) if a in axes else (0, 0) for a in range(k.ndim)]
        k = jnp.pad(k, widths, mode="wrap" if self.padding == "circular" else "constant")
        total = jnp.zeros((), k.dtype)
        for tap in range(size):
            index = slice(tap, tap + (out - 1) * stride + 1, stride)
            total = total + k[tuple(index if a in axes else slice(None) for a in range(k.ndim))]
        return total / size


class _Activation(AbstractLayer):
    evaluate: Dual

    def __call__(self, features):
        if not features.gaussian:
            raise ValueError(
                "An activation needs Gaussian features of mean zero: put `dense` or `conv` before."
            )
        first, second = features.point_variances()
        nngp, slope = self.evaluate(first, second, features.nngp)
        out = features.update(nngp=nngp, ntk=features.ntk * slope)
        if features.symmetric:
            out = _same_points(out)
        else:
            own = [self.evaluate(*triple)[0] for triple in features.own_variances()]
            out = out.update(variance1=own[0], variance2=own[1])
        return _replace_static(out, gaussian=False)


class _LayerNorm(AbstractLayer):
    eps: ArrayLike

    def __call__(self, features):
        if not features.gaussian:
            raise ValueError(
                "`layer_norm` has a closed form for Gaussian features of mean zero only: put "
                "`dense` or `conv` before."
            )
        first, second = features.point_variances()
        scale = 1 / jnp.sqrt((first + self.eps) * (second + self.eps))
        own = [
            variance / jnp.sqrt((left + self.eps) * (right + self.eps))
            for left, right, variance in features.own_variances()
        ]
        out = features.update(
            nngp=features.nngp * scale,
            ntk=features.ntk * scale,
            variance1=own[0],
            variance2=own[1],
        )
        return _same_points(out)


class _Flatten(AbstractLayer):
    def __call__(self, features):
        rank = features.rank

        def average(k: Array, lead: int) -> Array:
            if features.pairs:
                k = _equal_positions(k, rank, lead)
            return jnp.mean(k, axis=tuple(range(lead, lead + rank)))

        return _without_positions(features, average)


class _GlobalAveragePool(AbstractLayer):
    def __call__(self, features):
        axes = 2 * features.rank
        return _without_positions(
            features, lambda k, lead: jnp.mean(k, axis=tuple(range(lead, lead + axes)))
        )

    def needs_pairs(self):
        return True


def _without_positions(features: _Features, average: Callable[[Array, int], Array]) -> _Features:
    if features.rank == 0:
        return features
    out = features.update(
        nngp=average(features.nngp, 2),
        ntk=average(features.ntk, 2),
        variance1=average(features.variance1, 1),
        variance2=average(features.variance2, 1),
    )
    return _replace_static(out, rank=0, pairs=False)


class _Identity(AbstractLayer):
    def __call__(self, features):
        return features


class _Serial(AbstractLayer):
    layers: tuple[AbstractLayer, ...]

    def __call__(self, features):
        for layer in self.layers:
            features = layer(features)
        return features

    def needs_pairs(self):
        return any(layer.needs_pairs() for layer in self.layers)


class _ParallelSum(AbstractLayer):
    branches: tuple[AbstractLayer, ...]

    def __call__(self, features):
        # Whether a branch has weights of its own shows when it starts from unmixed features.
        start = _replace_static(features, mixed=False)
        outs = [branch(start) for branch in self.branches]
        shared = sum(not out.mixed for out in outs)
        skewed = sum(not out.gaussian for out in outs)
        if shared > 1 or skewed > 1:
            raise ValueError(
                "`parallel_sum` adds independent branches: at most one may have no weights of its "
                f"own (got {shared}) and at most one may end without `dense` or `conv` (got "
                f"{skewed})."
            )
        if len({(out.rank, out.nngp.shape) for out in outs}) > 1:
            shapes = [out.nngp.shape for out in outs]
            raise ValueError(f"The branches of `parallel_sum` end in different shapes: {shapes}.")
        summed = outs[0].update(
            **{
                name: sum(getattr(out, name) for out in outs[1:]) + getattr(outs[0], name)
                for name in ("nngp", "ntk", "variance1", "variance2")
            }
        )
        mixed = features.mixed or any(out.mixed for out in outs)
        return _replace_static(summed, gaussian=skewed == 0, mixed=mixed)

    def needs_pairs(self):
        return any(branch.needs_pairs() for branch in self.branches)


def _check_scales(w_std: ArrayLike, b_std: ArrayLike) -> None:
    check_nonnegative("w_std", w_std)
    check_nonnegative("b_std", b_std)


def dense(w_std: ArrayLike = 1.0, b_std: ArrayLike = 0.1) -> AbstractLayer:
    """A fully connected layer, `w_std W x / sqrt(n) + b_std b` with standard normal `W`, `b`.

    **Arguments:**

    - `w_std`, `b_std`: scales of the weights and of the biases, at least zero; differentiable.

    **Returns:**

    A layer for `serial`, `parallel_sum` and `kernels`.
    """
    _check_scales(w_std, b_std)
    return _Dense(w_std, b_std)


def _conv(size, w_std, b_std, strides, padding, rank) -> AbstractLayer:
    _check_scales(w_std, b_std)
    check_choice("padding", padding, ("same", "valid", "circular"))
    size = (size,) * rank if isinstance(size, int) else tuple(size)
    strides = (strides,) * rank if isinstance(strides, int) else tuple(strides)
    for name, value in (("size", size), ("strides", strides)):
        if len(value) != rank or any(v < 1 for v in value):
            raise ValueError(f"`{name}` must be {rank} positive integers, got {value}.")
    return _Conv(w_std, b_std, size, strides, padding)


def conv1d(
    size: int | tuple[int] = 3,
    w_std: ArrayLike = 1.0,
    b_std: ArrayLike = 0.1,
    *,
    strides: int | tuple[int] = 1,
    padding: str = "same",
) -> AbstractLayer:
    """A convolution over one axis of positions, `w_std W * x / sqrt(size n) + b_std b`.

    **Arguments:**

    - `size`: taps of the filter.
    - `w_std`, `b_std`: scales of the weights and of the biases, at least zero; differentiable.
    - `strides`: step of the filter.
    - `padding`: "same" (zeros), "valid" or "circular".

    **Returns:**

    A layer for `serial`, `parallel_sum` and `kernels`.
    """
    return _conv(size, w_std, b_std, strides, padding, 1)


def conv2d(
    size: int | tuple[int, int] = 3,
    w_std: ArrayLike = 1.0,
    b_std: ArrayLike = 0.1,
    *,
    strides: int | tuple[int, int] = 1,
    padding: str = "same",
) -> AbstractLayer:
    """A convolution over two axes of positions; see `conv1d`.

    **Arguments:**

    - `size`: taps of the filter, one number or one for each axis.
    - `w_std`, `b_std`: scales of the weights and of the biases, at least zero; differentiable.
    - `strides`: step of the filter, one number or one for each axis.
    - `padding`: "same" (zeros), "valid" or "circular".

    **Returns:**

    A layer for `serial`, `parallel_sum` and `kernels`.
    """
    return _conv(size, w_std, b_std, strides, padding, 2)


def activation(fn: str | Callable, *, num_nodes: int = 100) -> AbstractLayer:
    """An activation, elementwise; `fn` and `num_nodes` as in `dual`.

    **Returns:**

    A layer for `serial`, `parallel_sum` and `kernels`.
    """
    return _Activation(dual(fn, num_nodes=num_nodes))


def layer_norm(eps: ArrayLike = 0.0) -> AbstractLayer:
    """Normalisation over the features (channels), at each position: K <- K / sqrt(q q').

    Closed form after `dense` or `conv` only, where the features are Gaussian of mean zero.

    **Arguments:**

    - `eps`: added to the variances.

    **Returns:**

    A layer for `serial`, `parallel_sum` and `kernels`.
    """
    check_nonnegative("eps", eps)
    return _LayerNorm(eps)


def flatten() -> AbstractLayer:
    """All positions and channels become one axis of features."""
    return _Flatten()


def global_average_pool() -> AbstractLayer:
    """Mean over all positions; keeps the covariance of every pair of positions until there."""
    return _GlobalAveragePool()


def identity() -> AbstractLayer:
    """The layer that changes nothing: the skip branch of `parallel_sum`."""
    return _Identity()


def serial(*layers: AbstractLayer) -> AbstractLayer:
    """One layer after the other, the first named first."""
    return _Serial(layers)


def parallel_sum(*branches: AbstractLayer) -> AbstractLayer:
    """The sum of branches that see the same input, as in a residual connection.

    The kernels of independent branches add. `parallel_sum(identity(), serial(...))` is a residual
    block. At most one branch may be without weights of its own, and at most one may end without
    `dense` or `conv`: two such are not independent.

    **Raises:**

    `ValueError` when the layer is used on branches that are not independent, or end in different
    shapes.
    """
    if not branches:
        raise ValueError("`parallel_sum` needs at least one branch, got none.")
    return _ParallelSum(branches)


def _as_points(name: str, x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    if x.ndim < 2:
        raise ValueError(
            f"`{name}` must have shape (n, features) or (n, channels, *positions), got {x.shape}."
        )
    if is_complex(x):
        raise TypeError(f"`{name}` must be real, got {x.dtype}: stack real and imaginary parts.")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def _inner_products(x1: Array, x2: Array, pairs: bool) -> Array:
    """Mean over channels of x1 x2, (n1, n2, *s[, *s])."""
    if not pairs:
        return jnp.einsum("nc...,mc...->nm...", x1, x2) / x1.shape[1]
    first, second = x1.reshape(*x1.shape[:2], -1), x2.reshape(*x2.shape[:2], -1)
    products = jnp.einsum("ncs,mct->nmst", first, second) / x1.shape[1]
    return products.reshape(*products.shape[:2], *x1.shape[2:], *x2.shape[2:])


def kernels(
    network: AbstractLayer,
    x1: Real[Array | np.ndarray, "n1 *shape"],
    x2: Real[Array | np.ndarray, "n2 *shape"] | None = None,
) -> Kernels:
    """NNGP and neural tangent kernel of an infinitely wide network.

    A network of `n_out` outputs has the kernel of one output on each of them, and zero between.

    **Arguments:**

    - `network`: a layer; it must end in features without positions.
    - `x1`: points, (n1, features), or (n1, channels, *positions) for convolutions.
    - `x2`: more points, or `None` for `x1` again. Then the variances are read off the diagonal,
        so that coinciding points coincide to the bit.

    **Returns:**

    `Kernels(nngp, ntk)`, each (n1, n2).

    **Raises:**

    `ValueError` if the shapes do not fit each other or the network; `TypeError` for complex points.
    """
    first = _as_points("x1", x1)
    second = first if x2 is None else _as_points("x2", x2)
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"`x1` and `x2` must have points of one shape, got {first.shape} and {second.shape}."
        )
    first, second = (a.astype(jnp.result_type(first, second)) for a in (first, second))
    pairs = network.needs_pairs() and first.ndim > 2
    nngp = _inner_products(first, second, pairs)

    def own(x: Array) -> Array:
        if not pairs:
            return jnp.mean(x * x, axis=1)
        flat = x.reshape(*x.shape[:2], -1)
        products = jnp.einsum("ncs,nct->nst", flat, flat) / x.shape[1]
        return products.reshape(x.shape[0], *x.shape[2:], *x.shape[2:])

    features = _Features(
        nngp=nngp,
        ntk=jnp.zeros_like(nngp),
        variance1=own(first),
        variance2=own(second),
        rank=first.ndim - 2,
        pairs=pairs,
        symmetric=x2 is None,
        gaussian=False,
        mixed=False,
    )
    out = network(_same_points(features))
    if out.rank:
        raise ValueError(
            f"The network ends in {out.rank} axes of positions: end it with `flatten` or "
            "`global_average_pool`, and `dense`."
        )
    return Kernels(out.nngp, out.ntk)
