"""The tables of README.md and docs/: what was measured of the bundled models.

A page has a table between `<!-- figures: NAME -->` and `<!-- /figures -->`; `TABLES` has the names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clipneurons.bundle.config import METRICS, MODEL_CARD
from clipneurons.shipped import TOWERS
from research.papers import result_tables
from research.papers.result_tables import Measured

TABLES: Mapping[str, Callable[[Sequence[Measured]], str]] = {
    "summary": result_tables.summary,
    "accuracy": result_tables.accuracy,
    "labels": result_tables.labels,
    "cosy": result_tables.cosy,
    "concepts": result_tables.concepts,
    "segmentation": result_tables.segmentation,
    "semantic": result_tables.semantic,
    "presence": result_tables.presence,
    "adversarial": result_tables.adversarial,
    "shift": result_tables.shift,
    "naming": result_tables.naming,
    "mending": result_tables.mending,
    "claims": result_tables.claims,
}
# A figure: a share in per cent or a decimal; what is none: code, addresses, papers, versions.
_FIGURE = re.compile(r"(?<![\w.])\d+(?:\.\d+)? %|(?<![\w.])\d{1,3}\.\d+(?![\w.])")
_COMMAND = re.compile(r"python -m (?:research|export|clipneurons)|pytest |\bmake \w+")
_NO_FIGURES = re.compile(r"`[^`\n]*`|\"[^\"\n]*\"|\]\([^)]*\)|\d{4}\.\d{4,5}|Python \d\.\d+")
_TABLE = re.compile(r"(<!-- figures: ([a-z]+) -->\n).*?(<!-- /figures -->)", re.DOTALL)


def renewed(page: str, measured: Sequence[Measured]) -> str:
    """The page with the tables of today; text outside the marks stays."""
    return _TABLE.sub(lambda m: f"{m[1]}\n{TABLES[m[2]](measured)}\n\n{m[3]}", page)


def names(page: str) -> list[str]:
    """The tables that a page holds."""
    return [match[2] for match in _TABLE.finditer(page)]


def unmade(page: str) -> list[tuple[int, str]]:
    """Lines with figures that no command makes, by number.

    A figure is made in a table between marks, and in a section that names its command.
    """
    lines: list[tuple[int, str]] = []
    section: list[tuple[int, str]] = []
    named, code = False, False
    blank = _TABLE.sub(lambda m: "\n" * m[0].count("\n"), page)
    for number, line in enumerate([*blank.splitlines(), "# end"], 1):
        fence = line.lstrip().startswith(("```", "~~~"))
        code ^= fence
        named |= bool(_COMMAND.search(line))
        if line.startswith("#") and not code:
            lines += [] if named else section
            section, named = [], False
        elif not code and not fence and _FIGURE.search(_NO_FIGURES.sub("", line)):
            section.append((number, line))
    return lines


def load(
    artifacts: Path, report: Mapping, verdicts: Mapping[str, Mapping[str, int]]
) -> list[Measured]:
    """The bundled models' figures, with the report's results and its verdicts by model."""
    return [
        Measured(
            _column((artifacts / tower / MODEL_CARD).read_text(), tower),
            json.loads((artifacts / tower / METRICS).read_text()),
            {k: one["result"] for k, one in report["bundles"][tower]["experiments"].items()},
            verdicts[tower],
        )
        for tower in TOWERS
    ]


def _column(card: str, tower: str) -> dict[str, str]:
    """A model's column of the evaluation in a model card."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines()]
    head = next(row for row in rows if tower in row)
    return {row[0]: row[head.index(tower)] for row in rows if len(row) == len(head)}
