"""On how many images each neuron matters (the papers' "significant for less than 2 %")."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.lens import Lens
from export.common.numbers import percent, spread
from export.evaluation.tally import Tally
from research.papers import published
from research.papers.charts import Bar, bar_chart, line_chart
from research.papers.context import EvaluationContext
from research.papers.metric import metric
from research.papers.types import Claim, Experiment, Figure, Section

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_BINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def measure(context: EvaluationContext) -> dict:
    """Accuracy when each unit keeps its effect on only a share of the images, and the spread."""
    layer, clip = context.layer, context.clip
    arrays = context.bundle.layers[layer]
    lens = Lens(clip, (layer,))
    mean = MeanEffect.from_dense(arrays.means.to(clip.device), lens.directions[layer])
    thresholds = _thresholds(context, lens, layer, mean)
    means = mean.dense(lens.directions[layer])
    tallies = {share: Tally() for share in SHARES}
    for _, images, labels in context.pass_over(context.judged, "selectivity"):
        representation, contributions = lens(images)
        mine = contributions[layer]
        original = 100 * representation / representation.norm(dim=-1, keepdim=True)
        rest = original - mine.sum() + means.sum(0)
        norms = mine.norms(mean)
        for share, tally in tallies.items():
            keep = (norms > thresholds[share]).float() if share < 1 else torch.ones_like(norms)
            kept = mine.sum(keep) - keep @ means
            tally.add(rest + kept, original, context.classifier, labels)
    effective = arrays.participation_ratio[arrays.participation_ratio > 0]
    counts = torch.histogram(effective.float().cpu(), torch.tensor(_BINS)).hist
    return {
        "layer": layer,
        "count": tallies[1.0].images,
        "shares": {str(share): tally.figures() for share, tally in tallies.items()},
        "effective": {
            "median": float(effective.median()) if len(effective) else 0.0,
            "below": float((effective < published.SELECTIVITY).float().mean()),
            "counts": counts.int().tolist(),
        },
        "units": len(arrays.directions),
    }


def _thresholds(
    context: EvaluationContext, lens, layer: int, mean: MeanEffect
) -> dict[float, torch.Tensor]:
    """By share of images, the norm that each unit exceeds on that share of the usual ones."""
    norms = torch.cat(
        [
            lens(images)[1][layer].norms(mean).cpu()
            for _, images, _ in context.pass_over(context.usual, "norms")
        ]
    )
    ordered = norms.sort(dim=0, descending=True).values
    found = {0.0: torch.full((norms.shape[1],), torch.inf)}
    for share in SHARES[1:-1]:
        found[share] = ordered[min(round(share * len(ordered)), len(ordered) - 1)]
    return {share: values.to(context.clip.device) for share, values in found.items()}


def report(result: Mapping) -> Section:
    """How much accuracy the largest effects keep, and the units' effective shares."""
    shares = [float(share) for share in result["shares"]]
    by = metric(result["shares"]["1.0"])
    conditions = [result["shares"][str(share)] for share in shares]
    line = by.line("each unit keeps its largest effects", range(len(shares)), conditions)
    counts = result["effective"]["counts"]
    bars = [
        Bar(f"{percent(low, 0)} to {percent(high, 0)} %", count)
        for low, high, count in zip(_BINS[:-1], _BINS[1:], counts, strict=True)
    ]
    none, two, everything = (by(result["shares"][str(share)]) for share in (0.0, 0.02, 1.0))
    possible = everything[0] - none[0]
    decided = none[1][1] < everything[0]
    kept = (two[0] - none[0]) / possible if possible else 0.0
    effective = result["effective"]
    return Section(
        title="Selectivity: on how many images a unit matters",
        source="2406.04341, abstract and Section 3.2",
        text=f"Layer {result['layer']}: each unit keeps its effect only on the share of images "
        f"where it is largest, its mean elsewhere; {result['count']:,} images.{by.note}",
        parts=[
            Figure(
                line_chart(
                    [line],
                    "share of images on which each unit keeps its effect, %",
                    by.axis,
                    ticks=[(i, percent(share, 0)) for i, share in enumerate(shares)],
                ),
                "0 is mean-ablation of all effects, 100 the unchanged model.",
            ),
            Figure(
                bar_chart(bars, f"units of {result['units']:,}"),
                "Share of images that carry a unit's effect (participation ratio of its squared "
                "centred norms).",
            ),
        ],
        claims=[
            Claim(
                "Each unit's effect is significant for less than 2 % of the images: keeping "
                "it there is enough.",
                kept >= 0.75 if decided else None,
                f"{spread(*two)} with effects on 2 % of the images, {spread(*none)} with "
                f"none, {percent(everything[0])} with all"
                + (f": {percent(kept, 0)} % of the way." if decided else "."),
            ),
            Claim(
                "Most units put their effect on less than 2 % of the images (participation "
                "ratio, our stricter reading).",
                effective["below"] > 0.5,
                f"The median unit spreads it over {percent(effective['median'])} % of the images; "
                f"{percent(effective['below'])} % of the units stay below 2 %.",
            ),
        ],
    )


EXPERIMENT = Experiment("selectivity", ("vit", "resnet"), ("images", "statistics"), measure, report)
