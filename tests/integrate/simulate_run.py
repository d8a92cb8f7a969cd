"""A streamed adaptive solve, for the tests that kill it: `simulate_run.py DIRECTORY`."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from jaxsci.integrate import ETDRK4, simulate, SpectralPIDController
from jaxsci.pde import kuramoto_sivashinsky
from jaxsci.spectral import FourierGrid


def main(directory):
    grid = FourierGrid(32, 22.0)
    u0 = grid.fft(jnp.cos(2 * np.pi * grid.x[0] / 22.0) + 0.1 * jnp.sin(6 * np.pi * grid.x[0] / 22))
    found = simulate(
        kuramoto_sivashinsky(grid),
        ETDRK4(),
        np.linspace(0.0, 400.0, 801),
        u0,
        dt0=0.01,
        stepsize_controller=SpectralPIDController(rtol=1e-8, atol=1e-10, norm=grid.norm),
        save=lambda t, y, args: grid.ifft(y),
        chunk=8,
        chunk_steps=500,
        store=directory / "u.zarr",
        checkpoint=directory / "u.npz",
    )
    np.savez(directory / "end.npz", y=found.y, ys=found.ys[:], **found.stats)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
