"""Curvature of a scalar objective without special layers.

Everything here takes the objective as a plain function `obj_fn(params) -> scalar`, `params` any
pytree of real floating arrays, and needs no more of it than that JAX can differentiate it.

- **Products.** `hvp`: Hessian times vector.
- **Randomised estimates.** `hutchinson_diag`, `value_grad_and_diag`, `hutchinson_trace`, and
  `rademacher_like`, the probes they draw.
- **Diagonal estimators**, interchangeable wherever one is asked for: `Hutchinson`,
  `GaussNewtonDiagonal`, `EmpiricalFisherDiagonal`. The last two need an objective that shows its
  parts: `CompositeObjective`, `MeanObjective`.
- **Kronecker factors.** `fit_kronecker` fits a `KroneckerCurvature` (K-FAC, EK-FAC, diagonal) to a
  data set, from the `kronecker_statistics` of its batches. `as_likelihood` names the losses;
  `LikelihoodObjective` is an objective that shows its model and likelihood.
- **Operators.** `hessian_operator`, `ggn_operator`, `fisher_operator`, `empirical_fisher_operator`:
  lineax operators on the parameters; `damped_operator` adds a multiple of the identity.
- **Spectra** of symmetric operators. `lanczos`, `extremal_eigs`, `slq`, `spectral_density`; the
  subpackage `rmt` says what batches do to them, and what that means for learning rates.
- **Tangent kernels**, of functions and of infinitely wide networks, and the training they predict:
  subpackage `ntk`.
- **Layers.** `capture_layers` finds the linear layers in any function of parameters: `LayerSites`
  gives their inputs and output gradients, a `LayerBlock` is one of them.
- **Inverses from gradients.** `GradientWindow` keeps the last gradients,
  `EmpiricalFisherInverse` is the lineax operator they give; `BlockFisherInverse` the one of small
  diagonal blocks.
"""

from . import influence as influence, ntk as ntk, rmt as rmt
from ._block_fisher import BlockFisherInverse as BlockFisherInverse
from ._capture import capture_layers as capture_layers, LayerSites as LayerSites
from ._estimators import (
    AbstractDiagonalEstimator as AbstractDiagonalEstimator,
    EmpiricalFisherDiagonal as EmpiricalFisherDiagonal,
    GaussNewtonDiagonal as GaussNewtonDiagonal,
    Hutchinson as Hutchinson,
)
from ._fit_kronecker import fit_kronecker as fit_kronecker
from ._gradient_window import (
    EmpiricalFisherInverse as EmpiricalFisherInverse,
    GradientWindow as GradientWindow,
    GradientWindowState as GradientWindowState,
)
from ._hutchinson import (
    hutchinson_diag as hutchinson_diag,
    hutchinson_trace as hutchinson_trace,
    value_grad_and_diag as value_grad_and_diag,
)
from ._hvp import hvp as hvp
from ._kronecker import (
    KroneckerBlock as KroneckerBlock,
    KroneckerCurvature as KroneckerCurvature,
)
from ._kronecker_statistics import (
    block_columns as block_columns,
    kronecker_statistics as kronecker_statistics,
    KroneckerStatistics as KroneckerStatistics,
)
from ._lanczos import (
    extremal_eigs as extremal_eigs,
    ExtremalEigs as ExtremalEigs,
    lanczos as lanczos,
    slq as slq,
    spectral_density as spectral_density,
    SpectralDensity as SpectralDensity,
    Tridiagonal as Tridiagonal,
)
from ._layer_block import LayerBlock as LayerBlock
from ._likelihoods import (
    AbstractLikelihood as AbstractLikelihood,
    as_likelihood as as_likelihood,
    BernoulliLikelihood as BernoulliLikelihood,
    CategoricalLikelihood as CategoricalLikelihood,
    GaussianLikelihood as GaussianLikelihood,
)
from ._objectives import (
    AbstractObjective as AbstractObjective,
    CompositeObjective as CompositeObjective,
    LikelihoodObjective as LikelihoodObjective,
    MeanObjective as MeanObjective,
)
from ._operators import (
    damped_operator as damped_operator,
    empirical_fisher_operator as empirical_fisher_operator,
    fisher_operator as fisher_operator,
    ggn_operator as ggn_operator,
    hessian_operator as hessian_operator,
)
from ._probes import rademacher_like as rademacher_like
