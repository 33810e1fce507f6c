"""The offline image generator: a drawing of the true object with drawings of the cues around it.

What such an image shows is known exactly: every object is drawn from a pictogram or a photograph
of its name, and the true object lies on top.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.image_generator import (
    MISSING,
    PRESENT,
    TARGET_SHOWN,
    GeneratedImage,
    ImageGeneratorError,
)
from clipneurons.synthetic.captions import COLOURS
from clipneurons.synthetic.pasted import PastedPhotographs
from clipneurons.synthetic.photographs import load_names, load_photographs
from clipneurons.synthetic.pictograms import Pictograms, load_pictograms
from clipneurons.text.class_names import content, names, stem

# Sides of the objects as shares of the image's, smallest and largest.
TRUE_SIDE = (0.45, 0.6)
CUE_SIDE = (0.32, 0.45)
PLACES_TRIED = 24
MAX_SIDE = 1024
_COLOURS = {stem(colour) for colour in COLOURS}
# An object is seen when it covers this share of the image.
VISIBLE = 0.01


Sprites = Mapping[str, Sequence[UInt8[np.ndarray, "height width 4"]]]


@dataclass(frozen=True)
class Placement:
    """A drawing in an image: its centre and longer side as shares of the image's side."""

    concept: str
    drawing: Image.Image
    x: float
    y: float
    scale: float


class Composer:
    """Draws from pictograms or photographs, one name with one or several drawings (RGBA) each.

    Args:
        sprites: name of a concept -> its drawings.
        keywords: name of a concept -> other words for what it shows.
        size: side of the images in pixels.
        kinds: name of a concept -> what kinds of thing it is, so that a dalmatian shows a dog.

    Raises:
        ValueError: no pictograms, or a size out of range.
    """

    def __init__(
        self,
        sprites: Sprites,
        keywords: Mapping[str, Sequence[str]] | None = None,
        size: int = 64,
        kinds: Mapping[str, Sequence[str]] | None = None,
    ):
        if not sprites or not all(len(drawings) for drawings in sprites.values()):
            raise ValueError("expected at least one drawing of every concept")
        if not 16 <= size <= MAX_SIDE:
            raise ValueError(f"expected images of 16 to {MAX_SIDE} pixels a side, not {size}")
        self.sprites, self._keywords, self._size = sprites, keywords or {}, size
        self._kinds = kinds or {}
        self._by_stem = {_key(name): name for name in sprites}
        for name in sprites:
            for word in self._keywords.get(name, ()):
                self._by_stem.setdefault(_key(word), name)
        # A pool of thousands of texts is asked about for every pair and method.
        self.concept = functools.cache(self.concept)
        self.shows = functools.cache(self.shows)

    @property
    def concepts(self) -> list[str]:
        """Names of what can be drawn."""
        return list(self.sprites)

    def concept(self, text: str) -> str | None:
        """The concept that a text names, also in plural or by a keyword; None without one.

        A colour before it is allowed ("a red apple"), and left to the drawing.
        """
        words = _key(text).split(" ")
        concept = self._by_stem.get(" ".join(words))
        if concept is None and words[0] in _COLOURS:
            concept = self._by_stem.get(" ".join(words[1:]))
        return concept

    def drawable(self, target_class: str) -> Callable[[str], str | None]:
        """Gives the concept to draw for a text: None without one, or of the target class."""

        def test(text: str) -> str | None:
            concept = self.concept(text)
            return None if concept is None or self.shows(concept, target_class) else concept

        return test

    def shows(self, concept: str, class_name: str) -> bool:
        """Whether a concept is the class, or its name, a keyword or its kind names the class."""
        words = (concept, *self._keywords.get(concept, ()), *self._kinds.get(concept, ()))
        return concept == self.concept(class_name) or any(names(w, class_name) for w in words)

    def check(self, image: GeneratedImage, true_class: str, target_class: str) -> str:
        """Whether a composed image shows the true class and not the target one: exact."""
        objects = image.objects or ()
        if self.concept(true_class) not in objects:
            return MISSING
        return TARGET_SHOWN if any(self.shows(o, target_class) for o in objects) else PRESENT

    def __call__(
        self, true_class: str, descriptions: Sequence[Description], seeds: Sequence[int]
    ) -> Iterator[GeneratedImage]:
        """One image a description, of the true class and of the cues that can be drawn.

        Raises:
            ImageGeneratorError: there is no pictogram of the true class.
        """
        true = self.concept(true_class)
        if true is None:
            near = get_close_matches(true_class, self.sprites, n=5, cutoff=0.0)
            raise ImageGeneratorError(
                f"there is no pictogram of {true_class!r} among {len(self.sprites)}: choose "
                f"another true class (such as {', '.join(near)}) or a text-to-image model"
            )
        for description, seed in zip(descriptions, seeds, strict=True):
            cues = [self.concept(cue) for cue in description.cues]
            image, seen = self._compose(true, [cue for cue in cues if cue is not None], seed)
            yield GeneratedImage(image, description, seed, seen)

    def _compose(
        self, true: str, cues: Sequence[str], seed: int
    ) -> tuple[Image.Image, tuple[str, ...]]:
        """The image, and what is to be seen in it; the true object depends on the seed alone."""
        rng = np.random.default_rng(seed)
        canvas = ground(self._size, rng)
        placed = [self._place(true, TRUE_SIDE, [], rng)]
        for cue in cues:
            placed.append(self._place(cue, CUE_SIDE, placed, rng))
        owner = np.full((self._size, self._size), -1)
        for number, place in reversed(list(enumerate(placed))):
            layer = Image.new("RGBA", canvas.size)
            corner = (
                round(side * self._size - length / 2)
                for side, length in zip((place.x, place.y), place.drawing.size, strict=True)
            )
            layer.paste(place.drawing, tuple(corner))
            canvas.paste(layer, mask=layer)
            owner[np.asarray(layer)[..., 3] > 127] = number
        seen = (p.concept for i, p in enumerate(placed) if (owner == i).mean() >= VISIBLE)
        return canvas, tuple(seen)

    def _place(
        self, concept: str, sides: tuple[float, float], taken: Sequence[Placement], rng
    ) -> Placement:
        """Somewhere inside the image, where it covers little of what is there already."""
        drawings = self.sprites[concept]
        # Premultiplied, so that invisible pixels lend no colour to the edge.
        drawing = Image.fromarray(drawings[rng.integers(len(drawings))]).convert("RGBa")
        scale = float(rng.uniform(*sides))
        factor = scale * self._size / max(drawing.size)
        size = tuple(max(1, round(side * factor)) for side in drawing.size)
        drawing = drawing.resize(size, Image.Resampling.BOX).convert("RGBA")
        if rng.integers(2):
            drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        places = [
            Placement(concept, drawing, *rng.uniform(scale / 2, 1 - scale / 2, 2).tolist(), scale)
            for _ in range(PLACES_TRIED if taken else 1)
        ]
        return min(places, key=lambda place: sum(overlap(place, other) for other in taken))


def pictogram_composer(
    size: int = 64, path: str | Path | None = None, heldout: bool = False
) -> Composer:
    """A composer with a pack of pictograms, by default the bundled one.

    Args:
        size: side of the images in pixels.
        path: another pack.
        heldout: draw in the style that the small CLIP never saw.
    """
    pack = load_pictograms(path, heldout)
    return Composer(pictogram_sprites(pack), pack.synonyms, size)


def pictogram_sprites(pack: Pictograms) -> Sprites:
    """A pack's concepts, each with its drawings of all styles."""
    numbers = {
        concept: [n for style in pack.styles for n in pack.entries.get((concept, style), ())]
        for concept in pack.concepts
    }
    return {name: _Drawings(pack, rows) for name, rows in numbers.items() if rows}


@dataclass(frozen=True)
class _Drawings(Sequence):
    """A concept's drawings, each decoded when it is first drawn."""

    pack: Pictograms
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index) -> np.ndarray:
        return self.pack.image(self.numbers[index])


def photograph_composer(size: int = 64, heldout: bool = False) -> Composer:
    """A composer that pastes the shipped photographs of a name where there are at least two.

    They are pasted whole, as pictures in the image; other names are drawn as pictograms.

    Args:
        size: side of the images in pixels.
        heldout: paste the half of each name's photographs that figures are reported on; the other
            half is for choosing settings.

    Raises:
        FileNotFoundError: outside a checkout, where no photographs lie.
    """
    photographs = PastedPhotographs(load_photographs(), int(heldout))
    pictograms = load_pictograms()
    pasted = {name: _Pasted(photographs, name) for name in photographs.rows}
    sprites = pictogram_sprites(pictograms) | pasted
    return Composer(sprites, pictograms.synonyms, size, load_names())


@dataclass(frozen=True)
class _Pasted(Sequence):
    """A name's photographs, decoded when the first of them is wanted."""

    photographs: PastedPhotographs
    name: str

    def __len__(self) -> int:
        return len(self.photographs.rows[self.name])

    def __getitem__(self, index) -> np.ndarray:
        return self.photographs.variants(self.name, "photograph")[index]


def ground(size: int, rng: np.random.Generator) -> Image.Image:
    """A light ground of one colour or shading into another."""
    first, second = rng.integers(150, 256, (2, 3))
    second = first if rng.integers(2) else second
    along = np.linspace(0, 1, size)[:, None, None]
    rows = first + (second - first) * along + np.zeros((1, size, 1))
    rows = rows if rng.integers(2) else rows.transpose(1, 0, 2)
    return Image.fromarray(rows.round().astype(np.uint8))


def overlap(placement: Placement, other: Placement) -> float:
    """Area that the squares of two placements share."""
    reach = (placement.scale + other.scale) / 2
    smaller = min(placement.scale, other.scale)
    width = min(reach - abs(placement.x - other.x), smaller)
    height = min(reach - abs(placement.y - other.y), smaller)
    return max(0.0, width) * max(0.0, height)


def _key(text: str) -> str:
    """Stems of a text's words, without the article."""
    return " ".join(stem(word) for word in content(text))
