"""`python -m research segmentation objects`: every method on images whose masks are known.

Each method gets the best of four thresholds (the map's mean, as the baselines' papers have it, to
half, as the neurons' paper) and, where it reads the text, the class alone or held against all
names; what else it has to choose (`Segmenter.choices`) likewise. They are chosen on scenes of the
validation style, which the figures do not come from. All look once at the whole image; with
`--windows` once more in windows, chosen for anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from clipneurons.models.preprocess import whole
from clipneurons.segmentation.masks import binary_masks, min_max, upsample
from clipneurons.segmentation.methods import BEST, CLASS_AGNOSTIC, PAPER, why_not
from clipneurons.segmentation.metrics import (
    METRICS,
    MaskScore,
    bootstrap,
    by_image,
    interval,
    resamples,
    score_mask,
    summarise,
)
from clipneurons.segmentation.patch_similarity import follow_edges
from clipneurons.segmentation.segmenters import Segmenter, contrasted, segmenters
from clipneurons.segmentation.sliding_window import map_in_windows
from clipneurons.text.embedding import embed_texts
from export.common.errors import UserError
from research.segmentation.mask_datasets import COMPOSED, MaskSet, Sample, open_mask_set

# A map's own mean is the baselines' rule, half is the paper's; the others are between.
THRESHOLDS = (None, 0.3, 0.4, 0.5)
_SAMPLES = 1000
EDGES = " + edges"


@dataclass(frozen=True)
class Result:
    """Rows of counts ``[image, 8]`` of one method, and what an image took in seconds."""

    segmenter: Segmenter
    rows: np.ndarray
    seconds: float


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """Figures of all methods on the data set of the arguments, for `metrics.json`."""
    templates = args.templates or "photo"
    data = open_mask_set(
        args.dataset, count=args.count, styles=args.styles, seed=args.seed,
        image_size=clip.image_size[0], images=args.pictures, masks=args.masks,
    )  # fmt: skip
    chosen = pick(clip, segmenters(clip, bundle.directions), args.methods)
    if args.refined:
        chosen += [refined(clip, method) for method in chosen if method.name != BEST]

    def measured(windows: float | None) -> dict:
        methods = chosen
        if args.choose:
            validation = open_mask_set(
                args.dataset if args.dataset in COMPOSED else "scenes", count=args.choose,
                styles="validation", seed=args.seed + 1, image_size=clip.image_size[0],
            )  # fmt: skip
            methods = choose(clip, validation, chosen, templates, windows)
        return report(evaluate(clip, data, methods, templates, windows), data.name)

    figures = measured(None)
    if args.windows:
        figures["windows"] = {f"{windows:g}": measured(windows) for windows in args.windows}
    if args.report:
        Path(args.report).write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def pick(clip: ClipModel, known: dict[str, Segmenter], names: str | None) -> list[Segmenter]:
    """The methods that the user names, in the order of the table."""
    if names is None:
        return list(known.values())
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        if clip.kind == "vit":
            reason = why_not(unknown[0], clip.anatomy.pooling.kind, clip.anatomy.plain)
            if reason:
                raise UserError(f"{reason}; expected some of: {', '.join(known)}")
        raise UserError(f"no method {unknown[0]!r}; expected some of: {', '.join(known)}")
    return [known[name] for name in wanted]


def refined(clip: ClipModel, method: Segmenter) -> Segmenter:
    """The method with its maps brought to the image's edges, as our best does."""

    def make(images: Tensor, texts: Tensor, **chosen: float) -> Tensor:
        return follow_edges(clip, images, method.make(images, texts, **chosen))

    return replace(method, name=method.name + EDGES, make=make)


def choose(
    clip: ClipModel,
    validation: MaskSet,
    methods: list[Segmenter],
    templates: str,
    windows: float | None = None,
) -> list[Segmenter]:
    """Each method with the threshold, contrast and choices that give the best mIoU + mAP."""
    variants = [
        replace(method, contrast=contrast, threshold=threshold)
        for offered in methods
        for method in offered.variants()
        for contrast in ((method.contrast,) if _agnostic(method) else (False, True))
        for threshold in THRESHOLDS
    ]
    results = evaluate(clip, validation, variants, templates, windows)
    best = {}
    for result in results:
        score = summarise(result.rows)[1:].sum()
        if score > best.get(result.segmenter.name, (-1.0,))[0]:
            best[result.segmenter.name] = (score, result.segmenter)
    return [best[method.name][1] for method in methods]


def _agnostic(method: Segmenter) -> bool:
    return method.name.removesuffix(EDGES) in CLASS_AGNOSTIC


def evaluate(
    clip: ClipModel,
    data: MaskSet,
    methods: Iterable[Segmenter],
    templates: str,
    windows: float | None = None,
) -> list[Result]:
    """Run every method on every image and class of a data set, in `windows` where these are given:
    the image's shorter side is so many across."""
    methods = list(methods)
    names = list(data.class_names)
    embedded = embed_texts(clip, names, templates)
    place = {name: index for index, name in enumerate(names)}
    scores = [[] for _ in methods]
    seconds = np.zeros(len(methods))
    for sample in tqdm(data, data.name, data.count, disable=None):
        images = whole(clip, sample.image)
        wanted = [_row(clip, images, embedded, place, name) for name in sample.masks]
        texts = {False: embedded[wanted], True: contrasted(embedded[wanted], embedded)}
        made: dict[tuple[Callable, bool], Heat] = {}  # who differs in threshold alone shares a map
        for index, method in enumerate(methods):
            key = (method.make, method.contrast)
            if key not in made:
                start = time.perf_counter()
                mine = texts[method.contrast]
                if windows is None:
                    maps = method.make(images, mine)[0]
                else:
                    maps = map_in_windows(
                        lambda batch, method=method, mine=mine: method.make(batch, mine),
                        clip, sample.image, windows,
                    )  # fmt: skip
                seconds[index] += time.perf_counter() - start
                made[key] = _heat(maps, sample)
            scores[index].append(_scores(made[key], method.threshold, sample))
    return [
        Result(method, by_image(mine), float(spent) / data.count)
        for method, mine, spent in zip(methods, scores, seconds, strict=True)
    ]


Heat = tuple[Tensor, list[float | None]]


def _heat(maps: Tensor, sample: Sample) -> Heat:
    """Maps at the image's size in 0..1, and their average precisions, not yet known."""
    size = next(iter(sample.masks.values())).shape
    return min_max(upsample(maps.cpu(), size)), [None] * len(maps)


def _scores(heat: Heat, threshold: float | None, sample: Sample) -> list[MaskScore]:
    values, precisions = heat
    masks = binary_masks(values, threshold).numpy()
    found = []
    for index, truth in enumerate(sample.masks.values()):
        found.append(
            score_mask(values[index].numpy(), masks[index], truth, sample.valid, precisions[index])
        )
        precisions[index] = found[-1].precision
    return found


def _row(clip: ClipModel, images: Tensor, embedded: Tensor, place: dict, name: str | None) -> int:
    if name is None:
        return int((clip.encode_image(images) @ embedded.T).argmax())
    return place[name]


def report(results: list[Result], data: str) -> dict:
    """Figures of all methods with 95 % intervals, and paired differences from our best."""
    weights = resamples(len(results[0].rows), _SAMPLES)
    samples = {r.segmenter.name: bootstrap(r.rows, weights) for r in results}
    figures = {"data": data, "images": len(results[0].rows), "metrics": METRICS, "methods": {}}
    for result in results:
        name = result.segmenter.name
        low, high = interval(samples[name])
        entry = {
            "values": summarise(result.rows).round(2).tolist(),
            "low": low.round(2).tolist(),
            "high": high.round(2).tolist(),
            "seconds": round(result.seconds, 4),
            "threshold": "mean" if result.segmenter.threshold is None else
            result.segmenter.threshold,
            "contrast": result.segmenter.contrast,
            **result.segmenter.chosen,
        }  # fmt: skip
        if BEST in samples and name != BEST:
            behind = samples[BEST] - samples[name]
            low, high = interval(behind)
            entry["behind best"] = {"low": low.round(2).tolist(), "high": high.round(2).tolist()}
        figures["methods"][name] = entry
    return figures


def in_words(figures: dict) -> str:
    """The figures in Markdown; the interval is the larger side of the 95 % interval."""
    tables = [_table(figures, "one look")]
    for scale, mine in figures.get("windows", {}).items():
        tables.append(_table(mine, f"windows, {scale} across"))
    return "\n\n".join(tables)


def _table(figures: dict, look: str) -> str:
    lines = [
        f"{figures['data']}, {look}: {figures['images']} images, in percent, ± 95 % bootstrap "
        "interval",
        "",
        "| method | pixel accuracy | mIoU | mAP | best leads by (mIoU, mAP) | s / image |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in figures["methods"].items():
        cells = [
            f"{v:.1f} ± {max(v - low, high - v):.1f}"
            for v, low, high in zip(entry["values"], entry["low"], entry["high"], strict=True)
        ]
        behind = entry.get("behind best")
        lead = "" if behind is None else ", ".join(
            f"{behind['low'][i]:.1f} to {behind['high'][i]:.1f}" for i in (1, 2)
        )  # fmt: skip
        note = {BEST: " (ours)", PAPER: " (2406.04341)"}.get(name, "")
        settings = f"threshold {entry['threshold']}{', contrast' if entry['contrast'] else ''}"
        lines.append(
            f"| {name}{note}, {settings} | {' | '.join(cells)} | {lead} | {entry['seconds']:.4f} |"
        )
    return "\n".join(lines)
