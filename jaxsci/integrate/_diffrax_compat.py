"""The one place that knows internals of diffrax."""

from typing import Any

import diffrax


def unwrap(terms: Any) -> tuple[Any, Any]:
    """The user's term and the direction (+1, -1) in which it is integrated.

    `diffrax.diffeqsolve` always integrates forwards: it wraps each term, and backwards the wrapped
    time is minus the user's.
    """
    if isinstance(terms, diffrax.AbstractTerm) and hasattr(terms, "direction"):
        return terms.term, terms.direction  # pyright: ignore[reportAttributeAccessIssue]
    return terms, 1
