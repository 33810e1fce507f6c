"""`python -m research figures`: the tables of README.md and docs/, from what was measured."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from export.common.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `figures`."""
    add = parser.add_argument
    add("--pages", type=Path, nargs="+", help="default: README.md and all pages in docs")
    add("--check", action="store_true", help="write nothing: print the tables that are not what was"
        " measured, and the lines with figures that no command makes")  # fmt: skip
    add("--artifacts", type=Path, default=Path("artifacts"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Read what was measured, write each table between its marks."""
    from clipneurons.bundle.folders import write_atomic
    from research.papers import figures

    pages = args.pages or [Path("README.md"), *sorted(Path("docs").rglob("*.md"))]
    try:
        texts = {page: page.read_text() for page in pages}
        with_tables = {page: text for page, text in texts.items() if figures.names(text)}
        if not with_tables:
            listed = ", ".join(map(str, pages))
            raise UserError(f"{listed}: expected <!-- figures: NAME --> and <!-- /figures -->")
        measured = load(args.artifacts)
        if args.check:
            return _check(texts, measured)
        for page, text in with_tables.items():
            write_atomic(page, figures.renewed(text, measured).encode())
            print(f"{page}: {', '.join(figures.names(text))}")
    except KeyError as error:
        raise UserError(f"{args.artifacts} holds no {error}: measure it first") from None
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    return 0


def _check(pages: Mapping[Path, str], measured: list) -> int:
    """1 where a table is not what was measured."""
    from research.papers import figures

    former = [page for page, text in pages.items() if figures.renewed(text, measured) != text]
    for page in former:
        print(f"{page}: tables are not what was measured; run python -m research figures")
    for page, text in pages.items():
        for number, line in figures.unmade(text):
            print(f"{page}:{number}: no command makes {line.strip()}")
    return 1 if former else 0


def load(artifacts: Path) -> list:
    """What was measured of the bundled models, `Measured` each."""
    from research.papers import figures
    from research.papers.command import RESULTS, experiments
    from research.papers.page import verdicts

    results = json.loads((artifacts / "report" / RESULTS).read_text())
    known = {experiment.name: experiment for experiment in experiments(None)}
    return figures.load(artifacts, results, verdicts(results, known))
