import subprocess
import sys

import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from jaxsci import viz
from jaxsci.spectral import FourierGrid

LINE = FourierGrid(8, 1.0)


def test_the_room_loads_without_matplotlib_and_says_what_to_install():
    program = """
import sys
from jaxsci import viz
assert not any(name.split(".")[0] == "matplotlib" for name in sys.modules)
sys.modules["matplotlib.pyplot"] = None
try:
    viz.plot_history([0.0], {"u": [1.0]})
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True)
    assert "pip install jaxsci[plots]" in run.stdout, run.stderr


def test_drawing_keeps_the_backend_and_the_current_axes_of_others():
    backend = mpl.get_backend()
    figure, other = plt.subplots()
    viz.plot_profile(LINE, jnp.zeros(8))
    viz.plot_profile(LINE, jnp.zeros(8), ax=other)
    assert mpl.get_backend() == backend
    assert len(plt.get_fignums()) == 2
    assert len(other.lines) == 1
    assert other.figure is figure


def test_a_new_figure_is_drawn_without_a_display(tmp_path):
    ax = viz.plot_profile(LINE, np.ones(8))
    ax.figure.savefig(tmp_path / "line.png")
    assert (tmp_path / "line.png").stat().st_size > 0
