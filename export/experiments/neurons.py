"""Example units with their texts and top images (Tables 2 and 5, Figures 5 and 12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from clipneurons.bundle.bundle import Bundle
from clipneurons.explore.dictionary import Dictionary, signed
from clipneurons.images.convert import webp_uri
from export.report.charts import Bar, bar_chart
from export.report.context import Bench
from export.report.metric import percent
from export.report.types import Claim, Experiment, Figure, Gallery, Picture, Section

_EACH, _IMAGES, _PHRASES = 5, 5, 6
# Meanings from which on a unit is called polysemantic.
_SEVERAL = 2.0
# As many meanings as phrases drawn by chance would have, within this: nothing is said at all.
_LIKE_CHANCE = 0.95
_BINS = (0, 1.5, 2, 3, 4, 6, 8, 12, 16.01)


def measure(bench: Bench) -> dict:
    """The clearest units of the layer, others chosen by chance, and the meanings of all."""
    bundle, layer = bench.bundle, bench.layer
    book, arrays = Dictionary(bundle), bundle.layers[layer]
    start = book.row(layer, 0)
    meanings = book.meanings[start : start + len(arrays.directions)]
    alive = meanings > 0
    clear = arrays.coefficients[:, 0].clamp_min(0) * arrays.explained_variance
    clear = clear * (1 - arrays.effective_share) * alive
    generator = torch.Generator().manual_seed(0)
    found = alive.nonzero().flatten()
    chance = found[torch.randperm(len(found), generator=generator)[:_EACH]]
    groups = {
        "clearest": clear.topk(min(_EACH, len(clear))).indices.tolist(),
        "chosen by chance": chance.tolist(),
    }
    counts = torch.histogram(meanings[alive].float(), torch.tensor(_BINS, dtype=torch.float32))
    return {
        "layer": layer,
        "heads": bundle.config.units_per_neuron,
        "units": {
            group: [_example(bench, book, unit) for unit in units]
            for group, units in groups.items()
        },
        "meanings": {
            "median": float(meanings[alive].median()) if alive.any() else 0.0,
            "several": float((meanings[alive] >= _SEVERAL).float().mean()),
            "chance": _by_chance(bundle, layer),
            "counts": counts.hist.int().tolist(),
            "units": int(alive.sum()),
        },
    }


def _by_chance(bundle: Bundle, layer: int) -> float:
    """Median meanings when the same coefficients stand before phrases of other units."""
    arrays = bundle.layers[layer]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(arrays.indices.numel(), generator=generator)
    shuffled = replace(arrays, indices=arrays.indices.flatten()[order].view_as(arrays.indices))
    config = replace(bundle.config, layers=(layer,))
    meanings = Dictionary(replace(bundle, config=config, layers={layer: shuffled})).meanings
    return float(meanings[meanings > 0].median()) if (meanings > 0).any() else 0.0


def _example(bench: Bench, book: Dictionary, unit: int) -> dict:
    card = book.card(bench.layer, unit, phrases=_PHRASES)
    shown = [(i, norm) for i, norm in card.images if i in bench.bundle.examples][:_IMAGES]
    return {
        "unit": unit,
        "phrases": [[text, round(value, 4)] for text, value in card.phrases],
        "explained": round(card.explained_variance, 4),
        "meanings": round(card.meanings, 2),
        "images": [
            {
                "uri": webp_uri(bench.bundle.examples[i]),
                "words": bench.bundle.examples.caption(i),
                "norm": round(norm, 3),
            }
            for i, norm in shown
        ],
    }


def report(result: Mapping) -> Section:
    """Pictures and phrases, and how many things a unit says."""
    heads = result["heads"]
    rows = []
    for group, units in result["units"].items():
        for example in units:
            unit = example["unit"]
            name = f"unit {unit}" if heads == 1 else f"neuron {unit // heads}, head {unit % heads}"
            words = ", ".join(signed(text, value) for text, value in example["phrases"])
            words += (
                f". First component {percent(example['explained'], 0)} %, "
                f"{example['meanings']:.1f} meanings"
            )
            pictures = [Picture(i["uri"], i["words"]) for i in example["images"]]
            rows.append((f"{name} ({group})", words, pictures))
    meanings = result["meanings"]
    like_chance = meanings["median"] >= _LIKE_CHANCE * meanings["chance"]
    bars = [
        Bar(f"{low:g} to {high:.0f}" if high != 1.5 else "1", count)
        for low, high, count in zip(_BINS[:-1], _BINS[1:], meanings["counts"], strict=True)
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
                bar_chart(bars, f"units of {meanings['units']:,}"),
                "Effective number of distinct phrases a unit.",
            ),
        ],
        claims=[
            Claim(
                "Units are polysemantic: most say several, often unrelated things.",
                None if like_chance else meanings["several"] > 0.5,
                f"{percent(meanings['several'])} % of the units have at least {_SEVERAL:g} "
                f"distinct meanings, the median is {meanings['median']:.1f}; phrases shuffled "
                f"among the units would have {meanings['chance']:.1f}"
                + (", so these units do not say anything yet." if like_chance else "."),
            )
        ],
    )


EXPERIMENT = Experiment("units", ("vit", "resnet"), (), measure, report)
