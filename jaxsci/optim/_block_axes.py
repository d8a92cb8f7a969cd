"""`BlockAxes`: which entries of a parameter share one value of the averaged curvature.

The block average of a leaf d is mean(|d|) over the axes of its block, broadcast back. Yao, Gholami,
Shen, Mustafa, Keutzer and Mahoney 2021, "AdaHessian: an adaptive second order optimizer for machine
learning" (arXiv:2006.00719).

The paper's code is PyTorch: convolutions are (out, in, *spatial), matrices (out, in). Equinox keeps
that layout; Flax has (*spatial, in, out) and (in, out), hence one choice for each.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxsci._base import check_at_least, check_choice

Average = Callable[[str, Float[Array, "..."]], Float[Array, "..."]]


def _mean_over(axes: Callable[[str, Array], tuple[int, ...]]) -> Average:
    def average(path: str, x: Array) -> Array:
        block = axes(path, x)
        bad = [a for a in block if not -x.ndim <= a < x.ndim]
        if bad:
            raise ValueError(
                f"`block_axes` must give axes of the leaf {path} of shape {x.shape}, got {block}."
            )
        # Plus zeros_like, not broadcast_to: the result keeps the sharding of the leaf.
        return jnp.mean(x, axis=block, keepdims=True) + jnp.zeros_like(x) if block else x

    return average


def _spatial_and_fan_in(
    layout: Literal["flax", "equinox"], fan_in: bool
) -> Callable[[str, Array], tuple[int, ...]]:
    def axes(path: str, x: Array) -> tuple[int, ...]:
        del path
        if x.ndim >= 3:
            return tuple(range(x.ndim - 2)) if layout == "flax" else tuple(range(2, x.ndim))
        if x.ndim == 2 and fan_in:
            return (0,) if layout == "flax" else (1,)
        return ()

    return axes


def _mean_over_contiguous(block_size: int, layout: Literal["flax", "equinox"]) -> Average:
    def average(path: str, x: Array) -> Array:
        if x.ndim < 2:
            return x
        if x.size % block_size:
            raise ValueError(
                f"`block_size` must divide the size of every averaged leaf, got {block_size} for "
                f"{path} of shape {x.shape} and size {x.size}."
            )
        out_in_first = jnp.moveaxis(x, (-1, -2), (0, 1)) if layout == "flax" else x
        # Blocks inside the last axis only split that axis, which keeps a sharded leaf in place;
        # blocks across rows need the flat leaf.
        last = out_in_first.shape[-1]
        inside = last % block_size == 0
        rows = (*out_in_first.shape[:-1], last // block_size) if inside else (-1,)
        blocks = out_in_first.reshape(*rows, block_size)
        mean = jnp.mean(blocks, axis=-1, keepdims=True) + jnp.zeros_like(blocks)
        mean = mean.reshape(out_in_first.shape)
        return jnp.moveaxis(mean, (0, 1), (-1, -2)) if layout == "flax" else mean

    return average


@dataclasses.dataclass(frozen=True)
class BlockAxes:
    """Which entries of each leaf share one averaged curvature. Made by its constructors only.

    Vectors and scalars are never averaged, except by `from_fn`.

    - `BlockAxes.none`: no averaging.
    - `BlockAxes.flax`, `BlockAxes.equinox`: over the spatial axes of convolution kernels, i.e. of
        every leaf with three or more axes: all but the last two for Flax, all but the first two for
        Equinox. Matrices are left alone.
    - `BlockAxes.flax_fan_in`, `BlockAxes.equinox_fan_in`: the same, and matrices over their inputs:
        axis 0 of a Flax `(in, out)`, axis 1 of an Equinox `(out, in)`.
    - `BlockAxes.contiguous(block_size, layout)`: runs of `block_size` entries.
    - `BlockAxes.from_fn(f)`: axes chosen leaf by leaf.

    A leaf with three axes that is no convolution (an attention kernel `(embed, heads, head_dim)`)
    cannot be told from one by its shape: choose its axes with `from_fn`.
    """

    _average: Average = dataclasses.field(repr=False)

    none: ClassVar["BlockAxes"]
    flax: ClassVar["BlockAxes"]
    flax_fan_in: ClassVar["BlockAxes"]
    equinox: ClassVar["BlockAxes"]
    equinox_fan_in: ClassVar["BlockAxes"]

    @staticmethod
    def contiguous(block_size: int, layout: Literal["flax", "equinox"] = "equinox") -> "BlockAxes":
        """Blocks of consecutive entries of the flattened `(out, in, *spatial)` leaf.

        **Arguments:**

        - `block_size`: entries per block; it must divide the size of every leaf with two or more
            axes. Best a divisor of the last of these axes: other blocks flatten the leaf, which
            gathers a sharded one on an automatic mesh and is an error of JAX on an explicit one.
        - `layout`: how leaves are stored: "equinox" is `(out, in, *spatial)`, "flax" is
            `(*spatial, in, out)`.

        **Raises:**

        `ValueError` if `block_size < 1` or `layout` is unknown; at the first update, if
        `block_size` does not divide the size of a leaf.
        """
        check_at_least("block_size", block_size, 1)
        check_choice("layout", layout, ("equinox", "flax"))
        return BlockAxes(_mean_over_contiguous(block_size, layout))

    @staticmethod
    def from_fn(f: Callable[[str, Array], tuple[int, ...]]) -> "BlockAxes":
        """Axes chosen leaf by leaf.

        **Arguments:**

        - `f`: `(path, leaf) -> axes`, with `path` as `jax.tree_util.keystr` writes it and `()` for
            no averaging.
        """
        return BlockAxes(_mean_over(f))

    def average(self, diag: PyTree) -> PyTree:
        """The block average of `|diag|`, with the shapes of `diag`.

        **Arguments:**

        - `diag`: pytree of real floating arrays, an estimate of the curvature diagonal.
        """
        return jax.tree_util.tree_map_with_path(
            lambda path, d: self._average(jax.tree_util.keystr(path), jnp.abs(d)), diag
        )


BlockAxes.none = BlockAxes(_mean_over(lambda path, x: ()))
BlockAxes.flax = BlockAxes(_mean_over(_spatial_and_fan_in("flax", fan_in=False)))
BlockAxes.flax_fan_in = BlockAxes(_mean_over(_spatial_and_fan_in("flax", fan_in=True)))
BlockAxes.equinox = BlockAxes(_mean_over(_spatial_and_fan_in("equinox", fan_in=False)))
BlockAxes.equinox_fan_in = BlockAxes(_mean_over(_spatial_and_fan_in("equinox", fan_in=True)))
