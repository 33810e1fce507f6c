"""The page: every section made from `results.json`, nothing measured here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from research.papers import published
from research.papers.types import VERDICTS, Experiment, Figure, Gallery, Section, Table

_NUMBER = re.compile(r"^[−+\-]?[\d.,]+( |$|%)")


@dataclass(frozen=True)
class Done:
    """One experiment on one bundle, accounted for."""

    id: str
    module: str
    section: Section
    verdicts: Sequence[str]  # of the section's claims
    seconds: float
    settings: str


def render(results: Mapping, experiments: Mapping[str, Experiment]) -> str:
    """The page as HTML, all in one file and without scripts."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests |= {
        "table": lambda part: isinstance(part, Table),
        "figure": lambda part: isinstance(part, Figure),
        "gallery": lambda part: isinstance(part, Gallery),
        "numeric": lambda text: bool(_NUMBER.match(str(text))),
    }
    bundles = [
        (name, bundle, _sections(name, bundle, experiments))
        for name, bundle in results["bundles"].items()
    ]
    counts = [(name, bundle["model"], _verdicts(sections)) for name, bundle, sections in bundles]
    total = sum(done.seconds for _, _, sections in bundles for done in sections)
    return environment.get_template("report.html.j2").render(
        results=results,
        bundles=bundles,
        counts=counts,
        verdicts=VERDICTS,
        total=total,
        published=published,
    )


def verdicts(results: Mapping, experiments: Mapping[str, Experiment]) -> dict[str, Counter]:
    """Of each bundle's claims, how many there are of each verdict."""
    return {
        name: _verdicts(_sections(name, bundle, experiments))
        for name, bundle in results["bundles"].items()
    }


def _verdicts(sections: Sequence[Done]) -> Counter:
    return Counter(verdict for done in sections for verdict in done.verdicts)


def _sections(name: str, bundle: Mapping, experiments: Mapping[str, Experiment]) -> list[Done]:
    found = []
    for key, experiment in experiments.items():  # in the order of the page
        entry = bundle["experiments"].get(key)
        if entry is None:
            continue
        settings = ", ".join(
            f"{option.replace('_', ' ')} {value}"
            for option, value in entry["settings"].items()
            if value not in ((), [])
        )
        section = experiment.report(entry["result"])
        trained_for = bundle.get("trained_for", ())
        anchor = f"{name}-{key}".replace(" ", "-")
        found.append(
            Done(
                anchor,
                experiment.measure.__module__.rpartition(".")[2],
                section,
                [claim.verdict(trained_for) for claim in section.claims],
                entry["seconds"],
                settings,
            )
        )
    return found
