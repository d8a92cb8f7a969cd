"""`LayerBlock`: what is known of one captured weight before any number is computed."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Num, Shaped


@dataclasses.dataclass(frozen=True)
class LayerBlock:
    """One weight leaf, with the bias leaf that is added to its outputs, as a stack of matrices.

    At every use ("site") the weight maps inputs to s = W abar at each of some positions (tokens,
    pixels, time steps), abar = [a; 1] with a bias. The gradient of a matrix is the sum over sites
    and positions of delta abar^T, delta the cotangent of s.

    **Fields:**

    - `path`, `bias_path`: `jax.tree_util.keystr` of the leaves; no bias is None.
    - `kind`: "dense", "conv" (inputs are unfolded patches) or "embedding" (inputs are row numbers:
        one-hot vectors that are never formed).
    - `stack`: number of independent matrices: layers of a scan, groups of a convolution, ...
    - `in_features`, `out_features`: sizes of a and s.
    - `positions`: number of positions of each site.
    """

    path: str
    bias_path: str | None
    kind: str
    stack: int
    in_features: int
    out_features: int
    positions: tuple[int, ...]

    @property
    def has_bias(self) -> bool:
        """Whether the last input coordinate is that of a bias."""
        return self.bias_path is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the matrices: (stack, out, in), the bias counted in."""
        return self.stack, self.out_features, self.in_features + self.has_bias

    def input_gram(
        self, inputs: Sequence[Num[Array, "stack ..."]]
    ) -> Float[Array, "stack *square"]:
        """The sum over sites and positions of abar abar^T.

        **Arguments:**

        - `inputs`: of this block, one array a site.

        **Returns:** shape `(stack, in, in)`; for an embedding the diagonal of that, `(stack, in)`:
        how often each row was read. At least float32.
        """
        if self.kind == "embedding":
            counts = jnp.zeros((self.stack, self.in_features))
            for index in inputs:
                counts = counts.at[_rows(index), index].add(1, mode="drop")
            return counts
        return sum(_gram(a) for a in inputs)  # pyright: ignore[reportReturnType]

    def output_gram(
        self, deltas: Sequence[Float[Array, "stack _ out"]]
    ) -> Float[Array, "stack out out"]:
        """The sum over sites and positions of delta delta^T, at least float32.

        **Arguments:**

        - `deltas`: of this block, one array a site.
        """
        return sum(_gram(d) for d in deltas)  # pyright: ignore[reportReturnType]

    def gradient(
        self,
        inputs: Sequence[Num[Array, "stack ..."]],
        deltas: Sequence[Float[Array, "stack _ out"]],
    ) -> Float[Array, "stack out in"]:
        """The sum over sites and positions of delta abar^T, at least float32.

        **Arguments:**

        - `inputs`, `deltas`: of this block, one array a site.
        """
        if self.kind == "embedding":
            rows = jnp.zeros((self.stack, self.in_features, self.out_features), _wide(deltas[0]))
            for index, delta in zip(inputs, deltas):
                rows = rows.at[_rows(index), index].add(delta.astype(rows.dtype), mode="drop")
            return jnp.swapaxes(rows, 1, 2)
        return sum(  # pyright: ignore[reportReturnType]
            jnp.einsum("sto,sti->soi", d, a, preferred_element_type=_wide(d, a))
            for a, d in zip(inputs, deltas)
        )

    def apply(
        self,
        matrix: Float[Array, "stack out in"],
        inputs: Sequence[Num[Array, "stack ..."]],
    ) -> tuple[Shaped[Array, "stack _ out"], ...]:
        """V abar at every site and position.

        `jnp.sum(delta * block.apply(V, inputs)[site], -1)` is the part of <V, gradient> that comes
        from each position.

        **Arguments:**

        - `matrix`: V, like the matrices of this block.
        - `inputs`: of this block, one array a site.
        """
        if self.kind == "embedding":
            rows = jnp.swapaxes(matrix, 1, 2)
            return tuple(rows.at[_rows(i), i].get(mode="fill", fill_value=0) for i in inputs)
        return tuple(
            jnp.einsum("soi,sti->sto", matrix, a, preferred_element_type=_wide(matrix, a))
            for a in inputs
        )


def _wide(*arrays):
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def _gram(x):
    return jnp.einsum("sti,stj->sij", x, x, preferred_element_type=_wide(x))


def _rows(index):
    return jnp.arange(index.shape[0])[:, None]
