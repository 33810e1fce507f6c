"""Concept discovery: what the activated units say of an image (Figure 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import mean, median

import torch

from clipneurons.concepts.concepts import ConceptReader, top_concepts
from clipneurons.lens.lens import Lens
from clipneurons.stats.intervals import wilson
from export.common.numbers import percent, spread
from export.common.thumbnails import thumbnail
from export.data.loader import read
from research.concepts.paper_weights import paper_weights
from research.concepts.recall import BY_PLACE, NEAREST, PAPER
from research.papers import published
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Gallery, Picture, Section, Table

_SHOWN, _NAMED = 6, 10
WEIGHTS = {
    PAPER: "w_j = Σ γ ‖φ‖ (the paper's)",
    BY_PLACE: "all effects, patch by patch (ours)",
    NEAREST: "nearest texts, without neurons",
}


def measure(context: EvaluationContext) -> dict:
    """Activated units an image, and how often the image's class is named, by weighting."""
    bundle = context.bundle
    reader = ConceptReader(Lens.of_bundle(context.clip, bundle), bundle)
    names = context.judged.class_names
    naming = [naming_texts(name, bundle.texts) for name in names]
    hits = dict.fromkeys(WEIGHTS, 0)
    activated, labelled, examples = [], 0, []
    for ids, images, labels in context.pass_over(context.judged, "concepts"):
        representation, effects = reader(images)
        activated += sum(e.activated.sum(1) for e in effects.values()).tolist()
        weights = {
            PAPER: paper_weights(bundle, effects),
            BY_PLACE: reader.weights(reader.written(effects)),
            NEAREST: reader.zero_shot(representation),
        }
        top = {k: w.topk(min(_NAMED, w.shape[1])).indices.tolist() for k, w in weights.items()}
        for row, label in enumerate(labels.tolist()):
            if len(examples) < _SHOWN:
                said = {k: top_concepts(w[row], bundle.texts, 6) for k, w in weights.items()}
                examples.append(_example(context, int(ids[row]), label, said, activated[row]))
            if label < 0 or not naming[label]:
                continue
            labelled += 1
            for kind, found in top.items():
                hits[kind] += bool(naming[label] & set(found[row]))
    values = torch.tensor(activated).float()
    return {
        "layers": list(bundle.config.layers),
        "images": context.judged.name,
        "count": len(activated),
        "activated": {
            "mean": mean(activated),
            "median": median(activated),
            "low": float(values.quantile(0.1)),
            "high": float(values.quantile(0.9)),
        },
        "units": sum(len(a.directions) for a in bundle.layers.values()),
        "labelled": labelled,
        "hits": hits,
        "chance": _chance(naming, len(bundle.texts)),
        "examples": examples,
    }


def naming_texts(name: str, texts: list[str]) -> set[int]:
    """Texts that contain a class's name as whole words."""
    whole = re.compile(rf"\b{re.escape(name.lower())}s?\b")
    return {i for i, text in enumerate(texts) if whole.search(text.lower())}


def _chance(naming: list[set[int]], texts: int) -> float:
    """Probability that a random choice of texts names a class, averaged over classes."""
    known = [len(found) for found in naming if found]
    return mean(1 - (1 - n / texts) ** _NAMED for n in known) if known else 0.0


def _example(
    context: EvaluationContext, index: int, label: int, said: Mapping, activated: int
) -> dict:
    picture = read(next(iter(context.judged.raws([index]))))
    return {
        "uri": thumbnail(picture.image),
        "class": context.judged.class_names[label] if label >= 0 else "",
        "said": {kind: [text for text, _ in found] for kind, found in said.items()},
        "activated": activated,
    }


def report(result: Mapping) -> Section:
    """Examples, numbers of activated units, and how often the class is among the concepts."""
    activated, labelled = result["activated"], result["labelled"]
    rows = [
        (
            f"{example['class'] or 'image'}: {example['activated']} units activated",
            " · ".join(f"{kind}: {', '.join(words)}" for kind, words in example["said"].items()),
            [Picture(example["uri"], example["class"])],
        )
        for example in result["examples"]
    ]
    rates = {
        kind: (hits / labelled, wilson(hits, labelled).interval) if labelled else (0.0, [0.0, 1.0])
        for kind, hits in result["hits"].items()
    }
    low, high = published.ACTIVATED
    paper, ours, plain = rates[PAPER], rates[BY_PLACE], rates[NEAREST]
    apart = ours[1][0] > plain[1][1] or ours[1][1] < plain[1][0]
    return Section(
        title="Concept discovery",
        source="2406.04341, Section 5 and Figure 7",
        text=f"The units of layers {', '.join(map(str, result['layers']))} whose centred effect "
        "exceeds its 98th percentile, and the texts they weigh most, for "
        f"{result['count']:,} images ({result['images']}).",
        parts=[
            Gallery("The first images, whatever came out.", rows),
            Table(
                "Units that an image activates.",
                ["", "ours", "theirs (examples)"],
                [
                    ["median", f"{activated['median']:g}", f"{low} to {high}"],
                    ["mean", f"{activated['mean']:.1f}", ""],
                    ["80 % of the images", f"{activated['low']:g} to {activated['high']:g}", ""],
                    ["of units in all", f"{result['units']:,}", ""],
                ],
            ),
            Table(
                f"Images whose class is named by one of the first {_NAMED} concepts, per cent of "
                f"{labelled:,}; by chance {percent(result['chance'])}.",
                ["weights", "named"],
                [[WEIGHTS[kind], spread(*rate) if labelled else "–"]
                 for kind, rate in rates.items()],
            ),
        ],
        claims=[
            Claim(
                "Activated neurons name what an image shows.",
                None if not labelled else paper[1][0] > result["chance"],
                f"The image's class is named in {percent(paper[0])} % against "
                f"{percent(result['chance'])} % by chance and {percent(plain[0])} % by the nearest "
                "texts.",
            ),
            Claim(
                "What neurons write from each place names more than the nearest texts do.",
                ours[0] > plain[0] if labelled and apart else None,
                f"The image's class is named in {spread(*ours)} % of the images, by the nearest "
                f"texts in {spread(*plain)} %.",
            ),
            Claim(
                f"An image activates few neurons ({low} to {high} in the paper's examples).",
                activated["median"] / result["units"] < 0.05,
                f"The median image activates {activated['median']:g} of {result['units']:,} units "
                f"({percent(activated['median'] / result['units'])} %).",
            ),
        ],
    )  # fmt: skip


EXPERIMENT = Experiment("concepts", ("vit", "resnet"), ("images", "statistics"), measure, report)
