"""Equations on periodic grids, and their solution in one call.

Each equation states its linear symbol and its nonlinear function; `simulate` does the rest, and
`equation.term()` gives the pieces to diffrax.
"""

from ._allen_cahn import allen_cahn as allen_cahn, AllenCahn as AllenCahn
from ._belousov_zhabotinsky import (
    belousov_zhabotinsky as belousov_zhabotinsky,
    BelousovZhabotinsky as BelousovZhabotinsky,
)
from ._burgers import Burgers as Burgers, burgers as burgers
from ._cahn_hilliard import cahn_hilliard as cahn_hilliard, CahnHilliard as CahnHilliard
from ._corrected import CorrectedEquation as CorrectedEquation
from ._darcy import Darcy as Darcy, darcy as darcy, SteadyState as SteadyState
from ._dispersion import Dispersion as Dispersion, dispersion as dispersion
from ._equation import AbstractEquation as AbstractEquation
from ._fisher_kpp import fisher_kpp as fisher_kpp, FisherKPP as FisherKPP
from ._fitzhugh_nagumo import (
    fitzhugh_nagumo as fitzhugh_nagumo,
    FitzHughNagumo as FitzHughNagumo,
)
from ._generic import (
    general_convection as general_convection,
    general_gradient_norm as general_gradient_norm,
    general_linear as general_linear,
    general_nonlinear as general_nonlinear,
    general_polynomial as general_polynomial,
    GeneralConvection as GeneralConvection,
    GeneralGradientNorm as GeneralGradientNorm,
    GeneralLinear as GeneralLinear,
    GeneralNonlinear as GeneralNonlinear,
    GeneralPolynomial as GeneralPolynomial,
)
from ._gray_scott import gray_scott as gray_scott, GrayScott as GrayScott
from ._hyper_diffusion import (
    hyper_diffusion as hyper_diffusion,
    HyperDiffusion as HyperDiffusion,
)
from ._klein_gordon import (
    klein_gordon as klein_gordon,
    KleinGordon as KleinGordon,
    sine_gordon as sine_gordon,
    SineGordon as SineGordon,
)
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
    kolmogorov_3d as kolmogorov_3d,
    navier_stokes_2d as navier_stokes_2d,
    NavierStokes2D as NavierStokes2D,
    operator_learning_forcing as operator_learning_forcing,
)
from ._navier_stokes_3d import (
    kolmogorov_flow as kolmogorov_flow,
    navier_stokes_3d as navier_stokes_3d,
    NavierStokes3D as NavierStokes3D,
)
from ._noise import ring_forcing as ring_forcing, white_noise as white_noise
from ._nonlinear_schroedinger import (
    nonlinear_schroedinger as nonlinear_schroedinger,
    NonlinearSchroedinger as NonlinearSchroedinger,
)
from ._poisson import poisson as poisson
from ._simulate import simulate as simulate, Simulation as Simulation
from ._stokes_flow import stokes_flow as stokes_flow
from ._swift_hohenberg import (
    swift_hohenberg as swift_hohenberg,
    SwiftHohenberg as SwiftHohenberg,
)
from ._wave import Wave as Wave, wave as wave
