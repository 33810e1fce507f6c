"""Pairs of image sets, composed with a known shift, that the monitor is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import repeat

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from clipneurons.models.clip import ClipModel
from clipneurons.shift.profile import Profile, Profiler
from clipneurons.synthetic.pictograms import Pictograms, load_pictograms
from clipneurons.synthetic.scenes import SceneConfig, Scenes

# The corner and size of a watermark, as shares of the image.
_MARK = (0.62, 0.62, 0.36)
# Watermarks at one place, and each anywhere; images of a class that the reference has none of.
MARK, ANYWHERE, CLASS = "mark", "mark anywhere", "class"


def _jpeg(image: Image.Image) -> Image.Image:
    with BytesIO() as file:
        image.save(file, "JPEG", quality=30)
        return Image.open(file).convert("RGB")


# What a camera or a pipeline may do to every image.
SPOILT = {
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(0.7)),
    "jpeg": _jpeg,
}


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
    """Images to draw samples from.

    ``changed`` by what was done to all of them; ``planted`` by what is on some of a sample's
    images, then by the concept that it is.
    """

    usual: Images
    others: Images
    vehicles: Images
    changed: dict[str, Images]
    planted: dict[str, dict[str, Images]]
    vehicle_words: frozenset[str]

    def hold(self, shift: str, size: int) -> bool:
        """Whether there are as many planted images as samples of a size take on average."""
        kind, _, share = shift.partition(":")
        return not share or all(
            float(share) * size <= len(pool) for pool in self.planted[kind].values()
        )


@dataclass(frozen=True)
class Sample:
    """A reference and a new sample of the same size; ``words`` name what was planted, if any."""

    reference: Images
    new: Images
    words: frozenset[str] = frozenset()


def marked(
    image: np.ndarray, mark: np.ndarray, place: tuple[float, float] = _MARK[:2]
) -> np.ndarray:
    """The image with a pictogram [side, side, 4] at a place: over its lower right corner."""
    size = len(image)
    left, top, side = (round(share * size) for share in (*place, _MARK[2]))
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
            batch = [Image.fromarray(image) for image in pixels[first : first + 64]]
            parts.append(profiler.of_images(batch))
            progress(len(batch))
        return Images(Profile.cat(parts), pixels)

    def scenes(number: int, offset: int, source: Pictograms = pack, **options):
        made = Scenes(source, SceneConfig(size=size, **options), number, seed + offset)
        return (made[i].image for i in range(number))

    def spoilt(how: Callable, offset: int):
        made = scenes(count // 2, offset)
        return (np.asarray(how(Image.fromarray(image))) for image in made)

    def watermarked(concept: str, offset: int, places: Iterable) -> Images:
        # One drawing, always the same: the concept in the first style that has it.
        mark = pack.lookup(concept, pack.styles_of(concept)[0])
        images = scenes(count // 12, offset)
        return profile(marked(*each) for each in zip(images, repeat(mark), places))

    vehicles = tuple(c for c in pack.concepts if pack.groups[c] == "vehicle")
    others = tuple(c for c in pack.concepts if pack.groups[c] != "vehicle")
    anywhere = np.random.default_rng(seed).uniform(0, 1 - _MARK[2], (count // 12, 2))
    single = partial(scenes, objects=(1, 1))
    return Pools(
        usual=profile(scenes(count, 0)),
        others=profile(single(count, 3, concepts=others)),
        vehicles=profile(single(count // 4, 4, concepts=vehicles)),
        changed={
            "style": profile(scenes(count // 2, 1, held)),
            "background": profile(scenes(count // 2, 2, backgrounds=("stripes",))),
            **{name: profile(spoilt(how, 5 + i)) for i, (name, how) in enumerate(SPOILT.items())},
        },
        planted={
            MARK: {c: watermarked(c, 10 + i, repeat(_MARK[:2])) for i, c in enumerate(concepts)},
            ANYWHERE: {c: watermarked(c, 1000 + i, anywhere) for i, c in enumerate(concepts)},
            CLASS: {
                c: profile(single(count // 12, 2000 + i, concepts=(c,)))
                for i, c in enumerate(vehicles[: len(concepts)])
            },
        },
        vehicle_words=frozenset(vehicles) | {"vehicle", "car", "transport"},
    )


def draw(pools: Pools, shift: str, size: int, rng: np.random.Generator, turn: int) -> Sample:
    """A sample of one kind of shift: none, vehicles, one of ``pools.changed``, or of
    ``pools.planted`` with its share, such as mark:0.2.

    What is planted takes turns, so that all are planted about as often.
    """
    kind, _, share = shift.partition(":")
    if kind == "vehicles":
        reference, new = (_mixed(pools, size, portion, rng) for portion in (0.1, 0.4))
        return Sample(reference, new, pools.vehicle_words)
    pool = pools.others if kind == CLASS else pools.usual
    first = rng.permutation(len(pool))
    reference, fresh = pool[first[:size]], pool[first[size : 2 * size]]
    if kind == "none":
        return Sample(reference, fresh)
    if kind in pools.changed:
        pool = pools.changed[kind]
        return Sample(reference, pool[rng.choice(len(pool), size, replace=False)])
    by_concept = pools.planted[kind]
    concept = list(by_concept)[turn % len(by_concept)]
    pool = by_concept[concept]
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
