"""Zero-shot segmentation by every method (Table 4), with examples."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from PIL import Image

from clipneurons.images.convert import to_rgb
from clipneurons.images.heatmap import mask_image, overlay
from clipneurons.segmentation.edges import follow_edges
from clipneurons.segmentation.segment import segment
from export.common.thumbnails import thumbnail
from research.papers import published
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Gallery, Picture, Section, Table
from research.segmentation.methods import OURS, OWN, PAIRS, VOTES, WITH, methods

_EXAMPLES = 4


def measure(context: EvaluationContext) -> dict:
    """The evaluation's figures, and some images with the maps of a few methods."""
    from export.evaluation.zero_shot import templates_of
    from research.segmentation import objects
    from research.segmentation.mask_datasets import COMPOSED, open_mask_set

    clip, options = context.clip, context.options
    size = max(clip.image_size)
    data = open_mask_set(options.masks, count=options.masked_images, image_size=size)
    templates = templates_of(data.class_names, clip, context.bundle)
    candidates = list(methods(clip, context.bundle.directions).values())
    validation = None
    if options.chosen_on and options.masks in COMPOSED:
        validation = open_mask_set(
            options.masks, count=options.chosen_on, styles="validation", seed=1, image_size=size
        )
    figures = objects.compare(clip, validation, data, candidates, templates)
    known = {method.name: method for method in candidates}
    others = known.keys() - {*OWN}
    entries = figures["blocks"][WITH]
    best = max(others, key=lambda name: entries[name]["values"][1])
    shown = [known[name] for name in (OURS, VOTES, best) if name in known]
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
        segmentation = segment(
            clip, image, [name],
            maps=lambda images, texts, method=method: follow_edges(
                clip, images, method.maps(images, texts)
            ),
            contrast=method.contrast, others=[n for n in names if n != name][:200],
            templates=templates,
        )  # fmt: skip
        pictures.append([method.name, thumbnail(overlay(image, segmentation.heat[0]))])
    return {"class": name, "pictures": pictures}


def _mask(mask) -> Image.Image:
    import torch

    return mask_image(torch.from_numpy(mask.astype(bool)))


def report(result: Mapping) -> Section:
    """For both blocks bars of mIoU and the table with the paper's values, and examples."""
    vit = result["kind"] == "vit"
    parts = []
    for block, entries in result["blocks"].items():
        parts += _block(block, entries, result, vit)
    if result["examples"]:
        parts.append(
            Gallery(
                "The first images, with the maps of some methods along the edges.",
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
        text="Patch attribution and the paper's neurons against other ways to localise a class. "
        "All methods are compared without and with the same edge refinement. Each has the same "
        f"number of tries on {result['validation images']} validation images in another style.",
        parts=parts,
        claims=[
            claim
            for block, entries in result["blocks"].items()
            for claim in _claims(block, entries)
        ],
    )


def _block(block: str, entries: Mapping, result: Mapping, vit: bool) -> list:
    order = sorted(entries, key=lambda name: -entries[name]["values"][1])
    papers = (VOTES,) if vit else (VOTES, PAIRS)
    rows, bars = [], []
    for name in order:
        entry = entries[name]
        cells = [
            f"{value:.1f} ({low:.1f} to {high:.1f})"
            for value, low, high in zip(entry["values"], entry["low"], entry["high"], strict=True)
        ]
        theirs = published.SEGMENTATION.get(name) if vit else None
        note = " (ours)" if name == OURS else " (the paper's)" if name in papers else ""
        rows.append(
            [
                name + note,
                *cells,
                "windows" if entry["windows"] else "whole",
                " / ".join(f"{v:g}" for v in theirs) if theirs else "",
                f"{1000 * entry['seconds']:.0f}",
            ]
        )
        bars.append(
            Bar(name, entry["values"][1], [entry["low"][1], entry["high"][1]],
                0 if name == OURS or name in papers else 1)
        )  # fmt: skip
    return [
        Figure(
            bar_chart(bars, "mean intersection over union, %"), f"mIoU by method, {block}."
        ),
        Table(
            f"{block.capitalize()}: {result['data']}, {result['images']} images, per cent with "
            "95 % intervals; theirs: ImageNet-Segmentation, pixel accuracy / mIoU / mAP.",
            ["method", *result["metrics"], "look", "theirs", "ms an image"],
            rows,
        ),
    ]  # fmt: skip


def _claims(block: str, entries: Mapping) -> list[Claim]:
    """Within a block, ours and the paper's against the best baseline, image by image."""
    others = {name: entry for name, entry in entries.items() if name not in OWN}
    if not others:
        return []
    best = max(others, key=lambda name: others[name]["values"][1])
    claims = []
    for name, words in (
        (VOTES, "The paper's neuron votes segment"),
        (PAIRS, "The paper's neuron-head pairs segment"),
        (OURS, "Our patch attribution segments"),
    ):
        if name not in entries:
            continue
        low, high = (others[best]["behind"][name][end][1] for end in ("low", "high"))
        value, rival = (entries[key]["values"][1] for key in (name, best))
        claims.append(
            Claim(
                f"{words} better than every baseline, {block}.",
                None if low <= 0 <= high else low > 0,
                f"mIoU {value:.1f} against {rival:.1f} for {best}: {low:.1f} to {high:.1f} ahead "
                "(95 %, paired).",
            )
        )
    return claims


EXPERIMENT = Experiment(
    "segmentation", ("vit", "resnet"), ("masks", "masked_images", "chosen_on"), measure, report
)
