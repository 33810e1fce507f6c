"""Zero-shot segmentation by every method (Table 4), with examples."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from PIL import Image

from clipneurons.images.convert import to_rgb
from clipneurons.images.heatmap import mask_image, overlay
from clipneurons.segmentation.methods import BEST, OWN, PAPER
from clipneurons.segmentation.segmenters import segment, segmenters
from export.common.thumbnails import thumbnail
from research.papers import published
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Gallery, Picture, Section, Table

_EXAMPLES = 4


def measure(context: EvaluationContext) -> dict:
    """The evaluation's figures, and some images with the maps of a few methods."""
    from export.evaluation.zero_shot import templates_of
    from research.segmentation import objects as evaluation
    from research.segmentation.mask_datasets import COMPOSED, open_mask_set

    clip, options = context.clip, context.options
    size = max(clip.image_size)
    data = open_mask_set(options.masks, count=options.masked_images, image_size=size)
    templates = templates_of(data.class_names, clip, context.bundle)
    methods = list(segmenters(clip, context.bundle.directions).values())
    if options.chosen_on and options.masks in COMPOSED:
        trained = open_mask_set(
            options.masks, count=options.chosen_on, styles="validation", seed=1, image_size=size
        )
        methods = evaluation.choose(clip, trained, methods, templates)
    results = evaluation.evaluate(clip, data, methods, templates)
    figures = evaluation.report(results, data.name)
    by_quality = sorted(figures["methods"], key=lambda name: -figures["methods"][name]["values"][1])
    shown = list(dict.fromkeys([BEST, PAPER, *(n for n in by_quality if n not in (BEST, PAPER))]))
    by_name = {method.name: method for method in methods}
    shown = [by_name[name] for name in shown if name in by_name][:3]
    figures["examples"] = [
        example
        for sample in islice(data, _EXAMPLES)
        if (example := _example(clip, sample, shown, data.class_names, templates))
    ]
    figures["kind"] = clip.kind
    return figures


def _example(clip, sample, methods, names, templates) -> dict | None:
    name, mask = next(iter(sample.masks.items()), (None, None))
    if name is None:  # the class that the model predicts: not shown
        return None
    image = to_rgb(sample.image)
    pictures = [["image", thumbnail(image)], ["true mask", thumbnail(_mask(mask))]]
    for method in methods:
        found = segment(
            clip, image, [name], method, others=[n for n in names if n != name][:200],
            templates=templates,
        )  # fmt: skip
        pictures.append([method.name, thumbnail(overlay(image, found.heat[0]))])
    return {"class": name, "pictures": pictures}


def _mask(mask) -> Image.Image:
    import torch

    return mask_image(torch.from_numpy(mask.astype(bool)))


def report(result: Mapping) -> Section:
    """The table with the paper's values, bars of mIoU, and examples."""
    methods, vit = result["methods"], result["kind"] == "vit"
    order = sorted(methods, key=lambda name: -methods[name]["values"][1])
    rows, bars = [], []
    for name in order:
        entry = methods[name]
        cells = [
            f"{value:.1f} ({low:.1f} to {high:.1f})"
            for value, low, high in zip(entry["values"], entry["low"], entry["high"], strict=True)
        ]
        theirs = published.SEGMENTATION.get(name) if vit else None
        rows.append(
            [
                name + {BEST: " (ours)", PAPER: " (the paper's)"}.get(name, ""),
                *cells,
                " / ".join(f"{v:g}" for v in theirs) if theirs else "",
                f"{1000 * entry['seconds']:.0f}",
            ]
        )
        bars.append(
            Bar(name, entry["values"][1], [entry["low"][1], entry["high"][1]],
                0 if name in (BEST, PAPER) else 1)
        )  # fmt: skip
    parts = [
        Figure(bar_chart(bars, "mean intersection over union, %"), "mIoU by method."),
        Table(
            f"{result['data']}, {result['images']} images, per cent with 95 % intervals; theirs: "
            "ImageNet-Segmentation, pixel accuracy / mIoU / mAP.",
            ["method", *result["metrics"], "theirs", "ms an image"],
            rows,
        ),
    ]
    if result["examples"]:
        parts.append(
            Gallery(
                "The first images, with the maps of some methods.",
                [
                    (example["class"], "", [Picture(uri, words) for words, uri in
                                            example["pictures"]])
                    for example in result["examples"]
                ],
            )
        )  # fmt: skip
    return Section(
        title="Zero-shot segmentation",
        source="2406.04341, Section 5.3, Table 4 and Figure 8" if vit else "2509.19943, Section 4",
        text="Where the neurons speak for a class, against other ways to localise it; thresholds "
        "are chosen on scenes in a style of their own.",
        parts=parts,
        claims=_claims(methods),
    )


def _claims(methods: Mapping) -> list[Claim]:
    others = {n: m for n, m in methods.items() if n not in OWN}
    if not others or PAPER not in methods:
        return []
    best = max(others, key=lambda name: others[name]["values"][1])
    theirs = others[best]
    found = []
    for name, words in ((PAPER, "The paper's neuron votes"), (BEST, f"Our {BEST}")):
        if name not in methods:
            continue
        mine = methods[name]
        lead = mine["values"][1] - theirs["values"][1]
        overlap = mine["low"][1] <= theirs["high"][1] and theirs["low"][1] <= mine["high"][1]
        found.append(
            Claim(
                f"{words} segment better than every baseline.",
                None if overlap else lead > 0,
                f"mIoU {mine['values'][1]:.1f} ({mine['low'][1]:.1f} to {mine['high'][1]:.1f}) "
                f"against {theirs['values'][1]:.1f} ({theirs['low'][1]:.1f} to "
                f"{theirs['high'][1]:.1f}) for {best}.",
            )
        )
    return found


EXPERIMENT = Experiment(
    "segmentation", ("vit", "resnet"), ("masks", "masked_images", "chosen_on"), measure, report
)
