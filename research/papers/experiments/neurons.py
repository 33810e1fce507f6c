"""Example units with their texts and top images (Tables 2 and 5, Figures 5 and 12)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.bundle.unit_words import neuron_and_head, signed, unit_name
from clipneurons.images.convert import webp_uri
from clipneurons.stats.centring import without_shared
from export.common.numbers import percent
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.effective_concepts import effective_concepts
from research.papers.types import Claim, Experiment, Figure, Gallery, Picture, Section

_EACH, _IMAGES, _PHRASES = 5, 5, 6
# Effective concepts from which on a unit is called polysemantic.
_SEVERAL = 2.0
# As many concepts as phrases drawn by chance would have, within this: nothing is said at all.
_LIKE_CHANCE = 0.95
_BINS = (0, 1.5, 2, 3, 4, 6, 8, 12, 16.01)


def measure(context: EvaluationContext) -> dict:
    """The clearest units of the layer, others chosen by chance, and how much all say."""
    bundle, layer = context.bundle, context.layer
    arrays = bundle.layers[layer]
    texts = without_shared(bundle.text_embeddings)
    concepts = effective_concepts(arrays.indices, arrays.coefficients, texts)
    alive = concepts > 0
    clear = arrays.coefficients[:, 0].clamp_min(0) * arrays.explained_variance
    clear = clear * (1 - arrays.participation_ratio) * alive
    generator = torch.Generator().manual_seed(0)
    found = alive.nonzero().flatten()
    chance = found[torch.randperm(len(found), generator=generator)[:_EACH]]
    groups = {
        "clearest": clear.topk(min(_EACH, len(clear))).indices.tolist(),
        "chosen by chance": chance.tolist(),
    }
    counts = torch.histogram(concepts[alive].float(), torch.tensor(_BINS, dtype=torch.float32))
    return {
        "layer": layer,
        "heads": bundle.config.units_per_neuron,
        "units": {
            group: [_example(context, unit, float(concepts[unit])) for unit in units]
            for group, units in groups.items()
        },
        "effective_concepts": {
            "median": float(concepts[alive].median()) if alive.any() else 0.0,
            "several": float((concepts[alive] >= _SEVERAL).float().mean()),
            "chance": _by_chance(arrays, texts),
            "counts": counts.hist.int().tolist(),
            "units": int(alive.sum()),
        },
    }


def _by_chance(arrays: LayerArrays, texts: Float[Tensor, "text embed"]) -> float:
    """Median effective concepts when the same coefficients stand before phrases of other units."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(arrays.indices.numel(), generator=generator)
    shuffled = arrays.indices.flatten()[order].view_as(arrays.indices)
    concepts = effective_concepts(shuffled, arrays.coefficients, texts)
    return float(concepts[concepts > 0].median()) if (concepts > 0).any() else 0.0


def _example(context: EvaluationContext, unit: int, concepts: float) -> dict:
    neuron = context.bundle.unit(context.layer, unit)
    return {
        "unit": unit,
        "phrases": [[text, round(value, 4)] for text, value in neuron.decomposition[:_PHRASES]],
        "explained": round(neuron.explained_variance, 4),
        "effective_concepts": round(concepts, 2),
        "images": [
            {
                "uri": webp_uri(image.webp),
                "words": image.caption,
                "norm": round(image.norm, 3),
            }
            for image in neuron.images[:_IMAGES]
        ],
    }


def report(result: Mapping) -> Section:
    """Pictures and phrases, and how many things a unit says."""
    heads = result["heads"]
    rows = []
    for group, units in result["units"].items():
        for example in units:
            unit = example["unit"]
            name = unit_name(*neuron_and_head(unit, heads))
            words = ", ".join(signed(text, value) for text, value in example["phrases"])
            words += (
                f". First component {percent(example['explained'], 0)} %, "
                f"{example['effective_concepts']:.1f} effective concepts"
            )
            pictures = [Picture(i["uri"], i["words"]) for i in example["images"]]
            rows.append((f"{name} ({group})", words, pictures))
    concepts = result["effective_concepts"]
    like_chance = concepts["median"] >= _LIKE_CHANCE * concepts["chance"]
    bars = [
        Bar(f"{low:g} to {high:.0f}" if high != 1.5 else "1", count)
        for low, high, count in zip(_BINS[:-1], _BINS[1:], concepts["counts"], strict=True)
    ]
    return Section(
        title="What single units say",
        source="2406.04341, Tables 2 and 5, Figures 5 and 12",
        text=f"Units of layer {result['layer']} with their texts, largest coefficient first (a "
        "minus: the unit writes against the text), and the images on which their effect is "
        "largest.",
        parts=[
            Gallery("Units, the clearest ones first and then some chosen by chance.", rows),
            Figure(
                bar_chart(bars, f"units of {concepts['units']:,}"),
                "Effective number of distinct phrases a unit.",
            ),
        ],
        claims=[
            Claim(
                "Units are polysemantic: most say several, often unrelated things.",
                None if like_chance else concepts["several"] > 0.5,
                f"{percent(concepts['several'])} % of the units have at least {_SEVERAL:g} "
                f"effective concepts, the median is {concepts['median']:.1f}; phrases shuffled "
                f"among the units would have {concepts['chance']:.1f}"
                + (", so these units do not say anything yet." if like_chance else "."),
            )
        ],
    )


EXPERIMENT = Experiment("units", ("vit", "resnet"), (), measure, report)
