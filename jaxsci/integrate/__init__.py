"""Time: exponential and IMEX integrators for u' = L u + N(t, u), as diffrax solvers and scans."""

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
from ._ifrk import IFRK4 as IFRK4
from ._imex import CNAB2 as CNAB2, CNRK2 as CNRK2, CNRK4 as CNRK4, SBDF2 as SBDF2
from ._interpolation import ETDInterpolation as ETDInterpolation
from ._phi import phi as phi, phi_functions as phi_functions
from ._propagator import (
    AbstractPropagator as AbstractPropagator,
    DiagonalPropagator as DiagonalPropagator,
)
from ._rollout import rollout as rollout
from ._solver import AbstractSemilinearSolver as AbstractSemilinearSolver
from ._term import SemilinearTerm as SemilinearTerm
