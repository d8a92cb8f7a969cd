"""Kinetic theory of active fluids, its moment equations, and classical and learned closures.

`ActiveFluid` is both the kinetic model (many angular modes) and the moment system (one mode and a
`Closure`). Source: Maddu, Weady and Shelley, "Learning fast, accurate, and stable closures of a
kinetic theory of an active fluid", J. Comput. Phys. 504 (2024), arXiv:2308.06675.
"""

from ._active_fluid import ActiveFluid as ActiveFluid, ActiveFluidFields as ActiveFluidFields
from ._bingham import bingham_ratio as bingham_ratio, BinghamClosure as BinghamClosure
from ._closure import (
    Closure as Closure,
    contracted_moment as contracted_moment,
    FourthHarmonicClosure as FourthHarmonicClosure,
    IsotropicFourthHarmonic as IsotropicFourthHarmonic,
    QuadraticFourthHarmonic as QuadraticFourthHarmonic,
    QuadraticTensorClosure as QuadraticTensorClosure,
)
from ._contraction_data import (
    acquire_worst as acquire_worst,
    contraction_data as contraction_data,
    contraction_errors as contraction_errors,
    contraction_loss as contraction_loss,
    ContractionData as ContractionData,
)
from ._diagnostics import (
    mean_speed as mean_speed,
    order_density as order_density,
    order_parameter as order_parameter,
)
from ._initial import random_moments as random_moments
from ._learned import (
    LearnedFourthHarmonic as LearnedFourthHarmonic,
    sine_mlp as sine_mlp,
    TensorBasisClosure as TensorBasisClosure,
)
from ._moments import (
    contract_fourth_moment as contract_fourth_moment,
    contract_with_second_moment as contract_with_second_moment,
    contract_with_strain as contract_with_strain,
    fourth_moment as fourth_moment,
    second_moment as second_moment,
    tensor_to_traceless as tensor_to_traceless,
    traceless_to_tensor as traceless_to_tensor,
)
from ._params import ActiveFluidParams as ActiveFluidParams
from ._rollout_loss import (
    rollout_loss as rollout_loss,
    trajectory_windows as trajectory_windows,
    TrajectoryWindows as TrajectoryWindows,
)
from ._stokes import (
    ConjugateGradientStokes as ConjugateGradientStokes,
    PicardStokes as PicardStokes,
    StokesFlow as StokesFlow,
    StokesSolver as StokesSolver,
)
