"""Accuracy after mean-ablation of second-order effects, layer by layer (Figures 3 and 9)."""

from __future__ import annotations

from collections.abc import Mapping

from export.common.numbers import percent, spread
from research.papers.charts import Line, line_chart
from research.papers.context import EvaluationContext
from research.papers.metric import Metric, metric
from research.papers.tables import conditions_table
from research.papers.types import LATE_CLASS_TOKEN, Claim, Experiment, Figure, Section

CONDITIONS = {
    "all effects mean-ablated": "all effects",
    "large effects mean-ablated": "large effects (top 2 % of images)",
    "small effects mean-ablated": "small effects (the other 98 %)",
    "first component": "all but their first component",
}


def measure(context: EvaluationContext) -> dict:
    """Figures of every layer that has second-order effects."""
    result: dict = {"layers": {}}
    for layers in context.groups:
        found = context.fidelity(context.wide(layers))
        result |= {key: found[key] for key in ("images", "count", "classes", "baseline")}
        for name, figures in found["layers"].items():
            kept = {condition: figures[condition] for condition in CONDITIONS}
            result["layers"][name.removeprefix("layer ")] = kept
    return result


def report(result: Mapping) -> Section:
    """Curves by layer, and whether effects sit late, are few, and have one direction."""
    layers = {int(layer): figures for layer, figures in result["layers"].items()}
    by = metric(result["baseline"])
    x = sorted(layers)
    lines = [Line("unchanged", [x[0], x[-1]], [100 * by.base] * 2, dashed=True)]
    for condition, label in CONDITIONS.items():
        lines.append(by.line(label, x, [layers[layer][condition] for layer in x]))
    return Section(
        title="Mean-ablation of second-order effects",
        source="2406.04341, Figures 3 and 9",
        text=f"Each neuron's effect in one layer is replaced by its mean over images, and "
        f"{result['count']:,} images ({result['images']}, {result['classes']} classes) are "
        f"classified again.{by.note}",
        parts=[
            Figure(
                line_chart(lines, "layer", by.axis),
                "What is mean-ablated, layer by layer, with 95 % intervals.",
            ),
            conditions_table(
                "",
                by,
                {f"layer {layer}": figures for layer, figures in sorted(layers.items())},
                CONDITIONS,
            ),
        ],
        claims=claims(layers, by),
    )


def claims(layers: Mapping[int, Mapping], by: Metric) -> list[Claim]:
    """Statements of section 3 of the paper, decided from the figures."""

    def loss(layer: int, condition: str) -> float:
        return by.base - by(layers[layer][condition])[0]

    everything = "all effects mean-ablated"
    peak = max(layers, key=lambda layer: loss(layer, everything))
    low, high = by(layers[peak][everything])[1]
    real = high < by.base
    total = loss(peak, everything)
    large, small = (loss(peak, f"{size} effects mean-ablated") for size in ("large", "small"))
    component = loss(peak, "first component")
    late = peak >= max(layers) / 2
    after = spread(by.base - total, (low, high))
    return [
        Claim(
            "Second-order effects matter most in late layers.",
            (late if real else None),
            f"The largest loss is in layer {peak} of 0 to {max(layers)}: {percent(by.base)} "
            f"before, {after} after.",
            LATE_CLASS_TOKEN,
        ),
        Claim(
            "Few images carry a neuron's effect: what its large effects say matters, the rest "
            "hardly does.",
            (large > 2 * small) if real else None,
            f"In layer {peak}, ablating the large effects costs {percent(large)} points, the "
            f"small ones {percent(small)}, all {percent(total)}.",
        ),
        Claim(
            "One direction a neuron is enough.",
            (component < 0.25 * total) if real else None,
            f"With only the first component kept in layer {peak}, {percent(component)} of "
            f"{percent(total)} points are lost.",
        ),
    ]


EXPERIMENT = Experiment("mean ablation", ("vit",), ("images", "statistics"), measure, report)
