"""Strided views and arrangements: the linear maps between a weight, its operand and its matrix.

A value that is a transposed, reshaped, broadcast or sliced copy of one array has entries

    value[i_0, i_1, ...] = array.ravel()[offset + sum of stride * index over its pieces],

where every axis is a row-major product of pieces (size, stride), as in NumPy, with stride 0 for
a broadcast piece. Composing such maps and turning them around needs no array.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

Piece = tuple[int, int]
Pieces = tuple[Piece, ...]


def merge(pieces: Sequence[Piece]) -> Pieces:
    """The same index map with as few pieces as possible."""
    out: list[Piece] = []
    for size, stride in pieces:
        if size == 1:
            continue
        if out and out[-1][1] == size * stride:
            out[-1] = (out[-1][0] * size, stride)
        else:
            out.append((size, stride))
    return tuple(out)


def cut(pieces: Sequence[Piece], sizes: Sequence[int]) -> tuple[Pieces, ...] | None:
    """The same index map as a product of axes of the given sizes; None where there is none."""
    left = list(merge(pieces))
    axes = []
    for size in sizes:
        axis: list[Piece] = []
        while size > 1:
            if not left:
                return None
            n, stride = left[0]
            if size % n == 0:
                axis.append(left.pop(0))
                size //= n
            elif n % size == 0:
                axis.append((size, stride * (n // size)))
                left[0] = (n // size, stride)
                size = 1
            else:
                return None
        axes.append(tuple(axis))
    return None if left else tuple(axes)


def size_of(pieces: Sequence[Piece]) -> int:
    """The number of indices of a product of pieces."""
    return math.prod(size for size, _ in pieces)


def row_major(shape: Sequence[int]) -> tuple[Pieces, ...]:
    """The pieces of each axis of an array in its own order."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return tuple(((n, s),) if n != 1 else () for n, s in zip(shape, strides))


@dataclasses.dataclass(frozen=True)
class View:
    """A value that is a strided view of an array: of a parameter leaf, or of a site's output.

    `source` says of which; `levels` tells, for each scan around the value from the outside in,
    over which pieces of the array the scan runs, or None if every step sees the same.
    """

    source: Any
    axes: tuple[Pieces, ...]
    offset: int = 0
    levels: tuple[Pieces | None, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(size_of(axis) for axis in self.axes)

    def _with_axes(self, axes: Sequence[Pieces] | None, offset: int = 0) -> "View | None":
        if axes is None:
            return None
        return dataclasses.replace(self, axes=tuple(axes), offset=self.offset + offset)

    def transpose(self, permutation: Sequence[int]) -> "View | None":
        return self._with_axes([self.axes[i] for i in permutation])

    def reshape(self, shape: Sequence[int]) -> "View | None":
        return self._with_axes(cut([p for axis in self.axes for p in axis], shape))

    def squeeze(self, dimensions: Sequence[int]) -> "View | None":
        return self._with_axes([a for i, a in enumerate(self.axes) if i not in dimensions])

    def broadcast_in_dim(self, shape: Sequence[int], dimensions: Sequence[int]) -> "View | None":
        axes: list[Pieces] = [((n, 0),) if n != 1 else () for n in shape]
        for axis, dimension in zip(self.axes, dimensions):
            if size_of(axis) == shape[dimension]:
                axes[dimension] = axis
        return self._with_axes(axes)

    def slice(
        self, starts: Sequence[int], limits: Sequence[int], strides: Sequence[int] | None
    ) -> "View | None":
        axes, offset = [], 0
        for axis, start, limit, step in zip(
            self.axes, starts, limits, strides or (1,) * len(self.axes)
        ):
            size = -(-(limit - start) // step)
            if (start, size) == (0, size_of(axis)):
                axes.append(axis)
                continue
            axis = merge(axis)
            if size == 1:
                # One index of a product of pieces is one index of each.
                for n, stride in reversed(axis):
                    offset += start % n * stride
                    start //= n
                axes.append(())
            elif len(axis) == 1:
                offset += start * axis[0][1]
                axes.append(((size, step * axis[0][1]),))
            else:
                return None
        return self._with_axes(axes, offset)


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """Orders the pieces of the axes of an array as (stack, positions, features), and back.

    `split` are the sizes of the pieces axis by axis, `order` where each piece of the result comes
    from, `shape` and `original` the shapes of the result and of the array.
    """

    split: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]
    original: tuple[int, ...]

    @classmethod
    def of(cls, axes: Sequence[Sequence[tuple[int, int, Any]]]) -> "Arrangement":
        """From pieces (size, role, rank) axis by axis, ordered by role, then by rank."""
        flat = [piece for axis in axes for piece in axis if piece[0] != 1]
        order = sorted(range(len(flat)), key=lambda i: flat[i][1:])
        shape = tuple(math.prod(n for n, r, _ in flat if r == role) for role in range(3))
        original = tuple(math.prod(n for n, _, _ in axis) for axis in axes)
        return cls(tuple(n for n, _, _ in flat), tuple(order), shape, original)

    def __call__(self, x: Any) -> Any:
        return jnp.reshape(jnp.transpose(jnp.reshape(x, self.split), self.order), self.shape)

    def inverse(self, x: Any) -> Any:
        ordered = jnp.reshape(x, [self.split[i] for i in self.order])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return jnp.reshape(jnp.transpose(ordered, back), self.original)

    def view(self, source: Any) -> View:
        """The array as a view of the result."""
        strides, stride = {}, 1
        for i in reversed(self.order):
            strides[i] = stride
            stride *= self.split[i]
        axes, i = [], 0
        for n in self.original:
            axis: list[Piece] = []
            while n > 1:
                axis.append((self.split[i], strides[i]))
                n //= self.split[i]
                i += 1
            axes.append(tuple(axis))
        return View(source, tuple(axes))


@dataclasses.dataclass(frozen=True)
class LeafLayout:
    """Which pieces of a leaf make up its matrices: `stack` of them, each (out, in).

    The stack of a leaf that is used slice by slice begins with the pieces that tell the slices
    apart.
    """

    shape: tuple[int, ...]
    stack: Pieces
    out: Pieces
    in_: Pieces

    def arrangement(self) -> Arrangement:
        pieces = []
        for role, group in enumerate((self.stack, self.out, self.in_)):
            pieces += [(n, stride, role, rank) for rank, (n, stride) in enumerate(group)]
        pieces.sort(key=lambda p: -p[1])
        return Arrangement.of([[(n, role, rank) for n, _, role, rank in pieces]])

    def to_matrices(self, leaf: Any) -> Any:
        """A leaf as matrices of shape (stack, out, in)."""
        return self.arrangement()(leaf)

    def from_matrices(self, matrices: Any) -> Any:
        """Matrices of shape (stack, out, in) as a leaf."""
        return jnp.reshape(self.arrangement().inverse(matrices), self.shape)


def missing_pieces(size: int, pieces: Sequence[Piece]) -> Pieces | None:
    """The pieces that complete the given ones to every index of an array of `size` entries."""
    missing, stride = [], 1
    for n, s in sorted(merge(sorted(pieces, key=lambda p: -p[1])), key=lambda p: p[1]):
        if s % stride:
            return None
        if s > stride:
            missing.append((s // stride, stride))
        stride = s * n
    if size % stride:
        return None
    if size > stride:
        missing.append((size // stride, stride))
    return tuple(reversed(missing))


def index_among(pieces: Sequence[Piece], offset: int) -> int | None:
    """The index of an offset in the product of pieces (in falling order of stride)."""
    index = 0
    for n, stride in pieces:
        digit, offset = divmod(offset, stride)
        if digit >= n:
            return None
        index = index * n + digit
    return None if offset else index
