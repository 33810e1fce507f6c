"""Accumulated mean-ablation of first-order effects (Figures 10 and 11)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from clipneurons.lens.first_order import FirstOrderLens
from export.common.numbers import percent, spread
from export.evaluation.tally import Tally
from research.papers.charts import Line, line_chart
from research.papers.context import EvaluationContext
from research.papers.metric import Metric, metric
from research.papers.tables import conditions_table
from research.papers.types import LATE_CLASS_TOKEN, Claim, Experiment, Figure, Section

NAMES = {"attention": "attention layers 0 to l", "mlps": "MLP layers 0 to l (direct effect)"}


def measure(context: EvaluationContext) -> dict:
    """Figures after ablating layers 0 to l, for every l, of attention and of MLPs."""
    lens, layers = FirstOrderLens(context.clip), context.clip.layers
    total, count = dict.fromkeys(NAMES, 0.0), 0
    for _, images, _ in context.pass_over(context.usual, "first-order means"):
        for name, effects in _by_layer(lens, images)[1].items():
            total[name] = total[name] + effects.sum(0, dtype=torch.float64)
        count += len(images)
    means = {name: (mine / count).float() for name, mine in total.items()}
    tallies = {name: [Tally() for _ in range(layers)] for name in NAMES}
    baseline = Tally()
    for _, images, labels in context.pass_over(context.judged, "first-order ablation"):
        representation, effects = _by_layer(lens, images)
        baseline.add(representation, representation, context.classifier, labels)
        for name, mine in effects.items():
            ablated = representation[:, None] - (mine - means[name]).cumsum(1)
            for layer in range(layers):
                tallies[name][layer].add(
                    ablated[:, layer], representation, context.classifier, labels
                )
    return {
        "images": context.judged.name,
        "count": baseline.images,
        "baseline": {k: v for k, v in baseline.figures().items() if k.startswith("accuracy")},
        "kinds": {name: [t.figures() for t in mine] for name, mine in tallies.items()},
    }


def _by_layer(lens: FirstOrderLens, images):
    """Embeddings, and `[image, layer, embed]` effects of attention and of MLPs."""
    representation, effects = lens(images)
    return representation, {"attention": effects.heads.sum(2), "mlps": effects.mlps}


def report(result: Mapping) -> Section:
    """Two curves, and where first-order effects sit."""
    lines, rows = [], {}
    by = metric(result["baseline"])
    count = len(result["kinds"]["attention"])
    lines.append(Line("unchanged", [0, count - 1], [100 * by.base] * 2, dashed=True))
    for name, label in NAMES.items():
        lines.append(by.line(label, range(count), result["kinds"][name]))
    for layer in range(count):
        rows[f"0 to {layer}"] = {name: result["kinds"][name][layer] for name in NAMES}
    return Section(
        title="First-order effects: what attention and MLPs write directly",
        source="2406.04341, Figures 10 and 11",
        text="What each layer writes straight to the output is replaced by its mean, from the "
        f"first layer to layer l, and {result['count']:,} images are classified again.{by.note}",
        parts=[
            Figure(
                line_chart(lines, "last ablated layer l", by.axis),
                "Accumulated mean-ablation of first-order effects, with 95 % intervals.",
            ),
            conditions_table(
                " by ablated layers",
                by,
                rows,
                NAMES,
            ),
        ],
        claims=claims(result, by, count),
    )


def claims(result: Mapping, by: Metric, count: int) -> list[Claim]:
    """Where first-order effects are, decided from the figures."""
    attention, mlps = ([by(f) for f in result["kinds"][k]] for k in NAMES)
    late = max(1, round(count / 3))  # 4 of the 12 layers of a ViT-B
    before = attention[count - 1 - late]
    total, lost = by.base - attention[-1][0], by.base - before[0]
    decided = attention[-1][1][1] < by.base
    return [
        Claim(
            f"First-order effects of attention are in the last {late} layers: the earlier ones "
            "can be ablated.",
            lost < 0.2 * total if decided else None,
            f"{spread(*before)} with layers 0 to {count - 1 - late} ablated, "
            f"{spread(*attention[-1])} with all, {percent(by.base)} with none.",
            LATE_CLASS_TOKEN,
        ),
        Claim(
            "MLPs have hardly any direct effect, so that it cannot explain their neurons.",
            by.base - mlps[-1][0] < 0.2 * total if decided else None,
            f"{spread(*mlps[-1])} with the direct effects of all MLPs ablated.",
            LATE_CLASS_TOKEN,
        ),
    ]


EXPERIMENT = Experiment("first-order effects", ("vit",), ("images", "statistics"), measure, report)
