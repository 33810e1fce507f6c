"""`python -m research segmentation objects`: one text an image, the mask of its object.

All methods are compared twice: as they are, and with the same edge refinement (`follow_edges`).
Each has 48 tries on validation images (`methods.tries`): its own settings, the class alone or held
against all names, and the threshold, of which None is the map's mean (the baselines' papers) and
0.5 the neurons' paper's. Then it takes one look at the whole image, or windows, whichever is
better on the same images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from clipneurons.models.preprocess import whole
from clipneurons.segmentation.edges import follow_edges
from clipneurons.segmentation.masks import THRESHOLD, min_max, upsample
from clipneurons.segmentation.sliding_window import map_in_windows
from clipneurons.text.embedding import embed_texts
from research.segmentation.mask_datasets import COMPOSED, MaskSet, Sample, open_mask_set
from research.segmentation.methods import BLOCKS, OURS, PAIRS, VOTES, Method, Variant, methods, pick
from research.segmentation.metrics import (
    METRICS,
    MaskScore,
    bootstrap,
    by_image,
    interval,
    resamples,
    score_mask,
    summarise,
)

# Methods that a claim is about: held against every other one of their block, image by image.
CLAIMANTS = (OURS, VOTES, PAIRS)
WINDOWS = 1.5  # across an image's shorter side, as SCLIP and its successors cut them
_THRESHOLDS = 4  # of a method with six settings of its own that reads the text
_SAMPLES = 1000


@dataclass(frozen=True)
class Trial:
    """A variant of a method and how its maps become a mask; ``windows`` None is one look."""

    variant: Variant
    edges: bool = False
    threshold: float | None = THRESHOLD
    windows: float | None = None

    @property
    def name(self) -> str:
        """The method's."""
        return self.variant.method.name

    def figures(self) -> dict:
        """What was chosen, for a report."""
        return {
            "threshold": "mean" if self.threshold is None else round(self.threshold, 3),
            "windows": self.windows,
            **self.variant.figures(),
        }


@dataclass(frozen=True)
class Result:
    """Rows of counts ``[image, 8]`` of one trial, and what an image took in seconds."""

    trial: Trial
    rows: np.ndarray
    seconds: float


def thresholds(count: int) -> tuple[float | None, ...]:
    """The map's mean, and values around 0.4, the more the further."""
    reach = 0.1 if count <= _THRESHOLDS else 0.3
    return None, *np.linspace(0.4 - reach, 0.4 + reach, count - 1).tolist()


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """Figures of all methods on the data set of the arguments, for `metrics.json`."""
    templates = args.templates or "photo"
    size = clip.image_size[0]
    data = open_mask_set(
        args.dataset, count=args.count, styles=args.styles, seed=args.seed, image_size=size,
        images=args.pictures, masks=args.masks,
    )  # fmt: skip
    validation = open_mask_set(
        args.dataset if args.dataset in COMPOSED else "scenes", count=args.choose,
        styles="validation", seed=args.seed + 1, image_size=size,
    ) if args.choose else None  # fmt: skip
    chosen = pick(clip, methods(clip, bundle.directions), args.methods)
    figures = compare(clip, validation, data, chosen, templates)
    if args.report:
        Path(args.report).write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def compare(
    clip: ClipModel,
    validation: MaskSet[Sample] | None,
    data: MaskSet[Sample],
    candidates: Sequence[Method],
    templates: str,
) -> dict:
    """Both blocks: what is chosen on the validation data, and the figures on the data.

    Without validation data every method keeps its defaults.
    """
    trials = (
        [
            Trial(Variant(method, method.contrast), edges)
            for edges in BLOCKS.values()
            for method in candidates
        ]
        if validation is None
        else choose(clip, validation, candidates, templates)
    )
    figures = report(evaluate(clip, data, trials, templates), data.name)
    return figures | {"validation images": validation.count if validation else 0}


def choose(
    clip: ClipModel, validation: MaskSet[Sample], candidates: Sequence[Method], templates: str
) -> list[Trial]:
    """In each block each method's trial with the largest mIoU + mAP."""
    tried = [
        Trial(variant, edges, threshold)
        for method in candidates
        for variant in method.variants()
        for edges in BLOCKS.values()
        for threshold in thresholds(method.tries(_THRESHOLDS))
    ]
    best = _best(evaluate(clip, validation, tried, templates))
    tried = [
        replace(trial, windows=windows, threshold=threshold)
        for trial in best
        for windows in (None, WINDOWS)
        for threshold in (trial.threshold, *thresholds(_THRESHOLDS))
    ]
    return _best(evaluate(clip, validation, tried, templates))


def _best(results: Iterable[Result]) -> list[Trial]:
    """Of each block and method the best trial, in the order of the blocks."""
    best: dict[tuple, tuple[float, Trial]] = {}
    for result in results:
        score = float(summarise(result.rows)[1:].sum())
        key = (result.trial.edges, result.trial.name)
        if key not in best or score > best[key][0]:
            best[key] = (score, result.trial)
    return [trial for _, trial in sorted(best.values(), key=lambda pair: pair[1].edges)]


def evaluate(
    clip: ClipModel, data: MaskSet[Sample], trials: Sequence[Trial], templates: str
) -> list[Result]:
    """Every trial on every image and class of a data set; equal maps are made once."""
    names = list(data.class_names)
    embedded = embed_texts(clip, names, templates)
    place = {name: index for index, name in enumerate(names)}
    scores: list[list[list[MaskScore]]] = [[] for _ in trials]
    seconds = np.zeros(len(trials))
    groups: dict[tuple, list[int]] = {}  # trials that differ in edges and threshold alone
    for index, trial in enumerate(trials):
        groups.setdefault((trial.windows, *trial.variant.key), []).append(index)
    for sample in tqdm(data, data.name, data.count, disable=None, leave=False):
        images = whole(clip, sample.image)
        wanted = [_row(clip, images, embedded, place, name) for name in sample.masks]
        texts = embedded[wanted]
        for group in groups.values():
            start = time.perf_counter()
            blocks = _maps(clip, sample, images, trials[group[0]], texts, embedded)
            seconds[group] += time.perf_counter() - start
            for edges, maps in blocks.items():
                block = [index for index in group if trials[index].edges == edges]
                limits = [trials[index].threshold for index in block]
                for index, of_image in zip(block, _scores(maps, limits, sample), strict=True):
                    scores[index].append(of_image)
    return [
        Result(trial, by_image(images), float(spent) / data.count)
        for trial, images, spent in zip(trials, scores, seconds, strict=True)
    ]


def _maps(
    clip: ClipModel, sample: Sample, images: Tensor, trial: Trial, texts: Tensor, others: Tensor
) -> dict[bool, Tensor]:
    """Maps of one image without and with edges, whichever the trial has itself."""

    def both(batch: Tensor) -> Tensor:
        plain = trial.variant.maps(batch, texts, others)
        edges = follow_edges(clip, batch, plain)
        return torch.cat([upsample(plain, edges.shape[-2:]), edges], 1)

    if trial.windows is None:
        maps = both(images)[0]
    else:
        maps = map_in_windows(both, clip, sample.image, trial.windows)
    return dict(zip(BLOCKS.values(), maps.chunk(2), strict=True))


def _scores(maps: Tensor, limits: Sequence[float | None], sample: Sample) -> list[list[MaskScore]]:
    """By threshold, the scores of each class of the image."""
    if not limits:
        return []
    size = next(iter(sample.masks.values())).shape
    heat = min_max(upsample(maps.cpu(), size)).numpy()
    by_class = [
        score_mask(mine, truth, limits, sample.valid)
        for mine, truth in zip(heat, sample.masks.values(), strict=True)
    ]
    return [list(scores) for scores in zip(*by_class, strict=True)]


def _row(clip: ClipModel, images: Tensor, embedded: Tensor, place: dict, name: str | None) -> int:
    if name is None:
        return int((clip.encode_image(images) @ embedded.T).argmax())
    return place[name]


def report(results: Sequence[Result], data: str) -> dict:
    """Figures by block and method with 95 % intervals, and how far each is behind the claimants."""
    weights = resamples(len(results[0].rows), _SAMPLES)
    figures = {"data": data, "images": len(results[0].rows), "metrics": METRICS, "blocks": {}}
    for block, edges in BLOCKS.items():
        mine = [result for result in results if result.trial.edges == edges]
        samples = {result.trial.name: bootstrap(result.rows, weights) for result in mine}
        entries = {}
        for result in mine:
            name = result.trial.name
            low, high = interval(samples[name])
            entries[name] = {
                "values": summarise(result.rows).round(2).tolist(),
                "low": low.round(2).tolist(),
                "high": high.round(2).tolist(),
                "seconds": round(result.seconds, 4),
                **result.trial.figures(),
            }
            entries[name]["behind"] = {
                claimant: dict(
                    zip(
                        ("low", "high"),
                        interval(samples[claimant] - samples[name]).round(2).tolist(),
                        strict=True,
                    )
                )
                for claimant in CLAIMANTS
                if claimant in samples and claimant != name
            }
        figures["blocks"][block] = entries
    return figures


def in_words(figures: dict) -> str:
    """The figures in Markdown, a table a block."""
    head = (
        f"{figures['data']}: {figures['images']} images, settings chosen on "
        f"{figures['validation images']}; per cent with 95 % bootstrap intervals"
    )
    return "\n\n".join([head, *(_table(*block) for block in figures["blocks"].items())])


def _table(block: str, entries: dict) -> str:
    lines = [
        f"| {block} | pixel accuracy | mIoU | mAP | ours ahead (mIoU) | chosen | s / image |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in sorted(entries.items(), key=lambda item: -item[1]["values"][1]):
        cells = [
            f"{value:.1f} ({low:.1f} to {high:.1f})"
            for value, low, high in zip(entry["values"], entry["low"], entry["high"], strict=True)
        ]
        ahead = entry["behind"].get(OURS)
        lead = "" if ahead is None else f"{ahead['low'][1]:.1f} to {ahead['high'][1]:.1f}"
        known = {"values", "low", "high", "seconds", "behind"}
        chosen = ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in entry.items()
            if key not in known and value not in (None, False)
        )
        note = {OURS: " (ours)", VOTES: " (2406.04341)", PAIRS: " (2509.19943)"}.get(name, "")
        lines.append(
            f"| {name}{note} | {' | '.join(cells)} | {lead} | {chosen} | {entry['seconds']:.4f} |"
        )
    return "\n".join(lines)
