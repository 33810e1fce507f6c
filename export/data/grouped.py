"""Images with a class and a cue that should not matter, from folders or composed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from clipneurons.synthetic.spurious import SpuriousScenes
from export.common.errors import SourceError
from export.data.dataset import readable_names, stamps
from export.data.file_sources import FolderSource
from export.data.loader import read


@dataclass(frozen=True)
class GroupedImages:
    """Labelled images: `labels` and `cues` are numbers into their names; no cues where unknown.

    `stamps` change when an image is replaced (`dataset.stamps`).
    """

    name: str
    class_names: tuple[str, ...]
    cue_names: tuple[str, ...]
    labels: tuple[int, ...]
    cues: tuple[int, ...]
    load: Callable[[int], Image.Image | None]
    stamps: Mapping[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def group_name(self, label: int, cue: int) -> str:
        """A class with its cue, in words."""
        if not self.cue_names:
            return self.class_names[label]
        return f"{self.class_names[label]}, {self.cue_names[cue]}"


def grouped_folder(root: Path) -> GroupedImages:
    """ROOT/CLASS/IMAGE, or ROOT/CLASS/CUE/IMAGE for groups.

    Raises `SourceError` for one class only, for files that lie elsewhere, for cues in some of the
    classes alone, and for a group without images.
    """
    if not root.is_dir():
        raise SourceError(f"--images {root} is no folder: expected ROOT/CLASS/CUE/IMAGE")
    source = FolderSource(root)
    parts = [Path(path).parts[:-1] for path in source.paths]
    depth = {len(folders) for folders in parts}
    if depth not in ({1}, {2}):
        odd = next(p for p, f in zip(source.paths, parts, strict=True) if len(f) not in (1, 2)
                   or len(f) != len(parts[0]))  # fmt: skip
        raise SourceError(
            f"{root}/{odd}: expected all images in ROOT/CLASS, or all in ROOT/CLASS/CUE"
        )
    classes = sorted({folders[0] for folders in parts})
    if len(classes) < 2:
        raise SourceError(f"{root} holds one class only ({classes[0]}): expected at least two")
    cues = sorted({folders[1] for folders in parts}) if depth == {2} else []
    present = {tuple(folders) for folders in parts}
    missing = [(c, cue) for c in classes for cue in cues if (c, cue) not in present]
    if missing:
        raise SourceError(
            f"group {'/'.join(missing[0])} has no images: expected some in each of "
            f"{len(classes)} classes x {len(cues)} cues"
        )
    if len(cues) == 1:
        raise SourceError(f"{root} holds one cue only ({cues[0]}): expected two, or CLASS/IMAGE")

    def load(index: int) -> Image.Image | None:
        return read(next(iter(source.raws([index])))).image

    return GroupedImages(
        source.name,
        readable_names(classes),
        tuple(cue.replace("_", " ") for cue in cues),
        tuple(classes.index(folders[0]) for folders in parts),
        tuple(cues.index(folders[1]) if cues else 0 for folders in parts),
        load,
        stamps(source),
    )


def grouped_scenes(scenes: SpuriousScenes) -> GroupedImages:
    """Composed scenes; every one is composed when it is asked for."""
    task = scenes.task
    labels, cues = zip(*scenes.groups, strict=True)
    return GroupedImages(
        task.name, task.classes, task.cues, labels, cues,
        lambda index: Image.fromarray(scenes[index].image),
    )  # fmt: skip


def split_in_half(images: GroupedImages, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of images to find units on, and of as many held-out ones, group by group."""
    import numpy as np

    rng, halves = np.random.default_rng(seed), ([], [])
    places = list(zip(images.labels, images.cues, strict=True))
    for group in sorted(set(places)):
        rows = rng.permutation([i for i, place in enumerate(places) if place == group]).tolist()
        halves[0].extend(rows[::2])
        halves[1].extend(rows[1::2])
    return sorted(halves[0]), sorted(halves[1])


def chunks(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    """The numbers in parts of a size."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]
