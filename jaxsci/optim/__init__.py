"""Parameter update rules: optax transforms that optax lacks.

Each rule comes as `scale_by_*`, the mathematics, and as an alias that chains it with weight decay
and the learning rate. Curvature reaches a rule through keyword arguments of `update`, so it works
in any optax loop and inside `optax.chain`, `masked`, `partition`, `inject_hyperparams`, ...

- **Second order.** `adahessian`, `scale_by_adahessian`; `BlockAxes` says over which entries they
  average the curvature. `mfac`, `scale_by_mfac`: the inverse empirical Fisher matrix of a window of
  gradients.
- **Kronecker-factored.** `kfac`, `ekfac`, `scale_by_kfac`, `scale_by_ekfac`, on the layers that
  `curvature.capture_layers` finds.
- **First order.** `adan`, `scale_by_adan`, and `proximal_decay`, its weight decay.
- **Pruning.** The subpackage `pruning`: optimal brain surgeon, masks, schedules.
- **Learning rates from curvature.** `curvature_schedule`: the learning rate and momentum to write
  into `optax.inject_hyperparams`, from `estimate_sharpness`.
- **Factored matrices.** `factor_rebalance`; the subpackage `lowrank` recovers low-rank matrices
  from linear measurements.
"""

from . import lowrank as lowrank, pruning as pruning
from ._adahessian import (
    adahessian as adahessian,
    scale_by_adahessian as scale_by_adahessian,
    ScaleByAdaHessianState as ScaleByAdaHessianState,
)
from ._adan import (
    adan as adan,
    proximal_decay as proximal_decay,
    scale_by_adan as scale_by_adan,
    ScaleByAdanState as ScaleByAdanState,
)
from ._block_axes import BlockAxes as BlockAxes
from ._curvature_schedule import (
    curvature_schedule as curvature_schedule,
    estimate_sharpness as estimate_sharpness,
    LearningRateAndMomentum as LearningRateAndMomentum,
    rates_from_sharpness as rates_from_sharpness,
    SharpnessEstimate as SharpnessEstimate,
)
from ._factor_rebalance import (
    factor_rebalance as factor_rebalance,
    FactorRebalanceState as FactorRebalanceState,
)
from ._kfac import (
    ekfac as ekfac,
    kfac as kfac,
    scale_by_ekfac as scale_by_ekfac,
    scale_by_kfac as scale_by_kfac,
    ScaleByKfacState as ScaleByKfacState,
)
from ._mfac import (
    mfac as mfac,
    scale_by_mfac as scale_by_mfac,
    ScaleByMFACState as ScaleByMFACState,
)
