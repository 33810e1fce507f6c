"""Semantic segmentation with a ResNet's neuron-head pairs (2509.19943, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from research.papers import published
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Section, Table
from research.segmentation.methods import OURS, PAIRS

METHODS = (OURS, PAIRS, "MaskCLIP", "attention", "GradCAM")
_CLASSES = 20


def measure(context: EvaluationContext) -> dict:
    """Mean IoU of a few methods, from the command's own code."""
    from research.segmentation import semantic as evaluation

    options, clip = context.options, context.clip
    size = max(clip.image_size)
    names = evaluation.drawn_classes(_CLASSES)
    validation = evaluation.scenes(names, options.chosen_on, "validation", size, 1)
    if options.semantic == "scenes":
        data = evaluation.scenes(names, options.masked_images, "heldout", size, 0)
    else:
        data = evaluation.folder(Path(options.semantic), options.masked_images)
    return evaluation.compare(clip, validation, data, context.bundle, ",".join(METHODS))


def report(result: Mapping) -> Section:
    """For both blocks bars and the table, with the paper's two values beside ours."""
    parts, claims = [], []
    for block, entries in result["blocks"].items():
        parts += _block(block, entries, result)
        theirs = entries["MaskCLIP"]
        claims += [
            Claim(
                f"{words} better than MaskCLIP, {block}.",
                _holds(entries[name]["times MaskCLIP"]["interval"]),
                f"mIoU {_spread(entries[name]['mIoU'], entries[name]['interval'])} against "
                f"{_spread(theirs['mIoU'], theirs['interval'])}.",
            )
            for name, words in (
                (PAIRS, "The most aligned pairs segment"), (OURS, "Our patch attribution segments")
            )
        ]  # fmt: skip
    return Section(
        title="Semantic segmentation with neuron-head pairs",
        source="2509.19943, Section 4",
        text=f"Each position gets the best of {result['classes']} classes, or the background. All "
        "methods are compared without and with the same edge refinement. Each has the same number "
        f"of tries on {result['validation images']} validation scenes in a style of their own.",
        parts=parts,
        claims=claims,
    )


def _block(block: str, entries: Mapping, result: Mapping) -> list:
    order = sorted(entries, key=lambda name: -entries[name]["mIoU"])
    bars = [
        Bar(name, entries[name]["mIoU"], entries[name]["interval"], int(name not in (OURS, PAIRS)))
        for name in order
    ]
    rows = []
    for name in order:
        entry = entries[name]
        times = entry.get("times MaskCLIP")
        rows.append(
            [
                name + {OURS: " (ours)", PAIRS: " (the paper's)"}.get(name, ""),
                _spread(entry["mIoU"], entry["interval"]),
                _spread(times["value"], times["interval"], 2) if times else "",
                f"{entry['scale']:g}",
                str(published.RESNET_SEGMENTATION.get(name, "")),
            ]
        )
    return [
        Figure(bar_chart(bars, "mean IoU over classes, %"), f"Mean IoU by method, {block}."),
        Table(
            f"{block.capitalize()}: {result['data']}, {result['images']} images, per cent with "
            "95 % intervals; theirs: PASCAL Context, RN50x16.",
            ["method", "mIoU", "times MaskCLIP", "scale", "theirs"],
            rows,
        ),
    ]


def _holds(ratio: list[float]) -> bool | None:
    """Whether a ratio's interval lies above 1; None where it holds 1."""
    low, high = ratio
    return None if low <= 1 <= high else low > 1


def _spread(value: float, interval: list[float], digits: int = 1) -> str:
    low, high = interval
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


EXPERIMENT = Experiment(
    "semantic segmentation",
    ("resnet",),
    ("semantic", "masked_images", "chosen_on"),
    measure,
    report,
)
