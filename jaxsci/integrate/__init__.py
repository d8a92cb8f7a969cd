"""Time: exponential and IMEX integrators for u' = L u + N(t, u), as diffrax solvers and scans."""

from ._block_propagator import BlockPropagator as BlockPropagator
from ._controller import (
    nonfinite as nonfinite,
    SpectralPIDController as SpectralPIDController,
)
from ._etd_multistep import ETDMultistep as ETDMultistep
from ._etdrk import (
    ETDRK1 as ETDRK1,
    ETDRK2 as ETDRK2,
    ETDRK3 as ETDRK3,
    ETDRK4 as ETDRK4,
)
from ._function_evaluations import num_function_evaluations as num_function_evaluations
from ._global_regularization import GlobalRegularization as GlobalRegularization
from ._gradient_horizon import (
    gradient_horizon as gradient_horizon,
    GradientHorizon as GradientHorizon,
)
from ._ifrk import IFRK4 as IFRK4
from ._imex import CNAB2 as CNAB2, CNRK2 as CNRK2, CNRK4 as CNRK4, SBDF2 as SBDF2
from ._interpolation import ETDInterpolation as ETDInterpolation
from ._krylov_propagator import KrylovPropagator as KrylovPropagator
from ._local_regularization import LocalRegularization as LocalRegularization
from ._memory import memory_plan as memory_plan, MemoryPlan as MemoryPlan
from ._phi import phi as phi, phi_functions as phi_functions
from ._propagator import (
    AbstractPropagator as AbstractPropagator,
    DiagonalPropagator as DiagonalPropagator,
)
from ._rollout import rollout as rollout
from ._scaled_propagator import ScaledPropagator as ScaledPropagator
from ._simulate import simulate as simulate, StreamedSolution as StreamedSolution
from ._solver import AbstractSemilinearSolver as AbstractSemilinearSolver
from ._step_estimates import step_estimates as step_estimates, StepEstimates as StepEstimates
from ._stochastic import (
    ExponentialEulerMaruyama as ExponentialEulerMaruyama,
    LordRougemont as LordRougemont,
    NoiseTerm as NoiseTerm,
    SpectralBrownianPath as SpectralBrownianPath,
)
from ._term import SemilinearTerm as SemilinearTerm
from ._time_varying_propagator import TimeVaryingPropagator as TimeVaryingPropagator
from ._zarr_store import ZarrStore as ZarrStore
