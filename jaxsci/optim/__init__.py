"""Parameter update rules: optax transforms that optax lacks.

Each rule comes as `scale_by_*`, the mathematics, and as an alias that chains it with weight decay
and the learning rate. Curvature reaches a rule through keyword arguments of `update`, so it works
in any optax loop and inside `optax.chain`, `masked`, `partition`, `inject_hyperparams`, ...

- **Second order.** `adahessian`, `scale_by_adahessian`; `BlockAxes` says over which entries they
  average the curvature.
"""

from ._adahessian import (
    adahessian as adahessian,
    scale_by_adahessian as scale_by_adahessian,
    ScaleByAdaHessianState as ScaleByAdaHessianState,
)
from ._block_axes import BlockAxes as BlockAxes
