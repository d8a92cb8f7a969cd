"""Kernels of an infinitely wide multilayer perceptron.

    S^1 = w^2 x.x'/n_0 + b^2,            T^1 = S^1,
    S^{l+1} = w^2 E[s(u) s(v)] + b^2,    T^{l+1} = w^2 T^l E[s'(u) s'(v)] + S^{l+1},

with (u, v) Gaussian of the covariance S^l (Jacot, Gabriel and Hongler 2018, arXiv:1806.07572,
section 3).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, ArrayLike, Real

from ..._base import check_at_least
from ._layers import AbstractLayer, activation as activation_layer, dense, Kernels, kernels, serial


def mlp_kernels(
    x1: Real[Array | np.ndarray, "n1 features"],
    x2: Real[Array | np.ndarray, "n2 features"] | None = None,
    depth: int = 2,
    activation: str | Callable = "relu",
    w_std: ArrayLike = 1.0,
    b_std: ArrayLike = 0.1,
    *,
    num_nodes: int = 100,
) -> Kernels:
    """NNGP and neural tangent kernel of an infinitely wide perceptron.

    The kernels are differentiable with respect to the points and to `w_std` and `b_std`. For smooth
    activations the kernels of close points are nearly singular: use float64.

    **Arguments:**

    - `x1`: points, (n1, features).
    - `x2`: more points, or `None` for `x1` again.
    - `depth`: number of affine layers, at least one; `depth - 1` of them are followed by the
        activation.
    - `activation`: a name or a function, see `dual`.
    - `w_std`, `b_std`: scales of the weights and of the biases, at least zero.
    - `num_nodes`: quadrature nodes, for activations without closed form.

    **Returns:**

    `Kernels(nngp, ntk)`, each (n1, n2); those of a network with many outputs are these times the
    identity over outputs.

    **Raises:**

    `ValueError` if `depth < 1`, a scale is negative or the numbers of features differ.
    """
    check_at_least("depth", depth, 1)
    layers: list[AbstractLayer] = [dense(w_std, b_std)]
    for _ in range(depth - 1):
        layers += [activation_layer(activation, num_nodes=num_nodes), dense(w_std, b_std)]
    return kernels(serial(*layers), x1, x2)
