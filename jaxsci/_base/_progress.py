"""A progress bar that is there only if wanted and if tqdm is installed."""

import contextlib
from typing import Any


class _NoBar(contextlib.nullcontext):
    """Stands for a progress bar where none is shown."""

    n = 0

    def __enter__(self):
        return self

    def update(self, count: int) -> None:
        pass

    def set_postfix(self, **_: Any) -> None:
        pass


def progress_bar(wanted: bool, unit: str, total: int | None = None, start: int = 0) -> Any:
    """A context manager with the `update`, `set_postfix` and `n` of a bar of tqdm.

    **Arguments:**

    - `wanted`: whether to show one.
    - `unit`: what is counted, in the singular.
    - `total`: how many there are, if known.
    - `start`: how many are done already.
    """
    if wanted:
        try:
            from tqdm import tqdm
        except ImportError:
            return _NoBar()
        return tqdm(total=total, initial=start, unit=unit, dynamic_ncols=True)
    return _NoBar()
