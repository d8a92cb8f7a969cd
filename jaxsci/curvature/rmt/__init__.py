"""Random matrix theory of batch Hessians: how large a learning rate a batch size allows.

The Hessian of a batch is the one of all data plus noise, which moves the ends of its spectrum
outwards: the smaller the batch, the sharper it is, and the smaller the largest stable step.

- **Spectra.** `spiked_edges` (Hessians, additive noise), `spiked_covariance_edge` (Gauss-Newton
  matrices).
- **Noise**, from a few Hessian-vector products: `batch_noise` along the top eigenvector,
  `bulk_noise` over all directions; `effective_batch_size` for sampling without replacement.
- **Rules.** `batch_sharpness`, `max_learning_rate`, `scale_learning_rate`, `minimal_damping`,
  `mean_square_limit`, `heavy_ball`.

Granziol, Zohren and Roberts 2020, "Learning rates as a function of batch size: a random matrix
theory approach to neural network training" (arXiv:2006.09092).
"""

from ._noise import (
    batch_noise as batch_noise,
    bulk_noise as bulk_noise,
    effective_batch_size as effective_batch_size,
)
from ._rules import (
    batch_sharpness as batch_sharpness,
    heavy_ball as heavy_ball,
    max_learning_rate as max_learning_rate,
    mean_square_limit as mean_square_limit,
    minimal_damping as minimal_damping,
    scale_learning_rate as scale_learning_rate,
)
from ._spikes import (
    spiked_covariance_edge as spiked_covariance_edge,
    spiked_edges as spiked_edges,
)
