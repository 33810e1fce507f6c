"""The README's table: what was measured of the bundled models, from the files that hold it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from clipneurons.adversarial.cue_request import (
    NO_CUES,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
    SIMILAR_WORDS,
)
from clipneurons.bundle.config import METRICS, MODEL_CARD
from clipneurons.shipped import TOWERS
from export.common.numbers import percent, spread
from export.mend.mender import OURS, REAL
from research.concepts.recall import BY_PLACE
from research.labels.compare import DECOMPOSITION, DISSECT, NEAREST, SHUFFLED
from research.mending.benchmark import UNCHANGED, rivals
from research.papers.types import VERDICTS
from research.segmentation.methods import BLOCKS, OWN, PAIRS, VOTES
from research.segmentation.methods import OURS as ATTRIBUTION

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


@dataclass(frozen=True)
class Measured:
    """What is known of one bundled model.

    `card` holds its column of the evaluation in its model card, by row, in per cent; `metrics` its
    bundle's figures; `results` the report's experiments by name; `verdicts` how many of their
    claims there are of each kind.
    """

    card: Mapping[str, str]
    metrics: Mapping
    results: Mapping[str, Mapping]
    verdicts: Mapping[str, int]


Cell = Callable[[Measured], str | None]


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, each model's figure above its rivals', by which
    command (`python -m` is left out; the one above without)."""

    what: str
    cell: Cell
    command: str = ""


def table(measured: Sequence[Measured]) -> str:
    """Markdown: a column a model; a dash where a figure does not exist for a model."""
    lines = ["| | ViT | ResNet | `python -m ...` |", "|---|---|---|---|"]
    for row in ROWS:
        cells = [row.cell(one) or "–" for one in measured]
        command = f"`{row.command}`" if row.command else "the same"
        lines.append(f"| {row.what} | {' | '.join(cells)} | {command} |")
    return "\n".join(lines)


def load(
    artifacts: Path, report: Mapping, verdicts: Mapping[str, Mapping[str, int]]
) -> list[Measured]:
    """The bundled models' figures, with the report's results and its verdicts by model."""
    return [
        Measured(
            _column((artifacts / tower / MODEL_CARD).read_text(), tower),
            json.loads((artifacts / tower / METRICS).read_text()),
            {k: one["result"] for k, one in report["bundles"][tower]["experiments"].items()},
            verdicts[tower],
        )
        for tower in TOWERS
    ]


def _column(card: str, tower: str) -> dict[str, str]:
    """A model's column of the evaluation in a model card."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines()]
    head = next(row for row in rows if tower in row)
    return {row[0]: row[head.index(tower)] for row in rows if len(row) == len(head)}


# -- cells


def _top1(row: str) -> Cell:
    """The first figure of a card's row that begins so."""

    def cell(one: Measured) -> str:
        return _row(one, row).partition(" / ")[0] + " %"

    return cell


def _row(one: Measured, start: str) -> str:
    (found,) = (value for name, value in one.card.items() if re.match(start, name))
    return found


def _lost(one: Measured) -> str | None:
    """Of the accuracy on Caltech-101, on drawings: without the later half's effects."""
    photographs, drawings = (
        _row(one, rf"{name}.*: share of top-1 lost") for name in ("caltech-101", "openmoji")
    )
    if photographs == "–":
        return None
    return " and ".join(f"**{both.partition(' / ')[0]} %**" for both in (photographs, drawings))


def _labels(one: Measured) -> str:
    found = one.metrics["labels"]
    others, sure = one.metrics.get("label_comparison", {}).get("methods", {}), found["reliable"]
    low, high = found["interval"]
    lines = [
        f"**{found['simulation_score']:.3f}** ({low:.3f} to {high:.3f}); over the"
        f" {percent(sure['share'], 0)} % of reliable labels {sure['simulation_score']:.2f}"
    ]
    compared = (name for name in (DISSECT, NEAREST, DECOMPOSITION, SHUFFLED) if name in others)
    lines += [f"{name} {others[name]['simulation_score']:.3f}" for name in compared]
    return "<br>".join(lines)


def _concepts(one: Measured) -> str:
    found = one.metrics["concepts"]
    names = {
        "paper": "the paper's weights",
        "text_span": "TextSpan",
        "nearest_texts": "nearest texts, without neurons",
        "nearest_texts_in_windows": "the same in nine windows",
        "all_by_place": "by place, whoever wrote it",
    }
    recall, sure = found["recall_at_10"], found["interval_95"]
    rest = [f"{words} {percent(recall[key])}" for key, words in names.items() if key in recall]
    low, high = map(percent, found["ahead_of_nearest_texts_95"][BY_PLACE])
    ours = f"**{spread(recall[BY_PLACE], sure[BY_PLACE])}**, {low} to {high} ahead of nearest texts"
    return "<br>".join([ours, *rest])


def _segmentation(block: str) -> Cell:
    def cell(one: Measured) -> str:
        found = one.results["segmentation"]
        place = found["metrics"].index("mIoU")
        entries = found["blocks"][block]
        values = {name: method["values"][place] for name, method in entries.items()}
        ours = entries[ATTRIBUTION]
        paper = next(name for name in (PAIRS, VOTES) if name in values)
        rival = max(values.keys() - {*OWN}, key=values.__getitem__)
        return (
            f"**{values[ATTRIBUTION]:.1f}** ({ours['low'][place]:.1f} to {ours['high'][place]:.1f})"
            f"<br>{rival} {values[rival]:.1f}<br>the paper's: {paper} {values[paper]:.1f}"
        )

    return cell


def _semantic(block: str) -> Cell:
    def cell(one: Measured) -> str | None:
        if (found := one.results.get("semantic segmentation")) is None:
            return None
        entries = found["blocks"][block]
        low, high = entries[ATTRIBUTION]["interval"]
        return (
            f"**{entries[ATTRIBUTION]['mIoU']:.1f}** ({low:.1f} to {high:.1f})<br>"
            f"MaskCLIP {entries['MaskCLIP']['mIoU']:.1f}<br>the paper's: {PAIRS}"
            f" {entries[PAIRS]['mIoU']:.1f}"
        )

    return cell


def _success_rates(names: Mapping[str, str]) -> Cell:
    """A line a method: the share of pictograms and of photographs that it turns."""

    def cell(one: Measured) -> str:
        pictograms = one.results["adversarial"]
        measured = (pictograms["success"], pictograms["photographs"]["success"])
        return "<br>".join(
            f"{name}{' and '.join(percent(m['overall'][method]['mean']) for m in measured)}"
            for method, name in names.items()
        )

    return cell


def _shift(one: Measured) -> str:
    cells = one.metrics["shift"]["cells"]

    def noticed(how: str) -> str:
        shares = [percent(cells[name][how], 0) for name in _SHIFTS]
        return f"{', '.join(shares)} (no shift: {percent(cells['none 200'][how], 0)})"

    return f"**{noticed('ours')}**<br>MMD {noticed('MMD')}"


def _mending(one: Measured) -> str:
    rows = one.results["mending"]["rows"]
    worst = {
        name: mean(row["conditions"][name]["worst"] for row in rows)
        for name in rows[0]["conditions"]
    }
    best = max(rivals(worst), key=worst.__getitem__)
    return (
        f"{percent(worst[UNCHANGED])} → **{percent(worst[OURS])}** (made in the model itself"
        f" {percent(worst[REAL])})<br>the best control: {best} {percent(worst[best])}"
    )


def _claims(one: Measured) -> str:
    words = ("", " more by construction", " do not", " undecided")
    first, *others = [
        f"{one.verdicts[verdict]}{said}"
        for verdict, said in zip(VERDICTS, words, strict=True)
        if one.verdicts[verdict]
    ]
    return f"**{first}** of {sum(one.verdicts.values())}; {', '.join(others)}"


# -- rows

_SHIFTS = ("style 200", "background 200", "blur 200", "vehicles 200", "class:0.1 200",
           "mark:0.2 200", "mark:0.05 1000")  # fmt: skip
_NAMES = r".*photographs no training saw"
ROWS = (
    Row("names read rightly: photographs of CIFAR-10, ten names",
        _top1(f"cifar-10,{_NAMES}.*: top-1"), "research mini-clip evaluate --photographs FILE..."),
    Row("of Tiny-ImageNet, 200 names", _top1(f"tiny-imagenet,{_NAMES}.*: top-1")),
    Row("of things, flowers, scenes and textures, 29 names",
        _top1(rf"natural-images \+{_NAMES}.*: top-1")),
    Row("of Caltech-101, 94 names (these ship)", _top1(f"caltech-101,{_NAMES}.*: top-1"),
        "research mini-clip evaluate"),
    Row("drawings of openmoji, 396 names", _top1(r"openmoji.*396 concepts: top-1")),
    Row("share of that lost without the second-order effects of the later half of the layers, "
        "which the training asked for: Caltech-101, openmoji", _lost),
    Row("simulation score of labels of three texts (Pearson r, mean over units)", _labels,
        "export evaluate labels --bundle ..."),
    Row("concepts of scenes and photographs by what neurons write from each place, recall@10, %",
        _concepts, "research concepts --bundle ..."),
    *(
        Row(f"segmentation of scenes {block}, mIoU", _segmentation(block),
            "research papers --only segmentation")
        for block in BLOCKS
    ),
    *(
        Row(f"semantic segmentation of scenes {block}, 20 classes, mIoU", _semantic(block),
            "research papers --only semantic")
        for block in BLOCKS
    ),
    Row("images read as the target class with the paper's cues: pictograms and photographs, %",
        _success_rates({SECOND_ORDER: "", SIMILAR_WORDS: "similar words ", NO_CUES: "no cues "}),
        "research papers --only adversarial"),
    Row("the same with cues from recorded effects, which fool about as often as their control, %",
        _success_rates({
            RECORDED_EFFECTS: "", RECORDED_EMBEDDINGS: "same cue images, no neurons (control) ",
        })),
    Row("shifts in 200 images that are noticed: style, backgrounds, blur, 10 to 40 % vehicles, "
        "10 % of a new class, a mark on 20 %; a mark on 5 % of 1,000; %", _shift,
        "research shift --bundle ..."),
    Row("a misled classifier mended by ablating neurons, its worst group, %",
        _mending, "research papers --only mending"),
    Row("claims of the papers, and ours, that hold on these models", _claims, "research papers"),
)  # fmt: skip
