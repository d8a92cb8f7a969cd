"""Low-rank matrices from linear measurements, by gradient descent on factors.

y = A(M), M of rank r, is fitted by F G^T or X X^T with k >= r columns.

- **Sensing operators**, lineax operators on matrices: `GaussianSensing`, `RankOneSensing`,
  `EntrySampling`, `Identity`; `AbstractSensing` says what one is.
- **Losses** of the factors, for any optax optimizer: `symmetric_loss`, `asymmetric_loss`.
- **Starts and rescaling.** `init_symmetric`, `init_asymmetric`, `rebalance`.
- **In one call.** `recover`, which returns a `Result` with a `History`.
"""

from ._abstract_sensing import AbstractSensing as AbstractSensing
from ._factors import (
    init_asymmetric as init_asymmetric,
    init_symmetric as init_symmetric,
    rebalance as rebalance,
)
from ._losses import asymmetric_loss as asymmetric_loss, symmetric_loss as symmetric_loss
from ._recover import History as History, recover as recover, Result as Result
from ._sensing import (
    EntrySampling as EntrySampling,
    GaussianSensing as GaussianSensing,
    Identity as Identity,
    RankOneSensing as RankOneSensing,
)
