"""Curvature of a scalar objective without special layers.

Everything here takes the objective as a plain function `obj_fn(params) -> scalar`, `params` any
pytree of real floating arrays, and needs no more of it than that JAX can differentiate it.

- **Products.** `hvp`: Hessian times vector.
- **Randomised estimates.** `hutchinson_diag`, `value_grad_and_diag`, `hutchinson_trace`, and
  `rademacher_like`, the probes they draw.
- **Diagonal estimators**, interchangeable wherever one is asked for: `Hutchinson`,
  `GaussNewtonDiagonal`, `EmpiricalFisherDiagonal`. The last two need an objective that shows its
  parts: `CompositeObjective`, `MeanObjective`.
"""

from ._estimators import (
    AbstractDiagonalEstimator as AbstractDiagonalEstimator,
    EmpiricalFisherDiagonal as EmpiricalFisherDiagonal,
    GaussNewtonDiagonal as GaussNewtonDiagonal,
    Hutchinson as Hutchinson,
)
from ._hutchinson import (
    hutchinson_diag as hutchinson_diag,
    hutchinson_trace as hutchinson_trace,
    value_grad_and_diag as value_grad_and_diag,
)
from ._hvp import hvp as hvp
from ._objectives import (
    AbstractObjective as AbstractObjective,
    CompositeObjective as CompositeObjective,
    MeanObjective as MeanObjective,
)
from ._probes import rademacher_like as rademacher_like
