"""Simulation scores of labels: ours, baselines of the same length, and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import linspace

from clipneurons.bundle.labels import EXPLAINS, SPECIFIC
from research.labels.compare import (
    DECOMPOSITION,
    DISSECT,
    LINEAR,
    NEAREST,
    OURS,
    SHUFFLED,
    UPPER,
)
from research.papers.charts import Bar, Line, bar_chart, line_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Section, Table

# Published mean simulation scores, ViT-B/16 and ResNet-50 (Linear Explanations, ICML 2024).
_PUBLISHED = {"vit": (0.172, 0.349), "resnet": (0.187, 0.377)}
_COMPARED = (DECOMPOSITION, DISSECT, NEAREST, LINEAR, SHUFFLED)


def measure(context: EvaluationContext) -> dict:
    """What `export evaluate labels` and `research labels` left in the bundle."""
    metrics = context.bundle.metrics
    return {
        "kind": context.bundle.config.kind,
        "labels": metrics.get("labels"),
        "comparison": metrics.get("label_comparison"),
    }


def report(result: Mapping) -> Section:
    """Methods and controls side by side, and the distribution over units."""
    labels, comparison = result["labels"], result["comparison"]
    title, source = "Simulation scores of labels", "Linear Explanations (ICML 2024), 2506.05774"
    if not (labels and comparison):
        words = "Not tested; python -m export evaluate labels and python -m research labels do."
        return Section(title, source, words, [])
    low, high = _PUBLISHED[result["kind"]]
    return Section(
        title=title,
        source=source,
        text=f"Labels of at most {labels['label_texts']} texts, written on "
        f"{labels['written_on']['count']:,} images and tested on {labels['tested_on']['count']:,} "
        f"others ({labels['tested_on']['images']}; judge: {labels['judge']}). Published means are "
        f"{low} for CLIP-Dissect and {high} for the best, on larger models and photographs.",
        parts=[
            _means(comparison),
            _distribution(comparison, [OURS, DECOMPOSITION, DISSECT, SHUFFLED]),
            _quantiles(comparison),
            *([_checks(comparison["sanity"])] if comparison["sanity"] else []),
        ],
        claims=[_ahead(comparison, name) for name in _COMPARED],
    )


def _ranked(comparison: Mapping) -> list[str]:
    """Methods, the best first."""
    methods = comparison["methods"]
    return sorted(methods, key=lambda name: -methods[name]["simulation_score"])


def _means(comparison: Mapping) -> Figure:
    """Every method's mean over units."""
    bars = [
        Bar(name, figures["simulation_score"], figures["interval"], colour=_colour(name))
        for name in _ranked(comparison)
        for figures in [comparison["methods"][name]]
    ]
    return Figure(
        bar_chart(bars, "simulation score, mean over units"),
        "With 95 % intervals (bootstrap over images and units). Linear explanations are fitted on "
        "what the judge saw, without the model's own readings.",
    )


def _distribution(comparison: Mapping, shown: Sequence[str]) -> Figure:
    """How units spread, for some methods, where any of them has units."""
    methods = comparison["methods"]
    edges = linspace(-1, 1, len(methods[OURS]["histogram"]) + 1).tolist()
    centres = [(a + b) / 2 for a, b in pairwise(edges)]
    held = [i for i, _ in enumerate(centres) if any(methods[n]["histogram"][i] for n in shown)]
    kept = range(held[0], held[-1] + 1)
    lines = [
        Line(
            name,
            [centres[i] for i in kept],
            [100 * methods[name]["histogram"][i] / sum(methods[name]["histogram"]) for i in kept],
        )
        for name in shown
    ]
    return Figure(
        line_chart(lines, "simulation score of a unit", "units, %", bottom=0),
        "Distribution over units.",
    )


def _quantiles(comparison: Mapping) -> Table:
    """Every method's spread over units, and how many labels are significant and reliable."""
    methods = comparison["methods"]
    return Table(
        "Quantiles over units. Significant: better than other units' labels (permutation test, FDR "
        f"5 %); reliable: also r² of at least {EXPLAINS:.0%} over the whole interval and "
        f"specificity of at least {SPECIFIC:.0%}.",
        ["labels", "5 %", "25 %", "median", "75 %", "95 %", "significant, %", "reliable, %"],
        [
            [
                name,
                *(f"{q:.3f}" for q in methods[name]["quantiles"]),
                f"{100 * methods[name]['significant_share']:.1f}",
                f"{100 * methods[name]['reliable_share']:.1f}",
            ]
            for name in _ranked(comparison)
        ],
    )


def _checks(sanity: Mapping) -> Table:
    """How the metrics themselves fare where labels are missing, and where there are too many."""
    return Table(
        "Checks of the metrics (2506.05774): share of texts on which a metric falls when half the "
        "labels are missing, and when there are twice as many.",
        ["metric", "missing", "extra", "passed"],
        [
            [name, f"{one['missing']:.2f}", f"{one['extra']:.2f}", "yes" if one["passed"] else "no"]
            for name, one in sanity.items()
        ],
    )


def _ahead(comparison: Mapping, baseline: str) -> Claim:
    """Whether our labels predict better than a baseline's, beyond the interval."""
    gap = comparison["ahead_of"][baseline]
    low, high = gap["interval"]
    return Claim(
        f"Our labels predict their units better than {baseline}.",
        low > 0,
        f"Mean simulation score larger by {gap['difference']:.3f} ({low:.3f} to {high:.3f}).",
    )


def _colour(name: str) -> int:
    return 0 if name == OURS else 1 if name in (LINEAR, UPPER) else 2


EXPERIMENT = Experiment(
    "labels", ("vit", "resnet"), (), measure, report, reads=("labels", "label_comparison")
)
