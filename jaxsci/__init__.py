"""jaxsci: differentiable scientific computing in JAX.

Each room is a subpackage, loaded when first used: ``jaxsci.spectral``, ``jaxsci.integrate``, ...
"""

import importlib
from pkgutil import iter_modules

__version__ = "0.1.0"

_ROOMS = frozenset(m.name for m in iter_modules(__path__) if m.ispkg and m.name[0] != "_")

__all__ = ["__version__", *sorted(_ROOMS)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | _ROOMS)
