"""ResNet: pairs of one neuron say sub-concepts of it (2509.19943, Section 3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.functional import normalize

from clipneurons.bundle.unit_words import signed, unit_name
from clipneurons.images.convert import webp_uri
from export.common.numbers import percent
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Gallery, Picture, Section, Table

_NEURONS, _PAIRS, _IMAGES = 4, 3, 3


def measure(context: EvaluationContext) -> dict:
    """How alike the pairs of a neuron are, and the neurons that matter most with their pairs."""
    bundle = context.bundle
    heads = bundle.config.units_per_neuron
    arrays = bundle.layers[4]
    directions = normalize(arrays.directions, dim=1).unflatten(0, (-1, heads))
    alike = directions @ directions.mT  # [neuron, head, head]
    apart = ~torch.eye(heads, dtype=torch.bool)
    same = alike[:, apart].mean(1)
    generator = torch.Generator().manual_seed(0)
    shuffled = directions[torch.randperm(len(directions), generator=generator)]
    different = (directions @ shuffled.mT)[:, apart].mean(1)
    first = arrays.indices[:, 0].unflatten(0, (-1, heads))
    distinct = torch.tensor([len(set(row)) for row in first.tolist()]).float()
    # Neurons whose pairs are all strong: there sub-concepts can be seen.
    strength = arrays.top_norms.mean(1).unflatten(0, (-1, heads))
    ranked = strength.topk(min(_PAIRS, heads), dim=1).values[:, -1].argsort(descending=True)
    examples = []
    for neuron in ranked[:_NEURONS].tolist():
        pairs = strength[neuron].topk(min(_PAIRS, heads)).indices.tolist()
        examples.append(
            {"neuron": neuron, "pairs": [_pair(context, neuron, head) for head in pairs]}
        )
    shared = shared_images(arrays.top_activating_images.unflatten(0, (-1, heads))[ranked[:128]])
    return {
        "heads": heads,
        "same": float(same.mean()),
        "different": float(different.mean()),
        "distinct": float(distinct.mean()),
        "shared": shared,
        "examples": examples,
    }


def _pair(context: EvaluationContext, neuron: int, head: int) -> dict:
    pair = context.bundle.neuron(4, neuron, head)
    return {
        "head": head,
        "phrases": [[text, value] for text, value in pair.decomposition[:4]],
        "images": [
            {
                "uri": webp_uri(image.webp),
                "words": image.caption,
            }
            for image in pair.images[:_IMAGES]
        ],
    }


def shared_images(top: torch.Tensor) -> float:
    """Part of the top images that two pairs of a neuron share, on average."""
    shares = []
    for rows in top.tolist():
        sets = [set(row) - {-1} for row in rows]
        for i, one in enumerate(sets):
            shares += [len(one & two) / max(len(one), 1) for two in sets[i + 1 :]]
    return sum(shares) / max(len(shares), 1)


def report(result: Mapping) -> Section:
    """Neurons with several pairs, their texts and images."""
    rows = []
    for example in result["examples"]:
        for pair in example["pairs"]:
            words = ", ".join(signed(text, value) for text, value in pair["phrases"])
            pictures = [Picture(i["uri"], i["words"]) for i in pair["images"]]
            rows.append((unit_name(example["neuron"], pair["head"]), words, pictures))
    return Section(
        title="Sub-concepts: what the pairs of one neuron say",
        source="2509.19943, Section 3",
        text="Neurons whose pairs have the largest effects, with the texts and top images of "
        "their strongest pairs.",
        parts=[
            Gallery("Neurons with their strongest pairs.", rows),
            Table(
                "How alike pairs are.",
                ["", "value"],
                [
                    ["mean cosine between pairs of one neuron", f"{result['same']:.3f}"],
                    ["mean cosine between pairs of two neurons", f"{result['different']:.3f}"],
                    [
                        f"different first texts among a neuron's {result['heads']} pairs",
                        f"{result['distinct']:.1f}",
                    ],
                    ["top images that two pairs of a neuron share, %", percent(result["shared"])],
                ],
            ),
        ],
        claims=[
            Claim(
                "Pairs of one neuron say related but different things (sub-concepts).",
                result["same"] > result["different"] and result["distinct"] > result["heads"] / 2,
                f"Cosine {result['same']:.2f} within a neuron, {result['different']:.2f} between "
                f"neurons; {result['distinct']:.1f} of {result['heads']} pairs have a first text "
                "of their own.",
            )
        ],
    )


EXPERIMENT = Experiment("sub-concepts", ("resnet",), (), measure, report)
