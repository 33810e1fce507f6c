"""`python -m research figures`: the README's table, from the figures that `artifacts/` holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from export.common.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `figures`."""
    add = parser.add_argument
    add("--page", type=Path, default=Path("README.md"), help="default: %(default)s")
    add("--artifacts", type=Path, default=Path("artifacts"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Read what was measured, write the table between its marks."""
    from clipneurons.bundle.folders import write_atomic

    try:
        page = args.page.read_text()
        write_atomic(args.page, renewed(page, args.artifacts).encode())
    except KeyError as error:
        raise UserError(f"{args.artifacts} holds no {error}: measure it first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{args.page}: {error}") from None
    print(f"{args.page}: table of figures renewed")
    return 0


def renewed(page: str, artifacts: Path) -> str:
    """The page as it should be."""
    from research.mini_clip import marked
    from research.papers import figures
    from research.papers.command import RESULTS, experiments
    from research.papers.page import verdicts

    results = json.loads((artifacts / "report" / RESULTS).read_text())
    known = {experiment.name: experiment for experiment in experiments(None)}
    table = figures.table(figures.load(artifacts, results, verdicts(results, known)))
    return marked.renewed(page, figures.BEGIN, figures.END, table)
