"""ResNet: how few neuron-head pairs carry the output (2509.19943, Section 3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from clipneurons.lens.contributions import MeanEffect
from clipneurons.lens.lens import Lens
from clipneurons.lens.second_order import SCALE
from export.common.numbers import percent, spread
from export.evaluation.tally import Tally
from research.papers.charts import line_chart
from research.papers.context import EvaluationContext
from research.papers.metric import metric
from research.papers.types import Claim, Experiment, Figure, Section, Table

SHARES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
WAYS = {
    "image": "largest pairs of each image",
    "all": "the same pairs for all images",
    "chance": "pairs chosen by chance",
}


def measure(context: EvaluationContext) -> dict:
    """Accuracy when only a share of the pairs keeps its effect, the others their mean."""
    lens = Lens(context.clip)
    arrays, device = context.bundle.layers[4], context.clip.device
    directions = lens.directions[4]
    mean = MeanEffect.from_dense(arrays.means.to(device), directions)
    means = mean.dense(directions)
    units = directions.units
    squares, count = torch.zeros(units, dtype=torch.float64, device=device), 0
    for _, images, _ in context.pass_over(context.usual, "pair norms"):
        squares += lens(images)[1][4].norms(mean).square().sum(0)
        count += len(images)
    ranked = squares.argsort(descending=True)
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.randperm(units, generator=generator).to(device)
    tallies = {way: {share: Tally() for share in SHARES} for way in WAYS}
    for _, images, labels in context.pass_over(context.judged, "sparsity"):
        representation, contributions = lens(images)
        mine = contributions[4]
        original = SCALE * representation / representation.norm(dim=-1, keepdim=True)
        rest = original - mine.sum() + means.sum(0)
        order = mine.norms(mean).argsort(dim=1, descending=True)
        for way, chosen in (("image", order), ("all", ranked), ("chance", shuffled)):
            for share, tally in tallies[way].items():
                keep = torch.zeros(len(images), units, device=device)
                size = round(share * units)
                keep.scatter_(1, chosen.expand(len(images), -1)[:, :size], 1.0)
                kept = mine.sum(keep) - keep @ means
                tally.add(rest + kept, original, context.classifier, labels)
    return {
        "units": units,
        "count": tallies["all"][1.0].images,
        "energy": _energy(squares[ranked]),
        "ways": {
            way: {str(share): tally.figures() for share, tally in mine.items()}
            for way, mine in tallies.items()
        },
    }


def _energy(ordered: torch.Tensor) -> dict[str, float]:
    """Share of the summed squared effects that the largest share of the pairs has."""
    total = ordered.cumsum(0) / ordered.sum().clamp_min(1e-30)
    return {
        str(share): float(total[max(round(share * len(ordered)) - 1, 0)]) for share in SHARES[1:]
    }


def report(result: Mapping) -> Section:
    """Curves by share of pairs, and the share that is enough."""
    by = metric(result["ways"]["all"]["1.0"])
    shares = [float(share) for share in result["ways"]["all"]]
    lines = [
        by.line(label, range(len(shares)), result["ways"][way].values())
        for way, label in WAYS.items()
    ]
    return Section(
        title="Sparsity of neuron-head pairs",
        source="2509.19943, Section 3",
        text=f"Only a share of the {result['units']:,} pairs keeps its effect on an image, the "
        f"others are at their mean; {result['count']:,} images.{by.note}",
        parts=[
            Figure(
                line_chart(
                    lines,
                    "pairs kept, % of all",
                    by.axis,
                    ticks=[(i, f"{100 * share:g}") for i, share in enumerate(shares)],
                ),
                "Accuracy by share of pairs that are kept, with 95 % intervals.",
            ),
            Table(
                f"{by.name.capitalize()} in per cent, and the part of all squared effects that the "
                "largest pairs have.",
                ["pairs kept, %", *WAYS.values(), "squared effects"],
                [
                    [
                        f"{100 * float(share):g}",
                        *(spread(*by(result["ways"][way][share])) for way in WAYS),
                        percent(result["energy"][share]) if share in result["energy"] else "0",
                    ]
                    for share in result["ways"]["all"]
                ],
            ),
        ],
        claims=claims(result, shares),
    )


def claims(result: Mapping, shares: list[float]) -> list[Claim]:
    """A small share of the pairs is enough, and it is not any share."""
    by = metric(result["ways"]["all"]["1.0"])
    by_image = [by(figures) for figures in result["ways"]["image"].values()]
    none, everything = by_image[0], by_image[-1]
    decided = none[1][1] < everything[0]
    goal = none[0] + 0.9 * (everything[0] - none[0])
    enough = next(share for share, value in zip(shares, by_image, strict=True) if value[0] >= goal)
    chance = by(result["ways"]["chance"][str(enough)])
    return [
        Claim(
            "Only a sparse set of pairs contributes significantly to an image.",
            enough <= 0.1 if decided else None,
            f"Nine tenths of what the pairs add to {percent(none[0])} (none) up to "
            f"{percent(everything[0])} (all) are there with the largest {100 * enough:g} % of each "
            f"image's pairs; as many chosen by chance give {percent(chance[0])}.",
        )
    ]


EXPERIMENT = Experiment("pair sparsity", ("resnet",), ("images", "statistics"), measure, report)
