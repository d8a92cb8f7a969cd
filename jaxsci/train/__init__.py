"""Training: one `fit` for every model of the library, and the parts it is made of.

```python
model = eqx.nn.MLP(1, 1, 32, 2, key=jax.random.key(0))
batches = train.minibatches((x, y), 64, key=jax.random.key(1))
result = train.fit(
    train.supervised(train.mse), model, batches, optax.adam(1e-3),
    key=jax.random.key(2), num_steps=1000, checkpoint=train.Checkpoint("run", every=200),
)
```

`fit` trains what `where(model)` selects: by default `trainable`, every floating-point array outside
`NonTrainable`. `freeze` and `train_only` narrow the choice.
"""

from .._base import NonTrainable as NonTrainable, RESULTS as RESULTS
from ._batches import minibatches as minibatches
from ._checkpoint import Checkpoint as Checkpoint
from ._fit import fit as fit, FitResult as FitResult, FitState as FitState
from ._losses import (
    likelihood_loss as likelihood_loss,
    mse as mse,
    relative_l2 as relative_l2,
    supervised as supervised,
)
from ._masks import freeze as freeze, train_only as train_only, trainable as trainable
from ._normalizer import Normalizer as Normalizer
from ._saving import load as load, save as save
