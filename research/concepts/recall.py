"""`python -m research concepts`: are the things in a picture among its concepts?

Composed scenes of the held-out style have known contents, the shipped photographs known names.
Recall at 10 is the share of an image's objects that are named by one of the ten texts that a
method gives the largest weights ("a gray cat" names a cat), whatever the method.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from operator import attrgetter
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.concepts.concepts import ConceptReader
from clipneurons.images.windows import window_starts
from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import token_effects_of
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError
from export.data.packed_sources import shipped_photographs
from research.concepts.paper_weights import paper_weights
from research.concepts.textspan import TextSpanReader

TOP = 10
_RECALL = f"recall_at_{TOP}"
BY_PLACE, PAPER, NEAREST = "by_place", "paper", "nearest_texts"
_SEED, _FIT_SEED = 20_000, 30_000
_FIT_IMAGES = 500
_BATCH = 50

Item = TypeVar("Item")
# Of embeddings, effects by layer and pixels, the weights of all texts [image, text].
Method = Callable[[Tensor, dict, Tensor], Tensor]
Labelled = Iterable[tuple[Float[Tensor, "image 3 height width"], list[tuple[str, ...]]]]


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """Recall at 10 of each method, for `metrics.json`: on scenes of the held-out style, on the
    photographs that are kept for figures, and on both."""
    sets = _sets(clip, args.scenes)
    fit = (images for images, _ in _scenes(clip, _FIT_IMAGES, _FIT_SEED, heldout=False))
    reader = ConceptReader(Lens.of_bundle(clip, bundle), bundle)
    methods, naming = _methods(reader, fit), Naming(bundle.texts)
    found = {name: _recalls(reader, methods, naming, labelled) for name, labelled in sets.items()}
    found = {name: one for name, one in found.items() if one.images}
    if not found:
        raise UserError("nothing that is shown is among the bundle's texts: nothing to measure")
    together = sum(found.values(), Recalls())
    return {
        "data": " and ".join(f"{one.images:,} held-out {name}" for name, one in found.items()),
        "pool": len(bundle.texts),
        "chance": round(chance_recall(list(naming.values()), len(bundle.texts), TOP), 4),
        **together.figures(),
        "sets": {name: one.figures() for name, one in found.items()},
    }


def recall_by_place(bundle: Bundle, clip: ClipModel, scenes: int) -> dict:
    """Recall at 10 of our method alone, on the same images."""
    reader = ConceptReader(Lens.of_bundle(clip, bundle), bundle)
    methods = {BY_PLACE: lambda rep, effects, pixels: reader.weights(reader.written(effects))}
    naming, sets = Naming(bundle.texts), _sets(clip, scenes).values()
    return sum((_recalls(reader, methods, naming, some) for some in sets), Recalls()).figures()


def _sets(clip: ClipModel, scenes: int) -> dict[str, Labelled]:
    """Composed scenes of the held-out style, and the photographs that are kept for figures."""
    return {
        "scenes": _scenes(clip, scenes, _SEED, heldout=True), "photographs": _photographs(clip),
    }  # fmt: skip


@dataclass(frozen=True)
class Recalls:
    """Each method's recall on every image whose objects have names among the texts.

    `objects` were shown; `unknown` of them have no name there, so that no method can find them.
    """

    by_method: Mapping[str, list[float]] = field(default_factory=dict)
    images: int = 0
    objects: int = 0
    unknown: int = 0

    def __add__(self, other: Recalls) -> Recalls:
        names = [*self.by_method, *(name for name in other.by_method if name not in self.by_method)]
        return Recalls(
            {name: [*self.by_method.get(name, ()), *other.by_method.get(name, ())]
             for name in names},
            self.images + other.images, self.objects + other.objects, self.unknown + other.unknown,
        )  # fmt: skip

    def figures(self) -> dict:
        """Means with intervals, also of what each image gains over its nearest texts."""
        means = {name: sum(values) / len(values) for name, values in self.by_method.items()}
        plain = self.by_method.get(NEAREST, [])
        leads = {
            name: _interval([a - b for a, b in zip(values, plain, strict=True)])
            for name, values in self.by_method.items()
            if plain and name != NEAREST
        }
        return {
            "images": self.images,
            "objects": self.objects,
            "objects_not_in_pool": self.unknown,
            _RECALL: {name: round(mean, 4) for name, mean in means.items()},
            "interval_95": {name: _interval(values) for name, values in self.by_method.items()},
            "ahead_of_nearest_texts_95": leads,
        }


def _methods(
    reader: ConceptReader, fit: Iterable[Float[Tensor, "image 3 height width"]]
) -> dict[str, Method]:
    """How each method weighs the texts; TextSpan finds its texts on `fit`.

    Ours and the paper's, and baselines without neurons: the nearest texts of the whole image and
    of nine windows, and of a ViT all that each patch writes to the embedding.
    """
    methods: dict[str, Method] = {
        BY_PLACE: lambda rep, effects, pixels: reader.weights(reader.written(effects)),
        PAPER: lambda rep, effects, pixels: paper_weights(reader.bundle, effects),
        NEAREST: lambda rep, effects, pixels: reader.zero_shot(rep),
    }
    methods["nearest_texts_in_windows"] = lambda rep, effects, pixels: _in_windows(reader, pixels)
    clip = reader.lens.clip
    if clip.kind == "vit":
        every = token_effects_of(clip)
        methods["all_by_place"] = lambda rep, effects, pixels: reader.weights(
            every(pixels)[:, clip.prefix :].cpu()
        )
        span = TextSpanReader.fit(FirstOrderLens(clip), fit, reader.bundle.text_embeddings)
        methods["text_span"] = lambda rep, effects, pixels: span(pixels)
    return methods


def _in_windows(
    reader: ConceptReader, pixels: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image text"]:
    """What the model says of 3 x 3 overlapping windows of half the side, each by its softmax."""
    height, width = pixels.shape[2:]
    total = torch.zeros(len(pixels), len(reader.texts))
    starts = (window_starts(side, side // 2, overlap=0.5) for side in (height, width))
    for top, left in itertools.product(*starts):
        window = pixels[:, :, top : top + height // 2, left : left + width // 2]
        whole = F.interpolate(window, (height, width), mode="bicubic", align_corners=False)
        cosines = reader.zero_shot(reader.lens.clip.encode_image(whole))
        total += (reader.logit_scale * cosines).softmax(1)
    return total


def _recalls(
    reader: ConceptReader, methods: Mapping[str, Method], naming: Naming, labelled: Labelled
) -> Recalls:
    total = Recalls()
    for pixels, names in labelled:
        wanted = [[naming[name] for name in set(shown) if naming[name]] for shown in names]
        shown, known = sum(len(set(one)) for one in names), sum(map(len, wanted))
        pixels = pixels.to(reader.lens.clip.device)
        seen = *reader(pixels), pixels
        found = {name: recall_at(method(*seen), wanted, TOP) for name, method in methods.items()}
        total += Recalls(found, sum(map(bool, wanted)), shown, shown - known)
    return total


def in_words(figures: Mapping) -> str:
    """Recall of every method, and by chance, a line a set of images."""
    lines = []
    for where, one in {"all": figures, **figures["sets"]}.items():
        recall = ", ".join(f"{n.replace('_', ' ')} {r:.1%}" for n, r in one[_RECALL].items())
        lines.append(f"concepts  {where}: {_RECALL.replace('_', ' ')} {recall}")
    return "\n".join([*lines, f"concepts  chance {figures['chance']:.1%}"])


class Naming(dict):
    """Name of an object -> places of the texts that hold it as whole words ("a gray cat")."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        self._texts = [text.lower() for text in texts]

    def __missing__(self, name: str) -> frozenset[int]:
        whole = re.compile(rf"\b{re.escape(name)}\b")
        self[name] = frozenset(
            i for i, t in enumerate(self._texts) if name in t and whole.search(t)
        )
        return self[name]


def recall_at(
    weights: Float[Tensor, "image text"], wanted: Sequence[Sequence[frozenset[int]]], top: int
) -> list[float]:
    """Share of each image's objects that one of its `top` texts names; images without left out."""
    best = weights.topk(min(top, weights.shape[1]), dim=1).indices.tolist()
    return [
        sum(not places.isdisjoint(found) for places in mine) / len(mine)
        for mine, found in zip(wanted, best, strict=True)
        if mine
    ]


def chance_recall(places: Sequence[frozenset[int]], texts: int, top: int) -> float:
    """Mean probability that one of `top` texts drawn at random names an object."""
    known = [len(one) for one in places if one]
    return sum(1 - (1 - count / texts) ** top for count in known) / max(len(known), 1)


def _interval(values: list[float]) -> list[float]:
    """95 % interval of the mean over images (normal approximation)."""
    mean = sum(values) / len(values)
    spread = sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1) / len(values))
    return [round(mean - 1.96 * spread, 4), round(mean + 1.96 * spread, 4)]


def _scenes(
    clip: ClipModel, count: int, seed: int, heldout: bool
) -> Iterator[tuple[Tensor, list[tuple[str, ...]]]]:
    from clipneurons.synthetic.pictograms import load_pictograms
    from clipneurons.synthetic.scenes import SceneConfig, Scenes

    pack = load_pictograms(heldout=heldout)
    scenes = Scenes(pack, SceneConfig(size=max(clip.image_size)), count, seed)
    for pixels, some in _preprocessed(clip, scenes, attrgetter("image"), _BATCH):
        yield pixels, [tuple(thing.name.lower() for thing in one.objects) for one in some]


def _photographs(clip: ClipModel) -> Iterator[tuple[Tensor, list[tuple[str, ...]]]]:
    pack = shipped_photographs(heldout=True).pack
    for pixels, rows in _preprocessed(clip, range(len(pack)), pack.image, _BATCH):
        yield pixels, [(pack.name(row),) for row in rows]


def _preprocessed(
    clip: ClipModel, items: Sequence[Item], pixels_of: Callable[[Item], np.ndarray], size: int
) -> Iterator[tuple[Float[Tensor, "image 3 height width"], list[Item]]]:
    """Preprocessed images, `size` at a time, and the items that they are of."""
    for start in range(0, len(items), size):
        some = [items[i] for i in range(start, min(start + size, len(items)))]
        images = [clip.preprocess(Image.fromarray(pixels_of(one))) for one in some]
        yield torch.stack(images), some
