"""Neural tangent kernels: of infinitely wide networks, of concrete functions, and what follows.

The tangent kernel of a function f(params, x) is T(x, x') = J(x) J(x')^T with the Jacobian J in the
parameters; gradient descent moves the function by -T times the gradient of the loss in its values
(Jacot, Gabriel and Hongler 2018, arXiv:1806.07572).

- **Of an architecture.** `mlp_kernels`; `kernels` of layers put together by `serial` and
  `parallel_sum`: `dense`, `conv1d`, `conv2d`, `activation`, `layer_norm`, `flatten`,
  `global_average_pool`, `identity`. What an activation does to a covariance: `dual`,
  `register_dual`, `dual_quadrature`, `ABReLU`.
- **Of a function.** `empirical_ntk` forms the kernel, `ntk_operator` multiplies by it.
- **Training with it.** `gradient_descent_mse` and `effective_dim` (square loss, closed form),
  `gradient_flow` (any loss), `ensemble` (the law over initialisations); `linearize` and
  `linearized_training` (the model linear in its parameters).
"""

from ._duals import ABReLU as ABReLU, dual as dual, register_dual as register_dual
from ._dynamics import (
    effective_dim as effective_dim,
    gradient_descent_mse as gradient_descent_mse,
    GradientDescentMSE as GradientDescentMSE,
)
from ._empirical import empirical_ntk as empirical_ntk
from ._ensemble import (
    Ensemble as Ensemble,
    ensemble as ensemble,
    GaussianPrediction as GaussianPrediction,
)
from ._flow import gradient_flow as gradient_flow, GradientFlow as GradientFlow
from ._layers import (
    AbstractLayer as AbstractLayer,
    activation as activation,
    conv1d as conv1d,
    conv2d as conv2d,
    dense as dense,
    flatten as flatten,
    global_average_pool as global_average_pool,
    identity as identity,
    Kernels as Kernels,
    kernels as kernels,
    layer_norm as layer_norm,
    parallel_sum as parallel_sum,
    serial as serial,
)
from ._linearize import linearize as linearize, linearized_training as linearized_training
from ._mlp import mlp_kernels as mlp_kernels
from ._operator import ntk_operator as ntk_operator
from ._quadrature import dual_quadrature as dual_quadrature
