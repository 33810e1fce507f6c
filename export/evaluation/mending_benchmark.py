"""The shipped benchmark of `mend`: planted cues in scenes of pictograms and of photographs.

Classes and cues are those that mislead the model most (`spurious_tasks`). Units are found on
images of which nine tenths have their class's own cue, and measured on as many images of every
group, whose drawings or photographs are others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clipneurons.bundle.bundle import Bundle
from clipneurons.explore.mending import FindOptions
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import ClipModel
from clipneurons.synthetic.pasted import PastedPhotographs, half_of_styles
from clipneurons.synthetic.photographs import FILE, load_photographs
from clipneurons.synthetic.pictograms import Pictograms, load_pictograms
from clipneurons.synthetic.scenes import Drawings
from clipneurons.synthetic.spurious import SpuriousScenes, SpuriousTask, mostly
from clipneurons.text.embedding import embed_texts
from export.data.grouped import grouped_scenes
from export.evaluation.mending import OURS, REAL, Mender, controls, find, measured, unit_margins
from export.evaluation.spurious_tasks import TEMPLATES, misleading_tasks

UNCHANGED = "unchanged"
_SHARE = 0.9
_GROUPS = ("animal", "food", "plant", "vehicle")  # of concepts that one picture shows


@dataclass(frozen=True)
class BenchmarkOptions:
    """`tasks` of each kind of picture, `images` to find units on and as many to measure on."""

    tasks: int = 4
    images: int = 400
    seeds: int = 2


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
            clip, pack.things[0], pack.concepts, pack.companions[0], pack.others, options.tasks
        )
        for task in tasks:
            for seed in range(options.seeds):
                progress(f"{pack.name}: {task.name}, seed {seed}")
                figures = _measure(bundle, clip, pack, task, options.images, seed, find_options)
                rows.append({"pictures": pack.name, "task": task.name, "seed": seed} | figures)
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
    mender = Mender(bundle, make_lens(clip, bundle.config.layers), classes)
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
    seen, held = mender.observe(half, numbers), mender.observe(other, range(len(other)))
    found = find(seen, unit_margins(seen.effects, seen), True, options)
    units = list(found.units)
    conditions = {UNCHANGED: [held.logits]}
    conditions[OURS] = [held.logits - held.effects[:, units].sum(1)]
    folded = mender.folded(mender.edit(units), half, numbers)
    real = [
        (folded.encode_image(pixels) @ classes.T).cpu()
        for _, pixels in mender.batches(other, range(len(other)))
    ]
    conditions[REAL] = [torch.cat(real)]
    conditions |= controls(mender, half, numbers, seen, held, len(units), True, options, seed=seed)
    return {
        "units": len(units),
        "conditions": {
            name: {key: value for key, value in measured(logits, held, other).items()
                   if key != "groups"}
            for name, logits in conditions.items()
        },
    }  # fmt: skip
