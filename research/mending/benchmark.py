"""The shipped benchmark of `mend`: planted cues in scenes of pictograms and of photographs.

Classes and cues are those that mislead the model most (`spurious_tasks`). Units are found on
images of which nine tenths have their class's own cue, and measured on as many images of every
group, whose drawings or photographs are others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.folders import write_atomic
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
    """`tasks` of each kind of picture, `images` to find units on and as many to measure on.

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


class KeptRows:
    """Rows of an unfinished benchmark on disk, a file each: a killed run goes on from there."""

    def __init__(self, folder: Path | None, *basis: object) -> None:
        """`basis` is what rows depend on; without a folder nothing is kept."""
        self.folder, self.basis = folder, basis

    def __call__(self, key: Sequence[object], make: Callable[[], dict]) -> dict:
        """The row that was kept under a key, else `make()`, which is kept."""
        if self.folder is None:
            return make()
        digest = hashlib.sha256(json.dumps([self.basis, key], default=str).encode()).hexdigest()
        path = self.folder / f"{digest[:16]}.json"
        if path.is_file():
            return json.loads(path.read_text())
        row = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(row).encode())
        return row


def run_benchmark(
    bundle: Bundle,
    clip: ClipModel,
    packs: Sequence[Material],
    options: BenchmarkOptions,
    find_options: FindOptions = FindOptions(),  # noqa: B008  frozen
    progress: Callable[[str], object] = lambda _: None,
    work: Path | None = None,
) -> list[dict]:
    """Figures of every task and seed: accuracy of the worst group and the groups' mean.

    Rows are kept in the folder `work` as they come, from which an interrupted run goes on.
    """
    kept = KeptRows(
        work, bundle.config.weights_sha256, options.images, options.draw, asdict(find_options)
    )
    rows = []
    for pack in packs:
        progress(f"{pack.name}: choosing classes and cues")
        tasks = kept(
            ["tasks", pack.name, options.tasks],
            lambda pack=pack: {
                "tasks": [
                    asdict(task)
                    for task in misleading_tasks(
                        clip, pack.things[0], pack.concepts, pack.companions[0], pack.others,
                        options.tasks, options.draw,
                    )
                ]
            },
        )  # fmt: skip
        for words in tasks["tasks"]:
            task = SpuriousTask(tuple(words["classes"]), tuple(words["cues"]))
            for seed in range(options.seeds):
                progress(f"{pack.name}: {task.name}, seed {seed}")
                row = {"pictures": pack.name, "task": task.name, "seed": seed}
                figures = kept(
                    list(row.values()),
                    lambda task=task, seed=seed, pack=pack: _measure(
                        bundle, clip, pack, task, options.images, seed, find_options
                    ),
                )
                rows.append(row | figures)
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
    mender = Mender(bundle, Lens(clip, bundle.config.layers), classes)
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
