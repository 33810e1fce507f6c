"""`python -m research segmentation presence`: the line from which a name counts as found.

Every name that is in an image is asked for by itself, and so are two that are not: the nearest to
it by text, and one by chance. The line is the smallest at which at most 5 % of the latter are found
on validation scenes and on validation photographs; the figures are of held-out ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np

from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.presence import Line, presences
from research.segmentation.mask_datasets import COMPOSED, open_mask_set

FALSE_FINDS = 0.05
Scores = tuple[np.ndarray, np.ndarray]  # of names that are there, and of those that are not


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """The line, what it gives on held-out images, and on each kind of them, for `metrics.json`."""

    def scores_of(styles: str, seed: int) -> dict[str, Scores]:
        return {kind: ask(bundle, clip, kind, styles, args.images, seed) for kind in COMPOSED}

    line = max(line_at(absent) for _, absent in scores_of("validation", args.seed + 1).values())
    data = {kind: at_line(line, *one) for kind, one in scores_of("heldout", args.seed).items()}
    count = sum(row["names"] for row in data.values())
    return {
        "line": line,
        **{
            key: round(sum(row[key] * row["names"] for row in data.values()) / count, 4)
            for key in ("false_finds", "recall")
        },
        "data": data,
    }


def ask(bundle: Bundle, clip: ClipModel, kind: str, styles: str, count: int, seed: int) -> Scores:
    """Scores of the names that are in the images, and of twice as many that are not."""
    data = open_mask_set(kind, count=count, styles=styles, seed=seed, image_size=clip.image_size[0])
    names = sorted(set(data.class_names))
    embedded = clip.encode_text(names).cpu()
    likeness = embedded @ embedded.T
    generator = np.random.default_rng(seed)
    present, absent = [], []
    for sample in data:
        there = list(sample.masks)
        gone = [index for index, name in enumerate(names) if name not in there]
        for name in there:
            near = max(gone, key=likeness[names.index(name)].__getitem__)
            asked = [name, names[near], names[int(generator.choice(gone))]]
            found = presences(clip, sample.image, asked, bundle.text_embeddings)
            present.append(found[0].score)
            absent += [one.score for one in found[1:]]
    return np.array(present), np.array(absent)


def line_at(absent: np.ndarray) -> float:
    """The smallest score with two digits that at most 5 % of the names that are not there reach."""
    return float(np.ceil(100 * np.quantile(absent, 1 - FALSE_FINDS)) / 100)


def at_line(line: float, present: np.ndarray, absent: np.ndarray) -> dict:
    """Shares found at a line."""
    return {
        "names": len(present),
        "false_finds": round(float((absent >= line).mean()), 4),
        "recall": round(float((present >= line).mean()), 4),
    }


def in_words(figures: Mapping) -> str:
    """The figures in Markdown."""
    lines = [
        f"line {figures['line']:.2f} (standard deviations above the mean text; {Line().score} where"
        " a bundle has none), held-out images",
        "",
        "| data | names | found of what is there | false finds |",
        "| --- | --- | --- | --- |",
    ]
    for kind, row in figures["data"].items():
        lines.append(
            f"| {kind} | {row['names']} | {row['recall']:.1%} | {row['false_finds']:.1%} |"
        )
    return "\n".join(lines)
