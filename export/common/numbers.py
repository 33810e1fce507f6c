"""How shares are written."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float, digits: int = 1) -> str:
    """A share as per cent."""
    return f"{100 * share:.{digits}f}"


def spread(share: float, interval: Sequence[float]) -> str:
    """A share in per cent with its 95 % interval."""
    return f"{percent(share)} ({percent(interval[0])} to {percent(interval[1])})"
