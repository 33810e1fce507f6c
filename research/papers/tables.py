"""Tables that several experiments print."""

from __future__ import annotations

from collections.abc import Mapping

from export.common.numbers import percent, spread
from research.papers.metric import Metric
from research.papers.types import Table


def conditions_table(
    caption: str, by: Metric, rows: Mapping[str, Mapping], conditions: Mapping[str, str]
) -> Table:
    """Rows of conditions with their figure by the metric, and its interval."""
    return Table(
        f"{by.name.capitalize()} in per cent{caption}. Unchanged model: {percent(by.base)}.",
        ["", *conditions.values()],
        [
            [name, *(spread(*by(figures[c])) if c in figures else "–" for c in conditions)]
            for name, figures in rows.items()
        ],
    )
