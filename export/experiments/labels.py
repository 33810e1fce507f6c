"""How far labels can be trusted: simulation correlation of ours, the paper's, rivals, controls."""

from __future__ import annotations

from collections.abc import Mapping

from clipneurons.bundle.labels import EXPLAINS
from clipneurons.explore.labels.assess import DECOMPOSITION, DISSECT, NEAREST, SHUFFLED, UPPER
from export.report.charts import Bar, Line, bar_chart, line_chart
from export.report.context import EvaluationContext
from export.report.types import Claim, Experiment, Figure, Section, Table

# Published mean simulation correlations, ViT-B/16 and ResNet-50 (Linear Explanations, ICML 2024).
_PUBLISHED = {"vit": (0.172, 0.349), "resnet": (0.187, 0.377)}
_AIM = 0.35


def measure(context: EvaluationContext) -> dict:
    """The figures that `export evaluate --labels` left in the bundle; it takes minutes itself."""
    return {
        "kind": context.bundle.config.kind,
        "found": context.bundle.metrics.get("labels"),
    }


def report(result: Mapping) -> Section:
    """The distribution over units, methods and controls side by side, and what they mean."""
    found = result["found"]
    title, source = "How far a label can be trusted", "Linear Explanations (ICML 2024), 2506.05774"
    if not found or "told_apart" not in found:  # an older version did not say what is told apart
        words = "Not tested; python -m export evaluate --bundle FOLDER --labels does."
        return Section(title, source, words, [])
    methods, ours = found["methods"], found["method"]
    ranked = sorted(methods, key=lambda name: -methods[name]["simulation"])
    centres = [
        (a + b) / 2
        for a, b in zip(found["histogram_edges"][:-1], found["histogram_edges"][1:], strict=True)
    ]
    shown = [ours, *(n for n in (DECOMPOSITION, DISSECT, NEAREST, SHUFFLED) if n != ours)]
    held = [i for i, _ in enumerate(centres) if any(methods[n]["histogram"][i] for n in shown)]
    kept = range(held[0], held[-1] + 1)
    lines = [
        Line(
            f"{name} (ours)" if name == ours else name,
            [centres[i] for i in kept],
            [100 * methods[name]["histogram"][i] / found["units_tested"] for i in kept],
        )
        for name in shown
    ]
    sure = found["reliable"]
    low, high = _PUBLISHED[result["kind"]]
    return Section(
        title=title,
        source=source,
        text=f"A judge ({found['judge']}) says what {found['tested_on']:,} images show "
        f"({found['images']}); put through a unit's words, that predicts what the unit does there. "
        f"Labels were written on {found['written_on']:,} other images and chosen on "
        f"{found['chosen_on']:,} more. Published means are {low} for CLIP-Dissect and {high} for "
        "the best, on larger models and photographs.",
        parts=[
            Figure(
                bar_chart(
                    [
                        Bar(
                            f"{name} (shipped)" if name == ours else name,
                            methods[name]["simulation"],
                            methods[name]["interval"],
                            colour=_colour(name, ours),
                        )
                        for name in ranked
                    ],
                    "simulation correlation, mean over units",
                ),
                "With 95 % intervals (bootstrap over images and units). The linear explanation is "
                "fitted on what the judge itself saw: no rival, with enough images a bound.",
            ),
            Figure(
                line_chart(lines, "simulation correlation of a unit", "units, %", bottom=0),
                "Distribution over units.",
            ),
            Table(
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
                    for name in ranked
                ],
            ),
            *([_groups(found["groups"])] if found.get("groups") else []),
            *([_checks(found)] if found["sanity"] else []),
        ],
        claims=[
            *(_ahead(found, rival) for rival in (DECOMPOSITION, DISSECT, NEAREST, SHUFFLED)
              if rival != ours),
            Claim(
                f"Units called reliable have a mean simulation correlation of at least {_AIM} "
                "(as many units taken on other images than the test's do).",
                None if not sure["units"] else sure["chosen_elsewhere"] >= _AIM,
                f"{sure['units']:,} of {found['units_tested']:,} units are"
                + (
                    f"; mean {sure['simulation']:.3f} ({sure['interval'][0]:.3f} to "
                    f"{sure['interval'][1]:.3f}); of as many taken on the images of the choice "
                    f"{sure['chosen_elsewhere']:.3f}."
                    if sure["units"]
                    else "."
                ),
            ),
        ],
    )  # fmt: skip


def _groups(found: Mapping) -> Table:
    """Names of the groups of top images, and the control."""
    return Table(
        f"Groups of top images: {found['units']:,} of {found['of_units']:,} units have "
        f"{found['groups']:,}. Purity: the share of held-out images of a group (they excite the "
        "unit and are nearest to it) that show its name; a name is given from one half.",
        ["names", "mean purity", "mean AUC", "named, %"],
        [
            [
                f"{way} (shipped)" if way == found["way"] else way,
                f"{one['purity']:.3f}",
                f"{one['auc']:.3f}",
                f"{100 * one['named']:.1f}",
            ]
            for way, one in found["ways"].items()
        ],
    )


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


def _colour(name: str, ours: str) -> int:
    return 0 if name == ours else 1 if name == UPPER else 2


EXPERIMENT = Experiment("labels", ("vit", "resnet"), (), measure, report, reads="labels")
