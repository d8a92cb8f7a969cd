"""Transforms of fields that are cut over the devices of a mesh, at one exchange a cut.

Fields are cut along the first space axes, one for each mesh axis (one: slabs, two: pencils), and
coefficients along the last ones. A forward transform turns the axes that no device shares, moves a
cut to a neighbouring axis that is done (one all-to-all along that mesh axis), and goes on:

    slabs     (x|a, y)     -> (kx, ky|a);        (x|a, y, z) -> (kx, ky, kz|a)
    pencils   (x|a, y|b, z) -> (x|a, y, kz|b) -> (kx, ky|a, kz|b)

The last axis of the coefficients is padded with zeros to a multiple of its devices. Pencils in
three dimensions: Pekurovsky 2012, doi 10.1137/11082748X.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Complex, Inexact

from ._fft import transform_axes

Cuts = tuple[str | None, ...]


@dataclass(frozen=True)
class Decomposition:
    """How the space axes of a grid are cut over a mesh.

    **Arguments:**

    - `mesh`: the mesh, with Auto or Explicit axes.
    - `axes`: one mesh axis (slabs) or two (pencils).
    - `ndim`: number of space axes, more than the number of mesh axes.
    """

    mesh: Mesh | AbstractMesh
    axes: tuple[str, ...]
    ndim: int

    @property
    def physical(self) -> Cuts:
        """The mesh axis that cuts each space axis of a field."""
        return (*self.axes, *(None,) * (self.ndim - len(self.axes)))

    @property
    def spectral(self) -> Cuts:
        """The mesh axis that cuts each space axis of the coefficients."""
        return (*(None,) * (self.ndim - len(self.axes)), *self.axes)

    @property
    def stages(self) -> tuple[tuple[Cuts, tuple[int, ...]], ...]:
        """Cuts and the axes transformed under them, from the field to the coefficients."""
        cuts, done = list(self.physical), set()
        out = []
        while True:
            local = tuple(i for i, name in enumerate(cuts) if name is None and i not in done)
            out.append((tuple(cuts), local))
            done.update(local)
            if len(done) == self.ndim:
                return tuple(out)
            last = max(i for i, name in enumerate(cuts) if i not in done)
            free = max(i for i in done if cuts[i] is None)
            cuts[free], cuts[last] = cuts[last], None

    def devices(self, name: str) -> int:
        """Number of devices along a mesh axis."""
        return self.mesh.shape[name]

    def padded(self, size: int) -> int:
        """The size of the last axis of the coefficients, a multiple of its devices."""
        return size + -size % self.devices(self.axes[-1])

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise unless every axis but the last of the coefficients is cut in equal parts."""
        for cuts, _ in self.stages:
            for axis, name in enumerate(cuts):
                if name is None or axis == self.ndim - 1 or not shape[axis] % self.devices(name):
                    continue
                raise ValueError(
                    f"`shape` must have a multiple of {self.devices(name)} points on axis {axis}, "
                    f"one part for each device along mesh axis {name!r}, got {shape}."
                )

    def sharding(self, cuts: Cuts, leading: tuple = ()) -> NamedSharding:
        """The sharding of an array whose last axes are cut by `cuts`."""
        return NamedSharding(self.mesh, PartitionSpec(*leading, *cuts))

    def constrain(self, x: Array, cuts: Cuts) -> Array:
        """`x` with its last axes cut by `cuts`, its leading axes as they are."""
        lead = x.ndim - len(cuts)
        kinds = dict(zip(self.mesh.axis_names, self.mesh.axis_types))
        if any(kinds[name] == AxisType.Explicit for name in self.axes):
            spec = tuple(jax.typeof(x).sharding.spec)
            leading = (*spec, *(None,) * x.ndim)[:lead]
            return jax.sharding.reshard(x, self.sharding(cuts, leading))
        leading = (PartitionSpec.UNCONSTRAINED,) * lead
        return jax.lax.with_sharding_constraint(x, self.sharding(cuts, leading))

    def forward(
        self, u: Inexact[Array, "..."], shape: tuple[int, ...], real: bool
    ) -> Complex[Array, "..."]:
        """Coefficients of a field, cut and padded."""
        last = self.ndim - 1
        before = None
        for cuts, axes in self.stages:
            if before is not None:
                # Both sides are constrained so that the derivative exchanges here too.
                u = self.constrain(u, before)
            u = self.constrain(u, cuts)
            kind = "rfft" if real and last in axes else "fft"
            u = transform_axes(u, kind, axes, shape)
            if last in axes:
                u = jnp.pad(u, [(0, 0)] * (u.ndim - 1) + [(0, self._padding(u))])
            before = cuts
        return self.constrain(u, self.spectral)

    def _padding(self, u):
        return self.padded(u.shape[-1]) - u.shape[-1]

    def inverse(
        self, uh: Complex[Array, "..."], shape: tuple[int, ...], real: bool
    ) -> Inexact[Array, "..."]:
        """The field of cut and padded coefficients, cut."""
        last = self.ndim - 1
        stored = shape[-1] // 2 + 1 if real else shape[-1]
        before = None
        for cuts, axes in reversed(self.stages):
            if before is not None:
                uh = self.constrain(uh, before)
            uh = self.constrain(uh, cuts)
            if last in axes:
                uh = jax.lax.slice_in_dim(uh, 0, stored, axis=-1)
            kind = "irfft" if real and last in axes else "ifft"
            uh = transform_axes(uh, kind, axes, shape)
            before = cuts
        return self.constrain(uh, self.physical)

    def segment_sum(
        self, values: Inexact[Array, "..."], index: np.ndarray, num: int
    ) -> Inexact[Array, " num"]:
        """Sum numbers given by mode over the modes of equal `index`: on each device, then over all.

        **Arguments:**

        - `values`: one number for each entry of the coefficients, cut as they are.
        - `index`: array of that shape, from 0 to `num - 1`.
        - `num`: number of sums.
        """
        parts = PartitionSpec(*self.spectral)

        def on_device(values, index):
            total = jax.ops.segment_sum(values.ravel(), index.ravel(), num)
            return jax.lax.psum(total, self.axes)

        total = jax.shard_map(
            on_device,
            mesh=self.mesh,
            in_specs=(parts, parts),
            out_specs=PartitionSpec(),
            axis_names=frozenset(self.axes),
        )
        values = self.constrain(values, self.spectral)
        return jax.jit(total)(values, self.constrain(jnp.asarray(index), self.spectral))
