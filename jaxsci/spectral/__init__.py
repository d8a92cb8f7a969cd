"""Space: periodic grids, Fourier transforms, spectral operators, random fields, diagnostics."""

from ._abstract_grid import AbstractGrid as AbstractGrid
from ._fft import fftn as fftn, ifftn as ifftn, irfftn as irfftn, rfftn as rfftn
from ._grid import FourierGrid as FourierGrid
from ._norms import sobolev_norm as sobolev_norm
from ._random import (
    decaying_turbulence as decaying_turbulence,
    gaussian_blobs as gaussian_blobs,
    gaussian_random_field as gaussian_random_field,
    operator_learning_field as operator_learning_field,
    truncated_fourier_series as truncated_fourier_series,
    white_noise as white_noise,
)
from ._resize import resize as resize
from ._spectra import (
    cfl_number as cfl_number,
    correlation as correlation,
    dissipation as dissipation,
    energy as energy,
    energy_spectrum as energy_spectrum,
    energy_transfer as energy_transfer,
    enstrophy as enstrophy,
    shell_index as shell_index,
    shell_sum as shell_sum,
    valid_time as valid_time,
)
from ._stokes import pressure as pressure, stokes as stokes
from ._wall_grids import (
    AbstractWallGrid as AbstractWallGrid,
    CosineGrid as CosineGrid,
    Grid as Grid,
    lift as lift,
    lift_slopes as lift_slopes,
    MixedWallGrid as MixedWallGrid,
    SineGrid as SineGrid,
    truncated_wall_series as truncated_wall_series,
    wall_grid as wall_grid,
)
