"""ResNet: a neuron-head pair has one direction, a neuron has several (2509.19943, Section 3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.lens import Lens
from export.common.numbers import percent, spread
from export.evaluation.tally import Tally
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.metric import metric
from research.papers.types import Claim, Experiment, Figure, Section, Table

_NEURONS = 256
_BINS = (0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999, 1.0001)


def measure(context: EvaluationContext) -> dict:
    """Variance of the first component by neuron and by pair, and accuracy from it alone."""
    lens = Lens(context.clip)
    heads = lens.method.neurons.heads
    scores = []
    for _, images, _ in context.pass_over(context.usual, "pair scores"):
        scores.append(pair_scores(lens, images).cpu())
    scores = torch.cat(scores)  # [image, neuron, head]
    mean = scores.mean(0)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(scores.shape[1], generator=generator)[:_NEURONS]
    dense = lens.method.neurons.dense(chosen).double().cpu()
    rows = (scores - mean)[:, chosen].transpose(0, 1).double()
    by_neuron = [_share(rows[n] @ dense[n]) for n in range(len(chosen))]
    by_pair = [_share(rows[n, :, h : h + 1] @ dense[n, h : h + 1])
               for n in range(min(32, len(chosen))) for h in range(heads)]  # fmt: skip
    components = first_components(scores - mean, lens)
    return {
        "neurons": len(chosen),
        "heads": heads,
        "images": len(scores),
        "neuron": [x for x in by_neuron if x is not None],
        "pair": [x for x in by_pair if x is not None],
    } | accuracy_from(context, lens, mean, components)


def pair_scores(lens: Lens, images: Tensor) -> Float[Tensor, "image neuron head"]:
    contributions = lens(images)[1][4]
    return contributions.scores.reshape(len(images), -1, lens.method.neurons.heads)


def _share(effects: Float[Tensor, "image embed"]) -> float | None:
    """Part of the variance along the first component; None where there is no variance."""
    squares = torch.linalg.svdvals(effects).square()
    total = float(squares.sum())
    return float(squares[0]) / total if total > 1e-12 else None


def first_components(
    centred: Float[Tensor, "image neuron head"], lens: Lens
) -> Float[Tensor, "neuron embed"]:
    """First principal component of each neuron's effects over all images."""
    found = []
    for part in torch.arange(centred.shape[1]).split(128):
        dense = lens.method.neurons.dense(part.to(lens.method.neurons.inner.device)).double().cpu()
        rows = centred[:, part].transpose(0, 1).double()  # [neuron, image, head]
        # X = rows · dense: the right singular vectors through the small head × head problem.
        basis, triangle = torch.linalg.qr(dense.mT)
        small = triangle @ (rows.mT @ rows) @ triangle.mT
        vectors = torch.linalg.eigh(small).eigenvectors[..., -1]
        found.append((basis @ vectors[..., None])[..., 0].float())
    return torch.cat(found)


def accuracy_from(context: EvaluationContext, lens: Lens, mean: Tensor, components: Tensor) -> dict:
    """Accuracy when every neuron keeps only the part of its effect along one direction."""
    device = context.clip.device
    mean, components = mean.to(device), components.to(device)
    tallies = {"unchanged": Tally(), "neurons": Tally(), "none": Tally()}
    chunks = torch.arange(len(components), device=device).split(256)
    along = torch.cat(
        [torch.einsum("nhd,nd->nh", lens.method.neurons.dense(c), components[c]) for c in chunks]
    )
    for _, images, labels in context.pass_over(context.judged, "one direction a neuron"):
        representation = context.clip.encode_image(images)
        original = 100 * representation / representation.norm(dim=-1, keepdim=True)
        contributions = lens(images)[1][4]
        flat = contributions.sum()
        means = torch.einsum("nh,hnr->hr", mean, lens.method.neurons.inner)
        fixed = original - flat + torch.einsum("hr,hrd->d", means, lens.method.neurons.outer)
        centred = contributions.scores.reshape(len(images), *mean.shape) - mean
        projected = torch.einsum("bnh,nh->bn", centred, along) @ components
        for name, value in (("unchanged", original), ("neurons", fixed + projected),
                            ("none", fixed)):  # fmt: skip
            tallies[name].add(value, original, context.classifier, labels)
    return {
        "count": tallies["none"].images,
        "accuracy": {name: tally.figures() for name, tally in tallies.items()},
    }


def report(result: Mapping) -> Section:
    """Histogram of the neurons' shares against the pairs' 1, and what one direction costs."""
    neuron, pair = (torch.tensor(result[key]) for key in ("neuron", "pair"))
    counts = torch.histogram(neuron, torch.tensor(_BINS, dtype=torch.float32)).hist
    bars = [
        Bar(f"{percent(low, 0)} to {percent(min(high, 1), 0)} %", int(count))
        for low, high, count in zip(_BINS[:-1], _BINS[1:], counts.tolist(), strict=True)
    ]
    figures = result["accuracy"]
    labels = {
        "unchanged": "all pairs (each one direction): the unchanged model",
        "neurons": "one direction a neuron",
        "none": "all neurons mean-ablated",
    }
    by = metric(figures["unchanged"])
    before, after = by(figures["unchanged"])[0], by(figures["neurons"])[0]
    low = float(pair.min()) if len(pair) else 0.0
    return Section(
        title="One direction: neuron-head pairs against neurons",
        source="2509.19943, Section 3",
        text=f"The effects of {result['neurons']} neurons over {result['images']:,} images: the "
        "part of their variance along one direction, for a neuron as a whole and for each of its "
        f"{result['heads']} pairs.{by.note}",
        parts=[
            Figure(
                bar_chart(bars, f"neurons of {len(neuron)}"),
                "Variance explained by the first component of a neuron; every pair has "
                f"{percent(low, 2)} % or more.",
            ),
            Table(
                f"{by.name.capitalize()} in per cent, {result['count']:,} images.",
                ["kept", by.name],
                [[labels[key], spread(*by(figures[key]))] for key in labels],
            ),
        ],
        claims=[
            Claim(
                "A neuron-head pair has a single direction.",
                low > 0.999,
                f"Its first component explains at least {percent(low, 3)} % of the variance (it "
                "is a number times a fixed vector).",
            ),
            Claim(
                "A neuron as a whole has not.",
                float(neuron.median()) < 0.9,
                f"Its first component explains {percent(float(neuron.median()))} % (median); with "
                f"one direction a neuron, {percent(before)} becomes {percent(after)}.",
            ),
        ],
    )


EXPERIMENT = Experiment("pair rank", ("resnet",), ("images", "statistics"), measure, report)
