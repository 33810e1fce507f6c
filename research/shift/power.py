"""`python -m research shift`: how often the shift tests see, and name, a planted change.

Every run draws two samples of the same size, of which the second has a known shift, and asks all
tests for a p-value; power is the share of runs with p at most 0.05. Without a shift it is the
rate of false alarms. A concept is named when it is among the first five words: of what the units
say (named), of the mean embedding, or of the closer look at the images that carry the change; the
last two are what the monitor shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import ClipModel
from clipneurons.shift.comparison import EmbeddedTextPool, compare, text_scores
from clipneurons.shift.localisation import examples, localise_change
from clipneurons.shift.profile import Profiler
from clipneurons.stats.two_sample import (
    classifier,
    mean_difference,
    mmd,
    p_values,
    permuted_labels,
)
from export.common.errors import UserError
from research.shift.scenes import (
    ANYWHERE,
    CLASS,
    MARK,
    SPOILT,
    Pools,
    Sample,
    draw,
    make_pools,
)

SHIFTS = (
    "none", "style", "background", *SPOILT, "vehicles", f"{CLASS}:0.1",
    *(f"{MARK}:{share}" for share in (0.01, 0.05, 0.2)), f"{ANYWHERE}:0.2",
)  # fmt: skip
NAMED = 5  # words among which a planted concept counts as named


@dataclass(frozen=True)
class PowerOptions:
    """How long to measure: runs a cell, images a side, usual scenes to draw from, concepts that
    are planted in turn, and permutations of a test."""

    runs: int = 40
    sizes: Sequence[int] = (50, 200, 1000)
    pool: int = 3000
    marks: int = 20
    permutations: int = 200


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """Power and naming rates with the arguments' options, for `metrics.json`."""
    chosen = (getattr(args, option.name) for option in fields(PowerOptions))
    return measure_on(bundle, clip, PowerOptions(*chosen))


def in_words(figures: dict) -> str:
    """The table, by shift and size."""
    return table(figures["cells"])


def measure_on(bundle: Bundle, clip: ClipModel, options: PowerOptions) -> dict:
    """Power of each test and naming rate of each reading, by shift and size."""
    if min(options.sizes) < 2:
        raise UserError("--shift-sizes: expected at least two images a side")
    if options.pool < 2 * max(options.sizes) or options.pool < 24:
        raise UserError(
            f"--shift-pool {options.pool}: expected at least 24 scenes, and twice the largest "
            f"of --shift-sizes, {2 * max(options.sizes)}"
        )
    profiler = Profiler(make_lens(clip, bundle.config.layers), bundle)
    pool = EmbeddedTextPool.of(bundle)
    concepts = _planted(bundle, options.marks)
    pools = _pools(clip, profiler, concepts, options)
    table = {}
    for size in options.sizes:
        for shift in SHIFTS:
            # False alarms have to be known better than power.
            runs = options.runs * (3 if shift == "none" and size < 1000 else 1)
            if size >= 1000:
                runs = max(runs // 2, 1)
            rows = [
                _run(clip, pools, pool, shift, size, run, options.permutations)
                for run in tqdm(range(runs), f"{shift} {size}", leave=False, disable=None)
            ]
            table[f"{shift} {size}"] = _summary(rows)
    return {"planted": concepts, "cells": table}


def _planted(bundle: Bundle, count: int) -> list[str]:
    """Concepts of the pack that the bundle has a word for, chosen by chance."""
    from clipneurons.synthetic.pictograms import load_pictograms

    known = [c for c in load_pictograms().concepts if any(_says(t, c) for t in bundle.texts)]
    # Nearly all others than the ten that the closer look's settings were found on (seed 0).
    chosen = np.random.default_rng(1).permutation(len(known))[:count]
    return [known[i] for i in chosen]


def _pools(clip, profiler, concepts, options) -> Pools:
    with tqdm(desc="scenes", unit=" images", disable=None) as bar:
        return make_pools(clip, profiler, concepts, options.pool, progress=bar.update)


def _run(
    clip: ClipModel,
    pools: Pools,
    pool: EmbeddedTextPool,
    shift: str,
    size: int,
    run: int,
    permutations: int,
) -> dict[str, float]:
    sample = draw(pools, shift, size, np.random.default_rng([run, size]), run)
    reference, new = sample.reference.profile, sample.new.profile
    ours = compare(reference, new, pool, permutations, seed=run)
    embeddings = torch.cat([reference.embeddings, new.embeddings])
    labels = permuted_labels(size, len(new), permutations, run)
    row = {"ours": ours.p} | {f"ours {name}": p for name, p in ours.tests.items()}
    row["embedding mean"] = p_values(mean_difference(embeddings, labels))[0].item()
    row["MMD"] = p_values(mmd(embeddings, labels))[0].item()
    row["classifier"] = p_values(classifier(embeddings, labels, run))[0].item()
    if sample.words:
        said = torch.cat([reference.reconstruction, new.reconstruction])
        units = text_scores(said, labels[:1], pool.centred)[0].topk(NAMED).indices.tolist()
        row["named"] = _named([pool.texts[i] for i in units], sample)
        row["named by mean embedding"] = _named([t for t, _ in ours.more.top(NAMED)], sample)
        place = localise_change(
            clip,
            sample.reference.pictures(examples(size)),
            sample.new.pictures(ours.top_carriers()),
            pool,
        )
        words = place.words.top(NAMED) if place else ()
        row["named by localisation"] = _named([t for t, _ in words], sample)
    return row


def _named(texts: list[str], sample: Sample) -> bool:
    return any(_says(text, word) for text in texts for word in sample.words)


def _says(text: str, word: str) -> bool:
    """Whether the text has the word, as "a red car" has "car" (and "scarf" has not)."""
    return f" {word} " in f" {text} "


def _summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Rates of rejection at 0.05, and of naming, over runs."""
    result = {"runs": len(rows)}
    for name in rows[0]:
        values = [row[name] for row in rows]
        hits = values if name.startswith("named") else [p <= 0.05 for p in values]
        result[name] = round(float(np.mean(hits)), 3)
    if "named" in rows[0]:
        found = [row["named by localisation"] for row in rows if row["ours"] <= 0.05]
        result["localisation where detected"] = round(float(np.mean(found)), 3) if found else None
    return result


def table(cells: dict[str, dict]) -> str:
    """The cells as a Markdown table."""
    columns = list(max(cells.values(), key=len))
    lines = [f"| shift, images | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, cell in cells.items():
        values = " | ".join("" if cell.get(c) is None else f"{cell[c]:g}" for c in columns)
        lines.append(f"| {name} | {values} |")
    return "\n".join(lines)
