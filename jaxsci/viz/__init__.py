"""Pictures of fields, spectra and histories, with matplotlib (`pip install jaxsci[plots]`).

Every function takes JAX or NumPy arrays, draws into `ax` or into a new figure, and returns what it
drew in. None shows a window or changes the backend, so all work without a display.
"""

from ._animate import animate as animate
from ._field import plot_field as plot_field, plot_profile as plot_profile
from ._history import plot_history as plot_history
from ._slices import plot_slices as plot_slices
from ._spacetime import plot_spacetime as plot_spacetime
from ._spectrum import plot_spectrum as plot_spectrum
