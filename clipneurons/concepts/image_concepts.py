"""Concepts of one image, and of several, as results: `read_image`, `compare_images`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.bundle.unit_words import plain, signed_words
from clipneurons.concepts.concepts import TOP, ConceptReader, Effects, top_concepts
from clipneurons.images.convert import from_pixels, is_flat
from clipneurons.notebook import article, bars, gallery, lit, number
from clipneurons.text.synonym_groups import synonym_groups

# Units in a result, groups of synonyms in its heading, texts that are grouped.
UNITS, HEADING, _GROUPED = 12, 3, 40
# Concepts with a map in a notebook.
_MAPS = 6


@dataclass(frozen=True)
class Concept:
    """A text with its weight in % and where it is: a map over patches in 0 to 1."""

    text: str
    weight: float
    map: list[list[float]] = field(repr=False)


@dataclass(frozen=True)
class NearestTexts:
    """A text near to the embedding of the whole image, with its synonyms; the first's cosine."""

    texts: list[str]
    cosine: float


@dataclass(frozen=True)
class UnitOnImage:
    """A unit that an image activates.

    Attributes:
        layer, unit: where it is.
        norm: norm of its centred effect on the image.
        projection: its effect along its direction.
        over_threshold: the norm over the unit's threshold.
        label: its reliable label in one line; empty without one.
    """

    layer: int
    unit: int
    norm: float
    projection: float
    over_threshold: float
    label: str


@dataclass(frozen=True)
class ImageConcepts:
    """What units write into one image, in texts, and where.

    Attributes:
        image: the image as the model sees it.
        recognised: whether it is more than one flat colour, which has no concepts.
        concepts: texts with their weights and maps, the largest first.
        heading: the first concepts of different meanings.
        zero_shot: texts nearest to the embedding of the whole image, synonyms together.
        zero_shot_agrees: whether the first of these is in the heading.
        neurons: units of the largest effects, of ``activated`` in all: those whose effect exceeds
            its ``percentile`` over the data.
        share_seen: share of the original image that the model's crop keeps.
    """

    image: Image.Image = field(repr=False)
    recognised: bool
    concepts: tuple[Concept, ...]
    heading: tuple[str, ...]
    zero_shot: tuple[NearestTexts, ...]
    zero_shot_agrees: bool
    neurons: tuple[UnitOnImage, ...]
    percentile: float
    activated: int
    share_seen: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """In JSON values, as the page's endpoint gives it; without the image."""
        return {
            "recognised": self.recognised,
            "concepts": [asdict(concept) for concept in self.concepts],
            "heading": list(self.heading),
            "zero_shot": [asdict(texts) for texts in self.zero_shot],
            "zero_shot_agrees": self.zero_shot_agrees,
            "neurons": [asdict(unit) for unit in self.neurons],
            "percentile": self.percentile,
            "activated": self.activated,
            "share_seen": self.share_seen,
        }

    def __repr__(self) -> str:
        if not self.concepts:
            return f"No concepts: {self._nothing}"
        lines = [f"Concepts: {', '.join(map(plain, self.heading))}"]
        lines += [f"  {concept.weight:5.1f} %  {concept.text}" for concept in self.concepts]
        units = (f"{u.layer}·{u.unit} ({number(u.norm)})" for u in self.neurons[:5])
        return "\n".join([*lines, f"  {self.activated} units activated: {', '.join(units)}"])

    def _repr_html_(self) -> str:
        if not self.concepts:
            return article("No concepts", gallery("Image", [(self.image, "")]), note=self._nothing)
        maps = [
            (lit(self.image, torch.tensor(concept.map)), concept.text)
            for concept in self.concepts[:_MAPS]
        ]
        nearest = ", ".join(texts.texts[0] for texts in self.zero_shot)
        units = [(f"{u.layer} · {u.unit}  {u.label}", u.norm) for u in self.neurons]
        return article(
            ", ".join(map(plain, self.heading)),
            gallery("Where", [(self.image, "as the model sees it"), *maps]),
            bars("Concepts, % of all effects", [(c.text, c.weight) for c in self.concepts], 1),
            bars("Units behind it: norm of the effect", units),
            note=f"Zero-shot, the whole image is nearest to: {nearest}.",
        )

    @property
    def _nothing(self) -> str:
        return (
            "the model's layers have no spatial tokens to read"
            if self.recognised
            else "the image is one flat colour"
        )


@torch.no_grad()
def read_image(
    reader: ConceptReader, pixels: Float[Tensor, "3 height width"], top: int = TOP,
    share_seen: float = 1.0,
) -> ImageConcepts:  # fmt: skip
    """Concepts of one preprocessed image; `share_seen` of the original is in it."""
    bundle = reader.bundle
    embedding, effects = reader(pixels[None])
    recognised = not is_flat(pixels, bundle.config.image_std)
    by_patch = reader.patch_weights(reader.written(effects)[0])  # [patch, text]
    weights = by_patch.sum(0) if recognised else torch.zeros(len(bundle.texts))
    order = weights.topk(min(max(int(top), 1), 50, len(weights))).indices.tolist()
    order = [text for text in order if weights[text] > 0]
    maps = by_patch[:, order].T.reshape(len(order), *reader.lens.clip.grid)
    cosines = reader.zero_shot(embedding)[0]
    heading = _groups(reader, order)
    nearest = _groups(reader, cosines.topk(min(_GROUPED, len(cosines))).indices.tolist())
    return ImageConcepts(
        image=from_pixels(pixels, bundle.config.image_mean, bundle.config.image_std),
        recognised=recognised,
        concepts=tuple(
            Concept(bundle.texts[text], weights[text].item(), _shares(map_))
            for text, map_ in zip(order, maps, strict=True)
        ),
        heading=tuple(bundle.texts[first] for first, *_ in heading),
        zero_shot=tuple(
            NearestTexts([bundle.texts[text] for text in group], cosines[group[0]].item())
            for group in nearest
        ),
        zero_shot_agrees=any(nearest[0][0] in group for group in heading),
        neurons=units_on_image(reader, effects, UNITS),
        percentile=bundle.config.percentile,
        activated=sum(int(layer.activated.sum()) for layer in effects.values()),
        share_seen=share_seen,
    )


def units_on_image(
    reader: ConceptReader, effects: dict[int, Effects], top: int
) -> tuple[UnitOnImage, ...]:
    """The units that the first image of a batch activates, the largest effects first."""
    return tuple(
        UnitOnImage(
            unit.layer, unit.unit, unit.norm, unit.projection, unit.excess,
            ", ".join(signed_words(reader.bundle, unit.layer, unit.unit)),
        )
        for unit in reader.activated(effects, top=top)
    )  # fmt: skip


def compare_images(
    reader: ConceptReader, images: Float[Tensor, "image 3 height width"], top: int = 8
) -> dict:
    """What several images have in common, and what sets each apart, in JSON values.

    Weights are relative to each image's largest. ``common`` concepts have the largest least
    weight over the images; ``only`` holds those of each image by what they have more than in any
    other. Raises `ValueError` for one image.
    """
    if len(images) < 2:
        raise ValueError(f"Comparing takes at least two images, not {len(images)}.")
    weights = reader.weights(reader.written(reader(images)[1]))
    return contrast(weights, reader.bundle.texts, top)


def contrast(
    weights: Float[Tensor, "image text"], texts: Sequence[str], top: int = 8
) -> dict[str, list]:
    """`compare_images` from the weights of the texts."""
    relative = weights / weights.amax(1, keepdim=True).clamp_min(1e-12)
    own = []
    for image in range(len(relative)):
        others = torch.cat([relative[:image], relative[image + 1 :]]).clamp_min(0).amax(0)
        own.append(_pairs(top_concepts(relative[image] - others, texts, top)))
    return {"common": _pairs(top_concepts(relative.amin(0), texts, top)), "only": own}


def _groups(reader: ConceptReader, order: Sequence[int]) -> list[list[int]]:
    """The first texts of different meanings, each with its synonyms in `order`."""
    texts = reader.bundle.texts
    return synonym_groups(order, texts, reader.texts, HEADING, spread=reader.spread)


def _shares(map_: Float[Tensor, "row column"]) -> list[list[float]]:
    shares = map_ / map_.amax().clamp_min(1e-12)
    return [[round(share, 3) for share in row] for row in shares.tolist()]


def _pairs(concepts: Sequence[tuple[str, float]]) -> list[dict]:
    return [{"text": text, "weight": weight} for text, weight in concepts]
