"""Semantic segmentation with a ResNet's neuron-head pairs (2509.19943, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clipneurons.segmentation.methods import BEST, PAIRS
from research.papers import published
from research.papers.charts import Bar, bar_chart
from research.papers.context import EvaluationContext
from research.papers.types import Claim, Experiment, Figure, Section, Table

METHODS = (PAIRS, BEST, "MaskCLIP", "attention", "GradCAM")
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
    figures = evaluation.measure_on(clip, validation, data, context.bundle, ",".join(METHODS))
    return {
        "data": data.name,
        "images": data.count,
        "classes": len(data.class_names),
        "methods": figures,
    }


def report(result: Mapping) -> Section:
    """Bars and the table, with the paper's two values beside ours."""
    methods = result["methods"]
    order = sorted(methods, key=lambda name: -methods[name]["mIoU"])
    bars = [
        Bar(
            name,
            methods[name]["mIoU"],
            methods[name]["interval"],
            0 if name in (BEST, PAIRS) else 1,
        )
        for name in order
    ]
    rows = [
        [
            name + {BEST: " (ours)", PAIRS: " (the paper's)"}.get(name, ""),
            _spread(methods[name]["mIoU"], methods[name]["interval"]),
            _spread(methods[name]["times MaskCLIP"], methods[name]["ratio interval"], 2)
            if "ratio interval" in methods[name]
            else "",
            f"{methods[name]['scale']:g}",
            str(published.RESNET_SEGMENTATION.get(name, "")),
        ]
        for name in order
    ]
    theirs = methods["MaskCLIP"]
    return Section(
        title="Semantic segmentation with neuron-head pairs",
        source="2509.19943, Section 4",
        text=f"Each position gets the best of {result['classes']} classes, or the background. The "
        "scale of the image, the number of pairs, the contrast of texts and the bound of the "
        "background are chosen on scenes in a style of their own, for every method alike.",
        parts=[
            Figure(bar_chart(bars, "mean IoU over classes, %"), "Mean IoU by method."),
            Table(
                f"{result['data']}, {result['images']} images, per cent with 95 % intervals; "
                "theirs: PASCAL Context, RN50x16.",
                ["method", "mIoU", "times MaskCLIP", "scale", "theirs"],
                rows,
            ),
        ],
        claims=[
            Claim(
                f"{words} segment better than MaskCLIP.",
                _holds(methods[name]["ratio interval"]),
                f"mIoU {_spread(methods[name]['mIoU'], methods[name]['interval'])} against "
                f"{_spread(theirs['mIoU'], theirs['interval'])}.",
            )
            for name, words in ((PAIRS, "The most aligned pairs"), (BEST, f"Our {BEST}"))
        ],
    )


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
