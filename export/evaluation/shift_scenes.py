"""Pairs of image sets, composed with a known shift, that the monitor is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from clipneurons.models.clip import ClipModel
from clipneurons.shift.comparison import Profile, Profiler
from clipneurons.synthetic.pictograms import Pictograms, load_pictograms
from clipneurons.synthetic.scenes import SceneConfig, Scenes

# The corner and size of a watermark, as shares of the image.
_MARK = (0.62, 0.62, 0.36)


@dataclass(frozen=True)
class Images:
    """Profiles of images with their pixels, ``[image, side, side, 3]`` in 8 bits."""

    profile: Profile
    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.profile)

    def __getitem__(self, chosen) -> Images:
        return Images(self.profile[chosen], self.pixels[chosen])

    @staticmethod
    def cat(parts: Sequence[Images]) -> Images:
        """More images, in order."""
        pixels = np.concatenate([part.pixels for part in parts])
        return Images(Profile.cat([part.profile for part in parts]), pixels)

    def pictures(self, chosen: Iterable[int]) -> list[Image.Image]:
        """Some of the images."""
        return [Image.fromarray(self.pixels[i]) for i in chosen]


@dataclass(frozen=True)
class Pools:
    """Images to draw samples from; ``marks`` by the concept of the watermark."""

    usual: Images
    style: Images
    background: Images
    others: Images
    vehicles: Images
    marks: dict[str, Images]
    vehicle_words: frozenset[str]


@dataclass(frozen=True)
class Sample:
    """A reference and a new sample of the same size; ``words`` name what was planted, if any."""

    reference: Images
    new: Images
    words: frozenset[str] = frozenset()


def marked(image: np.ndarray, mark: np.ndarray) -> np.ndarray:
    """The image with a pictogram [side, side, 4] over its lower right corner."""
    size = len(image)
    left, top, side = (round(share * size) for share in _MARK)
    drawn = Image.fromarray(mark).resize((side, side), Image.Resampling.LANCZOS)
    canvas = Image.fromarray(image)
    canvas.paste(drawn, (left, top), drawn)
    return np.asarray(canvas)


def make_pools(
    clip: ClipModel,
    profiler: Profiler,
    concepts: Sequence[str],
    count: int,
    seed: int = 0,
    progress: Callable[[int], object] = lambda _: None,
) -> Pools:
    """Compose and profile all pools: ``count`` usual scenes, fewer of the others."""
    pack, held = load_pictograms(), load_pictograms(heldout=True)
    size = max(clip.image_size)

    def profile(images: Iterable[np.ndarray]) -> Images:
        parts, pixels = [], np.stack(list(images))
        for first in range(0, len(pixels), 64):
            batch = [clip.preprocess(Image.fromarray(i)) for i in pixels[first : first + 64]]
            parts.append(profiler(torch.stack(batch)))
            progress(len(batch))
        return Images(Profile.cat(parts), pixels)

    def scenes(number: int, offset: int, source: Pictograms = pack, **options):
        made = Scenes(source, SceneConfig(size=size, **options), number, seed + offset)
        return (made[i].image for i in range(number))

    vehicles = tuple(c for c in pack.concepts if pack.groups[c] == "vehicle")
    others = tuple(c for c in pack.concepts if pack.groups[c] != "vehicle")
    marks = {}
    for number, concept in enumerate(concepts):
        # One drawing, always the same: the concept in the first style that has it.
        mark = pack.lookup(concept, pack.styles_of(concept)[0])
        usual = scenes(count // 12, 10 + number)
        marks[concept] = profile(marked(image, mark) for image in usual)
    return Pools(
        usual=profile(scenes(count, 0)),
        style=profile(scenes(count // 2, 1, held)),
        background=profile(scenes(count // 2, 2, backgrounds=("stripes",))),
        others=profile(scenes(count, 3, objects=(1, 1), concepts=others)),
        vehicles=profile(scenes(count // 4, 4, objects=(1, 1), concepts=vehicles)),
        marks=marks,
        vehicle_words=frozenset(vehicles) | {"vehicle", "car", "transport"},
    )


def draw(pools: Pools, shift: str, size: int, rng: np.random.Generator, turn: int) -> Sample:
    """A sample of one kind of shift: none, style, background, vehicles, or mark:SHARE.

    Watermarks take turns, so that all are planted about as often.
    """
    kind, _, share = shift.partition(":")
    if kind == "vehicles":
        reference, new = (_mixed(pools, size, portion, rng) for portion in (0.1, 0.4))
        return Sample(reference, new, pools.vehicle_words)
    first = rng.permutation(len(pools.usual))
    reference = pools.usual[first[:size]]
    fresh = pools.usual[first[size : 2 * size]]
    if kind == "none":
        return Sample(reference, fresh)
    if kind in ("style", "background"):
        pool = getattr(pools, kind)
        return Sample(reference, pool[rng.choice(len(pool), size, replace=False)])
    concept = list(pools.marks)[turn % len(pools.marks)]
    pool = pools.marks[concept]
    number = min(int(rng.binomial(size, float(share))), len(pool))
    planted = pool[rng.choice(len(pool), number, replace=False)]
    return Sample(reference, Images.cat([fresh[: size - number], planted]), frozenset({concept}))


def _mixed(pools: Pools, size: int, portion: float, rng: np.random.Generator) -> Images:
    number = int(rng.binomial(size, portion))
    number = min(number, len(pools.vehicles))
    return Images.cat(
        [
            pools.others[rng.choice(len(pools.others), size - number, replace=False)],
            pools.vehicles[rng.choice(len(pools.vehicles), number, replace=False)],
        ]
    )
