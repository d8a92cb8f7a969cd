"""Bridges to the machinery of JAX and its neighbours.

- `sharded_vmap`: `jax.vmap` over a batch that is cut over devices, with one loop a device.
- `equinox_function`, `linen_function`, `nnx_function`: a model of Equinox, Flax Linen or Flax NNX
  as a pair of a pure function `fn(params, *args)` and its parameters, the form in which
  `jaxsci.curvature` and the optimizers take models.
"""

from ._equinox import equinox_function as equinox_function
from ._flax import linen_function as linen_function, nnx_function as nnx_function
from ._sharded_vmap import sharded_vmap as sharded_vmap
