"""Equations on periodic grids, and their solution in one call.

Each equation states its linear symbol and its nonlinear function; `simulate` does the rest, and
`equation.term()` gives the pieces to diffrax.
"""

from ._allen_cahn import allen_cahn as allen_cahn, AllenCahn as AllenCahn
from ._burgers import Burgers as Burgers, burgers as burgers
from ._equation import AbstractEquation as AbstractEquation
from ._korteweg_de_vries import (
    korteweg_de_vries as korteweg_de_vries,
    KortewegDeVries as KortewegDeVries,
)
from ._kuramoto_sivashinsky import (
    kuramoto_sivashinsky as kuramoto_sivashinsky,
    KuramotoSivashinsky as KuramotoSivashinsky,
)
from ._linear import (
    advection_diffusion as advection_diffusion,
    AdvectionDiffusion as AdvectionDiffusion,
    Heat as Heat,
    heat as heat,
)
from ._navier_stokes_2d import (
    kolmogorov as kolmogorov,
    navier_stokes_2d as navier_stokes_2d,
    NavierStokes2D as NavierStokes2D,
    operator_learning_forcing as operator_learning_forcing,
)
from ._simulate import simulate as simulate, Simulation as Simulation
