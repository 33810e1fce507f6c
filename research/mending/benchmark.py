"""The shipped benchmark of `mend`: planted cues in scenes of pictograms and of photographs.

Classes and cues are those that mislead the model most (`spurious_tasks`). Units are found on
images of which nine tenths have their class's own cue, and measured on as many images of every
group, whose drawings or photographs are others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipneurons.bundle.bundle import Bundle
from clipneurons.edit.find_options import FindOptions
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.synthetic.pasted import PastedPhotographs, half_of_styles
from clipneurons.synthetic.photographs import FILE, load_photographs
from clipneurons.synthetic.pictograms import Pictograms, load_pictograms
from clipneurons.synthetic.scenes import Drawings
from clipneurons.synthetic.spurious import SpuriousScenes, SpuriousTask, mostly
from clipneurons.text.embedding import embed_texts
from export.data.grouped import grouped_scenes
from export.mend.controls import PROBE, controls
from export.mend.for_real import choose_for_real, folded, read_by, unit_means
from export.mend.mender import OURS, REAL, Mender, choose, measured
from research.mending.spurious_tasks import TEMPLATES, misleading_tasks

UNCHANGED = "unchanged"
_SHARE = 0.9
_GROUPS = ("animal", "food", "plant", "vehicle")  # of concepts that one picture shows


def rivals(names: Iterable[str]) -> list[str]:
    """Of the conditions' names those that ours is held against."""
    return [name for name in names if name not in (UNCHANGED, PROBE) and OURS not in name]


@dataclass(frozen=True)
class BenchmarkOptions:
    """`tasks` of each kind of image, `images` to find units on and as many to measure on.

    `draw` is what the tasks' concepts are drawn by; options were chosen on those of draw 1.
    """

    tasks: int = 4
    images: int = 400
    seeds: int = 2
    draw: int = 0


@dataclass(frozen=True)
class Material:
    """What one kind of scene is drawn from: a half to find units on, the other to measure on."""

    name: str
    things: tuple[Drawings, Drawings]
    concepts: tuple[str, ...]
    companions: tuple[Pictograms, Pictograms]
    others: tuple[str, ...]


def materials() -> list[Material]:
    """Scenes of pictograms and, where the pack is there, of photographs beside pictograms."""
    pack = load_pictograms()
    halves = (half_of_styles(pack, 0), half_of_styles(pack, 1))
    concepts = tuple(
        concept
        for concept in pack.concepts
        if pack.groups[concept] in _GROUPS and all(half.styles_of(concept) for half in halves)
    )
    found = [Material("pictograms", halves, concepts, halves, concepts)]
    if FILE.is_file():
        photographs = load_photographs()
        pasted = (PastedPhotographs(photographs, 0), PastedPhotographs(photographs, 1))
        names = tuple(sorted(pasted[0].rows))
        others = tuple(concept for concept in concepts if concept not in names)
        found.append(Material("photographs", pasted, names, halves, others))
    return found


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """Accuracy of the worst group and the groups' mean, by task, seed and condition."""
    options = BenchmarkOptions(args.tasks, args.images, args.seeds)
    rows = run_benchmark(
        bundle, clip, materials(), options, progress=lambda words: print(words, flush=True)
    )
    return {"images": options.images, "rows": rows}


def in_words(figures: Mapping) -> str:
    """A line a condition: mean over tasks and seeds, in per cent."""
    rows = figures["rows"]
    return "\n".join(
        f"mending  {name}: worst group {_mean(rows, name, 'worst'):.1%}, mean of groups"
        f" {_mean(rows, name, 'average'):.1%}"
        for name in rows[0]["conditions"]
    )


def _mean(rows: Sequence[Mapping], condition: str, key: str) -> float:
    return float(np.mean([row["conditions"][condition][key] for row in rows]))


def run_benchmark(
    bundle: Bundle,
    clip: ClipModel,
    packs: Sequence[Material],
    options: BenchmarkOptions,
    find_options: FindOptions = FindOptions(),  # noqa: B008  frozen
    progress: Callable[[str], object] = lambda _: None,
) -> list[dict]:
    """Figures of every task and seed: accuracy of the worst group and the groups' mean."""
    rows = []
    for pack in packs:
        progress(f"{pack.name}: choosing classes and cues")
        tasks = misleading_tasks(
            clip, pack.things[0], pack.concepts, pack.companions[0], pack.others,
            options.tasks, options.draw,
        )  # fmt: skip
        for task in tasks:
            for seed in range(options.seeds):
                progress(f"{pack.name}: {task.name}, seed {seed}")
                figures = _measure(bundle, clip, pack, task, options.images, seed, find_options)
                rows.append({"kind": pack.name, "task": task.name, "seed": seed} | figures)
    return rows


def _measure(
    bundle: Bundle,
    clip: ClipModel,
    pack: Material,
    task: SpuriousTask,
    count: int,
    seed: int,
    options: FindOptions,
) -> dict:
    classes = embed_texts(clip, list(task.classes), TEMPLATES)
    mender = Mender(bundle, Lens.of_bundle(clip, bundle), classes)
    counts = (mostly(count, _SHARE), np.full((2, 2), count // 4))
    half, other = (
        grouped_scenes(
            SpuriousScenes(
                pack.things[i], task, counts[i], 2 * seed + i, pack.companions[i],
                max(clip.image_size),
            )
        )
        for i in (0, 1)
    )  # fmt: skip
    numbers = range(len(half))
    seen = mender.observe(half, numbers)
    held = mender.observe(other, range(len(other)))
    choice = choose(seen, True, options)
    units = list(choice.found.units)
    effects = held.about(choice.means, seen).effects
    conditions = {UNCHANGED: [held.logits], OURS: [held.logits - effects[:, units].sum(1)]}
    means = unit_means(mender, half, numbers)
    real = choose_for_real(mender, half, seen, choice, means, True, options)
    model = folded(mender, real.edit, means)
    conditions[REAL] = [read_by(mender, model, other, range(len(other)))]
    conditions |= controls(mender, half, numbers, seen, held, choice, True, options, seed=seed)
    return {
        "units": len(units),
        "means": choice.means,
        "real_units": len(real.edit.units),
        "real_means": real.edit.means,
        "conditions": {
            name: {key: value for key, value in measured(logits, held, other).items()
                   if key != "groups"}
            for name, logits in conditions.items()
        },
    }  # fmt: skip
