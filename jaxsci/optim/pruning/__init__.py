"""Pruning: which weights of a trained network to drop, and how to change the others for it.

- **Optimal brain surgeon.** `obs_prune`, in one shot or several; `gradual_prune` alternates it with
  fine-tuning along a schedule, `gradual_sparsity`.
- **Scores alone.** `obs_scores`, `diagonal_fisher_scores`, `magnitude_scores`, and `prune_mask`,
  the mask that drops the smallest.
- **Training a pruned network.** `apply_mask`, an optax transform that keeps dropped weights at
  zero.
"""

from ._apply_mask import apply_mask as apply_mask
from ._masks import prune_mask as prune_mask, sparsity as sparsity
from ._obs import gradual_prune as gradual_prune, obs_prune as obs_prune
from ._schedules import gradual_sparsity as gradual_sparsity
from ._scores import (
    diagonal_fisher_scores as diagonal_fisher_scores,
    magnitude_scores as magnitude_scores,
    obs_scores as obs_scores,
)
