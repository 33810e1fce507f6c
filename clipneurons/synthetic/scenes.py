"""Scenes composed from pictograms: images whose objects, colours and exact masks are known.

    pack = load_pictograms()
    scenes = Scenes(pack, SceneConfig(objects=(1, 2)), count=1000, seed=0)
    scenes[3].caption, scenes[3].objects[0].mask

Scene i depends on (seed, i) alone, so any part of a set can be made anywhere, in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from .captions import BACKGROUNDS, COLOURS, Facts, colour_word, write_caption
from .pictograms import Pictograms


@runtime_checkable
class Drawings(Protocol):
    """What can be pasted: pictograms in several styles, or photographs as a style of their own."""

    def styles_of(self, concept: str) -> list[str]:
        """The styles that have the concept; an error for one that there is not."""

    def variants(self, concept: str, style: str) -> list[np.ndarray]:
        """RGBA drawings of a concept in a style."""

    def lookup(self, concept: str, style: str, variant: int = 0) -> np.ndarray:
        """One drawing, RGBA [64, 64, 4]."""


@dataclass(frozen=True)
class SceneConfig:
    """What a set of scenes may hold. `None` means all; `scale` is of the frame's side."""

    size: int = 64
    objects: tuple[int, int] = (1, 3)
    styles: tuple[str, ...] | None = None
    concepts: tuple[str, ...] | None = None
    backgrounds: tuple[str, ...] = BACKGROUNDS
    single_scale: tuple[float, float] = (0.5, 0.85)
    scale: tuple[float, float] = (0.32, 0.5)
    colour_jitter: float = 0.1
    flip: bool = True


@dataclass(frozen=True)
class SceneObject:
    """One object: `mask` bool [H, W] of its visible pixels, `box` (left, top, right, bottom)."""

    name: str
    style: str
    colour: str
    mask: np.ndarray
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """image uint8 [H, W, 3] and everything that is true of it."""

    image: np.ndarray
    caption: str
    objects: tuple[SceneObject, ...]
    background: str
    background_colour: str

    @property
    def colours(self) -> tuple[str, ...]:
        return (*(thing.colour for thing in self.objects), self.background_colour)


@dataclass(frozen=True)
class Placed:
    """An object to draw: side `scale` of the frame, centre in 0..1 from the top left."""

    concept: str
    style: str
    centre: tuple[float, float] = (0.5, 0.5)
    scale: float = 0.7
    variant: int = 0
    flip: bool = False


def ground(kind: str, colour, size: int, rng: np.random.Generator) -> np.ndarray:
    """A background of a kind in a colour: float32 [size, size, 3] in 0..1."""
    if kind not in BACKGROUNDS:
        raise ValueError(f"no background {kind!r}; there are {', '.join(BACKGROUNDS)}")
    one = np.asarray(colour, np.float32) / 255
    second = np.asarray(list(COLOURS.values()), np.float32)[rng.integers(len(COLOURS))] / 255
    two = 0.6 * one + 0.4 * second
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle, frequency = rng.uniform(0, 2 * np.pi), rng.uniform(3, 10)
    u = axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle)
    v = axis[:, None] * np.cos(angle) - axis[None] * np.sin(angle)
    stripes = np.sin(u * frequency) > 0
    fields = {
        "solid": lambda: np.zeros((size, size)),
        "gradient": lambda: np.clip((u + 1.4) / 2.8, 0, 1),
        "stripes": lambda: stripes,
        "checker": lambda: stripes ^ (np.sin(v * frequency) > 0),
        "noise": lambda: rng.random((size, size)),
    }
    t = fields[kind]().astype(np.float32)[..., None]
    return one * (1 - t) + two * t


def compose(
    pack: Drawings,
    placed: Sequence[Placed],
    background: str | tuple[str, str] = ("solid", "white"),
    size: int = 64,
    seed: int = 0,
    colour_jitter: float = 0.0,
) -> Scene:
    """Draw chosen objects, later ones over earlier ones, on (pattern, colour)."""
    rng = np.random.default_rng(seed)
    kind, colour = (background, "white") if isinstance(background, str) else background
    if colour not in COLOURS:
        raise ValueError(f"no colour {colour!r}; there are {', '.join(COLOURS)}")
    image = ground(kind, COLOURS[colour], size, rng)
    masks, words = [], []
    for item in placed:
        drawing = pack.lookup(item.concept, item.style, item.variant)
        picture = Image.fromarray(drawing)
        if item.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        side = max(2, round(item.scale * size))
        rgba = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255
        jitter = 1 + colour_jitter * rng.uniform(-1, 1, 3).astype(np.float32)
        rgb, alpha = np.clip(rgba[..., :3] * jitter, 0, 1), rgba[..., 3:]
        left, top = (round(c * size - side / 2) for c in item.centre)
        # The part of the frame it falls on, and the part of the drawing that falls there.
        x, y = (slice(max(0, at), min(size, at + side)) for at in (left, top))
        if x.start >= x.stop or y.start >= y.stop:
            raise ValueError(f"{item.concept} at {item.centre} lies outside the frame")
        part = (slice(y.start - top, y.stop - top), slice(x.start - left, x.stop - left))
        image[y, x] = image[y, x] * (1 - alpha[part]) + rgb[part] * alpha[part]
        mask = np.zeros((size, size), bool)
        mask[y, x] = alpha[part][..., 0] > 0.5
        for below in masks:
            below &= ~mask
        masks.append(mask)
        weight = alpha.sum() + 1e-6
        words.append(colour_word((rgb * alpha).sum((0, 1)) / weight * 255))
    objects = tuple(
        SceneObject(item.concept, item.style, word, mask, bounding_box(mask))
        for item, word, mask in zip(placed, words, masks, strict=True)
    )
    facts = Facts(
        tuple(item.concept for item in placed),
        (None,) * len(placed),
        relation(placed),
        None if (kind, colour) == ("solid", "white") else (kind, colour),
    )
    caption = write_caption(facts, rng) if placed else f"a {colour} background"
    pixels = (image * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return Scene(pixels, caption, objects, kind, colour)


def relation(placed: Sequence[Placed]) -> str | None:
    """How the first two objects lie, along the axis on which they are further apart."""
    if len(placed) < 2:
        return None
    dx, dy = (b - a for a, b in zip(placed[0].centre, placed[1].centre, strict=True))
    if abs(dx) >= abs(dy):
        return "left of" if dx > 0 else "right of"
    return "above" if dy > 0 else "below"


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a mask, right and bottom exclusive; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Scenes(Sequence):
    """`count` random scenes; scene i is a function of (seed, i)."""

    def __init__(self, pack: Pictograms, config: SceneConfig, count: int, seed: int = 0):
        self.pack, self.config, self.count, self.seed = pack, config, count, seed
        concepts, styles = config.concepts or pack.concepts, config.styles or pack.styles
        unknown = (set(concepts) - set(pack.concepts)) | (set(styles) - set(pack.styles))
        if unknown:
            raise ValueError(f"the pack has no {', '.join(sorted(unknown))}")
        drawn = {c: [s for s in styles if (c, s) in pack.entries] for c in concepts}
        self.drawn = {concept: in_styles for concept, in_styles in drawn.items() if in_styles}
        low, high = config.objects
        if not 1 <= low <= high <= min(3, len(self.drawn)):
            raise ValueError(
                f"{low} to {high} objects asked for, of {len(self.drawn)} concepts; "
                "a scene holds 1 to 3 different ones"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Scene:
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng((self.seed, index % self.count))
        config = self.config
        count = int(rng.integers(config.objects[0], config.objects[1] + 1))
        concepts = rng.choice(list(self.drawn), count, replace=False)
        centres, scales = self.places(count, rng)
        placed = []
        for concept, centre, scale in zip(concepts, centres, scales, strict=True):
            style = str(rng.choice(self.drawn[concept]))
            variant = int(rng.integers(len(self.pack.entries[concept, style])))
            flip = bool(config.flip and rng.random() < 0.5)
            placed.append(Placed(str(concept), style, centre, scale, variant, flip))
        background = str(rng.choice(config.backgrounds)), str(rng.choice(list(COLOURS)))
        seed = int(rng.integers(2**31))
        scene = compose(self.pack, placed, background, config.size, seed, config.colour_jitter)
        return replace(scene, caption=self.describe(scene, placed, rng))

    def places(self, count: int, rng: np.random.Generator) -> tuple[list, list]:
        """Centres and sides for `count` objects that hardly cover one another."""
        if count == 1:
            scale = float(rng.uniform(*self.config.single_scale))
            return [tuple(rng.uniform(scale / 2, 1 - scale / 2, 2).tolist())], [scale]
        scales = rng.uniform(*self.config.scale, count).tolist()
        axis = int(rng.integers(2))
        along = np.array([0.25, 0.75, 0.5])[:count] + 0.05 * rng.uniform(-1, 1, count)
        across = rng.uniform(0.3, 0.7, count)
        if count == 3:
            across = np.array([0.3, 0.3, 0.72]) + 0.05 * rng.uniform(-1, 1, 3)
        if rng.random() < 0.5:
            along = 1 - along
        pairs = np.stack([along, across] if axis == 0 else [across, along], 1)
        return [tuple(pair) for pair in pairs.tolist()], scales

    def describe(self, scene: Scene, placed, rng: np.random.Generator) -> str:
        """A caption with some of what is true: synonyms, colours, relation, background."""
        names = []
        for thing in scene.objects:
            others = self.pack.synonyms[thing.name]
            use = others and rng.random() < 0.2
            names.append(others[rng.integers(len(others))] if use else thing.name)
        colours = tuple(o.colour if rng.random() < 0.35 else None for o in scene.objects)
        facts = Facts(
            tuple(names),
            colours,
            relation(placed) if rng.random() < 0.6 else None,
            (scene.background, scene.background_colour) if rng.random() < 0.5 else None,
        )
        return write_caption(facts, rng)
