"""Bridges to the machinery of JAX and its neighbours: `vmap` with one loop for each device."""

from ._sharded_vmap import sharded_vmap as sharded_vmap
