"""Scenes with a planted spurious cue: each class mostly with one companion, or on one ground.

    task = SpuriousTask(classes=("dog", "cat"), cues=("bone", "fish"))
    scenes = SpuriousScenes(load_pictograms(), task, mostly(400, 0.9), seed=0)
    scenes[3].label, scenes[3].cue

A group is a class with a cue; class i usually comes with cue i. Scene i depends on (seed, i) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from .captions import BACKGROUNDS, COLOURS
from .scenes import Drawings, Placed, compose

_THING, _COMPANION = (0.45, 0.6), (0.34, 0.42)  # sides, of the frame's


@dataclass(frozen=True)
class SpuriousTask:
    """Classes to tell apart, and as many cues that must not matter.

    A cue is the name of a companion, or a ground as "pattern colour", such as "stripes yellow".
    """

    classes: tuple[str, ...]
    cues: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(self.classes) != len(self.cues):
            raise ValueError(
                f"expected at least two classes and a cue for each, not {len(self.classes)} "
                f"classes and {len(self.cues)} cues"
            )
        if len({*self.classes, *self.cues}) < 2 * len(self.classes):
            raise ValueError(f"expected different names, not {self.classes} and {self.cues}")

    @property
    def name(self) -> str:
        """In words."""
        return ", ".join(f"{a} ({b})" for a, b in zip(self.classes, self.cues, strict=True))


@dataclass(frozen=True)
class SpuriousScene:
    """image uint8 [H, W, 3], the number of its class, and that of its cue."""

    image: np.ndarray
    label: int
    cue: int


def mostly(count: int, share: float, classes: int = 2) -> np.ndarray:
    """Images a group, int [class, cue]: `share` of each class with its own cue."""
    own = round(count * share / classes)
    others = round(count * (1 - share) / classes / (classes - 1))
    return np.where(np.eye(classes, dtype=bool), own, others)


class SpuriousScenes(Sequence):
    """Scenes of a task, `counts[class, cue]` of each group, in an order of their own."""

    def __init__(
        self,
        things: Drawings,
        task: SpuriousTask,
        counts: np.ndarray,
        seed: int = 0,
        companions: Drawings | None = None,
        size: int = 64,
    ):
        """`things` draws the classes, `companions` (by default the same) the cues."""
        self.things, self.companions = things, companions or things
        self.task, self.size, self.seed = task, size, seed
        self.groups = [
            group
            for group in product(range(len(task.classes)), repeat=2)
            for _ in range(counts[group])
        ]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> SpuriousScene:
        if not -len(self) <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        index %= len(self)
        rng = np.random.default_rng((self.seed, index))
        label, cue = self.groups[index]
        ground, companion = _ground(self.task.cues[cue])
        ground = ground or (str(rng.choice(BACKGROUNDS)), str(rng.choice(list(COLOURS))))
        left = 0.3 if rng.random() < 0.5 else 0.7
        packs = _Packs(self.things, self.companions, self.task.classes)
        placed = [_place(packs, self.task.classes[label], left, _THING, rng)]
        if companion:
            placed.append(_place(packs, companion, 1 - left, _COMPANION, rng))
        scene = compose(packs, placed, ground, self.size, int(rng.integers(2**31)), 0.1)
        return SpuriousScene(scene.image, label, cue)


def _place(
    pack: Drawings, concept: str, left: float, scale: tuple[float, float], rng: np.random.Generator
) -> Placed:
    style = str(rng.choice(pack.styles_of(concept)))
    variant = int(rng.integers(len(pack.variants(concept, style))))
    centre = (left + 0.04 * rng.uniform(-1, 1), rng.uniform(0.35, 0.65))
    return Placed(
        concept, style, centre, float(rng.uniform(*scale)), variant, bool(rng.random() < 0.5)
    )


@dataclass(frozen=True)
class _Packs:
    """Two packs as the one that `compose` looks things up in."""

    things: Drawings
    companions: Drawings
    classes: tuple[str, ...]

    def _of(self, concept: str) -> Drawings:
        return self.things if concept in self.classes else self.companions

    def styles_of(self, concept: str) -> list[str]:
        return self._of(concept).styles_of(concept)

    def variants(self, concept: str, style: str) -> list[np.ndarray]:
        return self._of(concept).variants(concept, style)

    def lookup(self, concept: str, style: str, variant: int = 0) -> np.ndarray:
        return self._of(concept).lookup(concept, style, variant)


def _ground(cue: str) -> tuple[tuple[str, str] | None, str | None]:
    """The (pattern, colour) that a cue names, or the companion."""
    pattern, _, colour = cue.partition(" ")
    if pattern in BACKGROUNDS and colour in COLOURS:
        return (pattern, colour), None
    return None, cue
