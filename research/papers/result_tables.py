"""Tables of what was measured of the two bundled models, one number a cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from clipneurons.adversarial.cue_request import METHODS
from export.common.numbers import percent
from export.mend.mender import OURS, REAL
from research.concepts.recall import BY_PLACE
from research.labels.compare import OURS as OUR_LABELS
from research.labels.compare import WHOLE
from research.mending.benchmark import UNCHANGED
from research.papers.types import VERDICTS
from research.segmentation.methods import BLOCKS, PAIRS, VOTES, WITHOUT
from research.segmentation.methods import OURS as ATTRIBUTION

NONE = "–"
_MODELS = ("ViT", "ResNet")
# Rows of the model cards' evaluation: what the images are, how many classes, how the row begins.
_HELD_OUT = r".*photographs no training saw"
_ACCURACY = (
    ("photographs of Caltech-101 (these ship)", 94, f"caltech-101,{_HELD_OUT}.*: top-1 /"),
    ("photographs of CIFAR-10", 10, rf"cifar-10,{_HELD_OUT}.*: top-1 /"),
    ("photographs of Tiny-ImageNet", 200, rf"tiny-imagenet,{_HELD_OUT}.*: top-1 /"),
    ("photographs of objects, flowers, scenes and textures", 29,
     rf"natural-images \+{_HELD_OUT}.*: top-1 /"),
    ("pictograms of OpenMoji", 396, r"openmoji.*396 concepts: top-1 /"),
)  # fmt: skip
_CONCEPTS = {
    BY_PLACE: "**effects by patch (ours)**",
    "all_by_place": "all contributions by patch",
    "nearest_texts": "nearest texts",
    "nearest_texts_in_windows": "nearest texts in nine windows",
    "paper": "the paper's weights",
    "text_span": "TextSpan",
}
_SHIFTS = {
    "none": "none (false alarms)", "style": "drawing style", "background": "backgrounds",
    "brightness": "a fifth darker", "blur": "blur", "jpeg": "JPEG",
    "vehicles": "vehicles from 10 to 40 %", "class:0.1": "new class on 10 %",
    "mark:0.01": "mark on 1 %", "mark:0.05": "mark on 5 %", "mark:0.2": "mark on 20 %",
    "mark anywhere:0.2": "mark anywhere on 20 %",
}  # fmt: skip
_TESTS = {"ours": "**ours**", "ours without MMD": "ours without MMD", "MMD": "MMD",
          "embedding mean": "mean embedding", "classifier": "classifier"}  # fmt: skip
_NAMINGS = {"named": "units", "named by mean embedding": "mean embedding",
            "named by localisation": "localised crop"}  # fmt: skip
_CONDITIONS = {UNCHANGED: "unchanged", OURS: "**ours**, sum of effects",
               REAL: "**ours**, in the model"}  # fmt: skip


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


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table whose first columns are texts, the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def summary(models: Sequence[Measured]) -> str:
    """The rows of the README, each with its command."""
    rows: list[tuple[str, str, Callable[[Measured], str]]] = [
        ("zero-shot top-1 accuracy, 94 classes of Caltech-101, %",
         "research mini-clip evaluate", lambda one: _top1(one, _ACCURACY[0][2])),
        ("simulation score of labels (Pearson r)",
         "export evaluate labels", lambda one: f"{one.metrics['labels']['simulation_score']:.3f}"),
        ("concepts of an image, recall@10, %", "research concepts",
         lambda one: percent(one.metrics["concepts"]["recall_at_10"][BY_PLACE])),
        ("segmentation of scenes without edge refinement, mIoU",
         "research papers --only segmentation",
         lambda one: _mean_iou(one.results["segmentation"], WITHOUT)),
        ("worst-group accuracy after ablation, %", "research mending",
         lambda one: _accuracies(one)[REAL][0]),
    ]  # fmt: skip
    return markdown(
        ("measure", "`python -m ...`", *_MODELS),
        ((what, f"`{command}`", *map(cell, models)) for what, command, cell in rows),
        texts=2,
    )


def accuracy(models: Sequence[Measured]) -> str:
    """Zero-shot top-1 accuracy, %."""
    return markdown(
        ("images", "classes", *_MODELS),
        ((what, str(n), *(_top1(one, row) for one in models)) for what, n, row in _ACCURACY),
    )


def labels(models: Sequence[Measured]) -> str:
    """Simulation scores of labels of three texts and of baselines."""
    by_model = [
        {OUR_LABELS: one.metrics["labels"]}
        | {
            name: figures
            for name, figures in one.metrics.get("label_comparison", {}).get("methods", {}).items()
            if name not in (OUR_LABELS, WHOLE)
        }
        for one in models
    ]
    rows = []
    for model, methods in zip(_MODELS, by_model, strict=True):
        for name, figures in sorted(methods.items(), key=lambda m: -m[1]["simulation_score"]):
            shown = f"**{name}**" if name == OUR_LABELS else name
            score = (f"{v:.3f}" for v in (figures["simulation_score"], *figures["interval"]))
            rows.append((shown, model, *score, percent(figures["reliable_share"], 0)))
    return markdown(("labels", "model", "r", "low", "high", "reliable, %"), rows, texts=2)


def cosy(models: Sequence[Measured]) -> str:
    """CoSy's AUC and MAD of labels, and the share of units whose label can be drawn."""
    by_model = [
        {
            name: figures["cosy"]
            for name, figures in one.metrics.get("label_comparison", {}).get("methods", {}).items()
            if "cosy" in figures and name != WHOLE  # its first text is that of the cut one
        }
        for one in models
    ]
    known = {
        name: figures["auc"] for methods in by_model[::-1] for name, figures in methods.items()
    }
    if not known:
        return "Not measured: `python -m research labels --bundle FOLDER` does."
    rows = []
    for name in sorted(known, key=lambda name: -known[name]):
        cells = [f"**{name}**" if name == OUR_LABELS else name]
        for methods in by_model:
            figures = methods.get(name)
            cells += (
                [*(f"{v:.3f}" for v in (figures["auc"], *figures["auc_interval"])),
                 f"{figures['mad']:.2f}", percent(figures["measured_share"], 0)]
                if figures else [NONE] * 5
            )  # fmt: skip
        rows.append(cells)
    head = [f"{model}: {c}" for model in _MODELS for c in ("AUC", "low", "high", "MAD", "drawn, %")]
    return markdown(("labels", *head), rows)


def concepts(models: Sequence[Measured]) -> str:
    """Recall at ten texts, %, of all images and by set."""
    rows = []
    for model, one in zip(_MODELS, models, strict=True):
        figures = one.metrics["concepts"]
        for key, name in _CONCEPTS.items():
            if key in figures["recall_at_10"]:
                sets = (figures["sets"][s]["recall_at_10"][key] for s in ("scenes", "photographs"))
                recall = (figures["recall_at_10"][key], *figures["interval_95"][key], *sets)
                rows.append((name, model, *map(percent, recall)))
    head = ("concepts from", "model", "all", "low", "high", "scenes", "photographs")
    return markdown(head, rows, texts=2)


def segmentation(models: Sequence[Measured]) -> str:
    """mIoU of every method, a table a model and block; by how much ours is ahead."""
    return _captioned(
        (f"{model}, {block}", _objects(one.results["segmentation"], block))
        for model, one in zip(_MODELS, models, strict=True)
        for block in BLOCKS
    )


def semantic(models: Sequence[Measured]) -> str:
    """mIoU over 20 classes, a table a block, of the models that were measured."""
    return _captioned(
        (f"{model}, {block}", _classes(one.results["semantic segmentation"]["blocks"][block]))
        for model, one in zip(_MODELS, models, strict=True)
        if "semantic segmentation" in one.results
        for block in BLOCKS
    )


def presence(models: Sequence[Measured]) -> str:
    """The line of each model; texts found and false finds, %."""
    measured = [one.metrics["presence"] for one in models]
    rows = [("line, standard deviations", *(f"{figures['line']:.2f}" for figures in measured))]
    rows += [
        (f"{images}: {what}, %", *(percent(figures["data"][images][key]) for figures in measured))
        for images in measured[0]["data"]
        for what, key in (("found, of texts that are shown", "recall"),
                          ("false finds, of texts that are not shown", "false_finds"))
    ]  # fmt: skip
    return markdown(("", *_MODELS), rows)


def adversarial(models: Sequence[Measured]) -> str:
    """Images of the true class read as the target class, %."""
    measured = [
        (f"{model}, {what}", success["overall"])
        for model, one in zip(_MODELS, models, strict=True)
        for what, success in (
            ("pictograms", one.results["adversarial"]["success"]),
            ("photographs", one.results["adversarial"]["photographs"]["success"]),
        )
    ]
    return markdown(
        ("cues", *(name for name, _ in measured)),
        ((f"`{m}`", *(percent(overall[m]["mean"]) for _, overall in measured)) for m in METHODS),
    )


def shift(models: Sequence[Measured]) -> str:
    """Runs in which a planted shift is detected at a level of 5 %, %."""
    return _by_model(models, _TESTS, lambda cell: True)


def naming(models: Sequence[Measured]) -> str:
    """Runs in which the planted change is among the first texts, %."""
    return _by_model(models, _NAMINGS, lambda cell: "named" in cell)


def mending(models: Sequence[Measured]) -> str:
    """Worst-group accuracy and mean of the groups, %, over tasks and seeds."""
    by_model = [_accuracies(one) for one in models]
    names = {name: None for accuracies in by_model for name in accuracies}
    rows = [
        (_CONDITIONS.get(name, name), *(c for m in by_model for c in m.get(name, (NONE, NONE))))
        for name in names
    ]
    head = [f"{model}: {c}" for model in _MODELS for c in ("worst group", "mean of groups")]
    return markdown(("classifier", *head), rows)


def claims(models: Sequence[Measured]) -> str:
    """Claims of the papers, and ours, by verdict."""
    rows = [(verdict, *(str(one.verdicts[verdict]) for one in models)) for verdict in VERDICTS]
    rows.append(("all", *(str(sum(one.verdicts.values())) for one in models)))
    return markdown(("verdict", *_MODELS), rows)


# -- parts


def _top1(one: Measured, start: str) -> str:
    (value,) = (value for row, value in one.card.items() if re.match(start, row))
    return value.partition(" / ")[0]


def _captioned(tables: Iterable[tuple[str, str]]) -> str:
    return "\n\n".join(f"**{caption}**\n\n{table}" for caption, table in tables)


def _method(name: str) -> str:
    if name == ATTRIBUTION:
        return f"**{name} (ours)**"
    return f"{name} (the papers')" if name in (VOTES, PAIRS) else name


def _mean_iou(result: Mapping, block: str) -> str:
    place = result["metrics"].index("mIoU")
    return f"{result['blocks'][block][ATTRIBUTION]['values'][place]:.1f}"


def _objects(result: Mapping, block: str) -> str:
    place = result["metrics"].index("mIoU")
    rows = []
    for name, entry in result["blocks"][block].items():
        ahead = entry["behind"].get(ATTRIBUTION)
        spread = [_points(ahead[end][place]) for end in ("low", "high")] if ahead else [NONE] * 2
        cells = (_points(entry[key][place]) for key in ("values", "low", "high"))
        rows.append((entry["values"][place], _method(name), *cells, *spread))
    rows.sort(key=lambda row: -row[0])
    head = ("method", "mIoU", "low", "high", "ours ahead: low", "high")
    return markdown(head, (row[1:] for row in rows))


def _classes(entries: Mapping) -> str:
    rows = []
    for name, entry in sorted(entries.items(), key=lambda item: -item[1]["mIoU"]):
        times = entry.get("times MaskCLIP")
        ratio = [f"{v:.2f}" for v in (times["value"], *times["interval"])] if times else [NONE] * 3
        spread = [f"{v:.1f}" for v in (entry["mIoU"], *entry["interval"])]
        rows.append((_method(name), *spread, *ratio))
    head = ("method", "mIoU", "low", "high", "times MaskCLIP", "low", "high")
    return markdown(head, rows)


def _points(value: float) -> str:
    """One decimal, and no negative zero."""
    return f"{round(value, 1) + 0.0:.1f}"


def _cells(one: Measured) -> Mapping[str, Mapping]:
    return one.metrics["shift"]["cells"]


def _by_model(
    models: Sequence[Measured], columns: Mapping[str, str], keep: Callable[[Mapping], bool]
) -> str:
    """A table a model of its kept cells, few images first; columns that all of them have."""
    return _captioned(
        (model, _shares({name: cell for name, cell in _cells(one).items() if keep(cell)}, columns))
        for model, one in zip(_MODELS, models, strict=True)
    )


def _shares(cells: Mapping[str, Mapping], columns: Mapping[str, str]) -> str:
    known = [key for key in columns if all(key in cell for cell in cells.values())]
    rows = []
    for cell in sorted(cells, key=lambda name: int(name.rpartition(" ")[2])):
        shift, _, size = cell.rpartition(" ")
        shares = (percent(cells[cell][key], 0) for key in known)
        rows.append((_SHIFTS.get(shift, shift), size, *shares))
    return markdown(("shift", "images", *(columns[key] for key in known)), rows)


def _accuracies(one: Measured) -> dict[str, tuple[str, str]]:
    """Worst group and mean of the groups by condition, %."""
    rows = one.metrics["mending"]["rows"]
    return {
        name: tuple(
            percent(mean(row["conditions"][name][key] for row in rows))
            for key in ("worst", "average")
        )
        for name in rows[0]["conditions"]
    }
