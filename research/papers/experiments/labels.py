"""How far labels can be trusted: simulation correlation of ours, the paper's, rivals, controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from clipneurons.bundle.labels import EXPLAINS
from clipneurons.labels.assess import DECOMPOSITION, DISSECT, NEAREST, SHUFFLED, UPPER
from export.pipeline.card import labels_tested
from research.papers.charts import Bar, Line, bar_chart, line_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Section, Table

# Published mean simulation correlations, ViT-B/16 and ResNet-50 (Linear Explanations, ICML 2024).
_PUBLISHED = {"vit": (0.172, 0.349), "resnet": (0.187, 0.377)}
_AIM = 0.35
_COMPARED = (DECOMPOSITION, DISSECT, NEAREST, SHUFFLED)


def measure(context: EvaluationContext) -> dict:
    """The figures that `export evaluate labels` left in the bundle; it takes minutes itself."""
    return {
        "kind": context.bundle.config.kind,
        "found": context.bundle.metrics.get("labels"),
    }


def report(result: Mapping) -> Section:
    """The distribution over units, methods and controls side by side, and what they mean."""
    found = result["found"]
    title, source = "How far a label can be trusted", "Linear Explanations (ICML 2024), 2506.05774"
    if not labels_tested(found):
        words = "Not tested; python -m export evaluate labels --bundle FOLDER does."
        return Section(title, source, words, [])
    low, high = _PUBLISHED[result["kind"]]
    rivals = [name for name in _COMPARED if name != found["method"]]
    return Section(
        title=title,
        source=source,
        text=f"A judge ({found['judge']}) says what {found['tested_on']:,} images show "
        f"({found['images']}); put through a unit's words, that predicts what the unit does there. "
        f"Labels were written on {found['written_on']:,} other images and chosen on "
        f"{found['chosen_on']:,} more. Published means are {low} for CLIP-Dissect and {high} for "
        "the best, on larger models and photographs.",
        parts=[
            _means(found),
            _distribution(found, [found["method"], *rivals]),
            _quantiles(found),
            *([_checks(found)] if found["sanity"] else []),
        ],
        claims=[*(_ahead(found, rival) for rival in rivals), _reliable(found)],
    )


def _ranked(found: Mapping) -> list[str]:
    """Methods, the best first."""
    return sorted(found["methods"], key=lambda name: -found["methods"][name]["simulation"])


def _means(found: Mapping) -> Figure:
    """Every method's mean over units."""
    methods, ours = found["methods"], found["method"]
    bars = [
        Bar(
            f"{name} (shipped)" if name == ours else name,
            methods[name]["simulation"],
            methods[name]["interval"],
            colour=_colour(name, ours),
        )
        for name in _ranked(found)
    ]
    return Figure(
        bar_chart(bars, "simulation correlation, mean over units"),
        "With 95 % intervals (bootstrap over images and units). The linear explanation is "
        "fitted on what the judge itself saw: no rival, with enough images a bound.",
    )


def _distribution(found: Mapping, shown: Sequence[str]) -> Figure:
    """How units spread, for some methods, where any of them has units."""
    methods, edges = found["methods"], found["histogram_edges"]
    centres = [(a + b) / 2 for a, b in pairwise(edges)]
    held = [i for i, _ in enumerate(centres) if any(methods[n]["histogram"][i] for n in shown)]
    kept = range(held[0], held[-1] + 1)
    lines = [
        Line(
            f"{name} (ours)" if name == found["method"] else name,
            [centres[i] for i in kept],
            [100 * methods[name]["histogram"][i] / found["units_tested"] for i in kept],
        )
        for name in shown
    ]
    return Figure(
        line_chart(lines, "simulation correlation of a unit", "units, %", bottom=0),
        "Distribution over units.",
    )


def _quantiles(found: Mapping) -> Table:
    """Every method's spread over units, and how many labels are told apart and reliable."""
    methods = found["methods"]
    return Table(
        "Quantiles over units; told apart: better than other units' labels, permutation "
        "test with Benjamini-Hochberg at 5 %; reliable: also at least "
        f"{EXPLAINS:.0%} of the effect explained, by the lower end of the interval.",
        ["labels", "5 %", "25 %", "median", "75 %", "95 %", "among top 2 %",
         "told apart, %", "reliable, %"],
        [
            [
                name,
                *(f"{q:.3f}" for q in methods[name]["quantiles"]),
                f"{methods[name]['top']:.3f}",
                f"{100 * methods[name]['told_apart']:.1f}",
                f"{100 * methods[name]['reliable']:.1f}",
            ]
            for name in _ranked(found)
        ],
    )  # fmt: skip


def _checks(found: Mapping) -> Table:
    """How the metrics themselves fare where labels are missing, and where there are too many."""
    return Table(
        "Checks of the metrics (2506.05774): share of texts on which a metric falls when half the "
        "labels are missing, and when there are twice as many.",
        ["metric", "missing", "extra", "passed"],
        [
            [name, f"{one['missing']:.2f}", f"{one['extra']:.2f}", "yes" if one["passed"] else "no"]
            for name, one in found["sanity"].items()
        ],
    )


def _ahead(found: Mapping, rival: str) -> Claim:
    """Whether our labels predict better than a rival's, beyond the interval."""
    gap = found["ahead_of"][rival]
    low, high = gap["interval"]
    return Claim(
        f"Our labels predict their units better than {rival}.",
        low > 0,
        f"Mean correlation larger by {gap['difference']:.3f} ({low:.3f} to {high:.3f}).",
    )


def _reliable(found: Mapping) -> Claim:
    """Whether labels called reliable predict as well as was aimed at."""
    sure = found["reliable"]
    evidence = f"{sure['units']:,} of {found['units_tested']:,} units are"
    if sure["units"]:
        low, high = sure["interval"]
        evidence += (
            f"; mean {sure['simulation']:.3f} ({low:.3f} to {high:.3f}); of as many taken on the "
            f"images of the choice {sure['chosen_elsewhere']:.3f}"
        )
    return Claim(
        f"Units called reliable have a mean simulation correlation of at least {_AIM} "
        "(as many units taken on other images than the test's do).",
        sure["chosen_elsewhere"] >= _AIM if sure["units"] else None,
        f"{evidence}.",
    )


def _colour(name: str, ours: str) -> int:
    return 0 if name == ours else 1 if name == UPPER else 2


EXPERIMENT = Experiment("labels", ("vit", "resnet"), (), measure, report, reads="labels")
