"""`python -m export evaluate --concepts`: are the things in a picture among its concepts?

Composed scenes of the held-out style have known contents. Recall at 10 is the share of a scene's
objects that are named by one of the ten texts that a method gives the largest weights ("a gray
cat" names a cat), whatever the method.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.analysis.textspan import TextSpanReader
from clipneurons.bundle.bundle import Bundle
from clipneurons.explore.concepts import WAYS, ConceptReader
from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError

TOP = 10
_RECALL = f"recall_at_{TOP}"
_SEED, _FIT_SEED = 20_000, 30_000
_FIT_IMAGES = 500
_BATCH = 50

Labelled = Iterable[tuple[Float[Tensor, "image 3 height width"], list[tuple[str, ...]]]]


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """Recall at 10 of each method on scenes of the held-out style, for `metrics.json`."""
    count = args.concept_scenes
    fit = _scenes(clip, _FIT_IMAGES, _FIT_SEED, heldout=False)
    result = measure_on(
        bundle, clip, _scenes(clip, count, _SEED, heldout=True), (images for images, _ in fit)
    )
    return {"data": f"{count} composed scenes of the held-out style"} | result


def measure_on(
    bundle: Bundle,
    clip: ClipModel,
    scenes: Labelled,
    fit: Iterable[Float[Tensor, "image 3 height width"]],
) -> dict:
    """Recall of each method on labelled batches; TextSpan finds its texts on `fit`.

    Objects whose name the pool does not have cannot be found by any method; they are left out
    and counted.
    """
    reader = ConceptReader(make_lens(clip, bundle.config.layers), bundle)
    methods: dict[str, Callable[[Tensor, dict, Tensor], Tensor]] = {
        way: lambda rep, effects, pixels, way=way: reader.weights(effects, way) for way in WAYS
    }
    methods |= {
        "nearest_texts": lambda rep, effects, pixels: reader.nearest_texts(rep),
    }
    if clip.kind == "vit":
        span = TextSpanReader.fit(FirstOrderLens(clip), fit, bundle.text_embeddings)
        methods["text_span"] = lambda rep, effects, pixels: span(pixels)
    naming = _Naming(bundle.texts)
    recalls: dict[str, list[float]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    images = unknown = objects = 0
    for pixels, names in scenes:
        pixels = pixels.to(clip.device)
        representation, effects = reader(pixels)
        wanted = [[naming[name] for name in set(shown) if naming[name]] for shown in names]
        shown = sum(len(set(one)) for one in names)
        objects, unknown = objects + shown, unknown + shown - sum(map(len, wanted))
        images += len(pixels)
        for name, method in methods.items():
            start = time.perf_counter()
            found = recall_at(method(representation, effects, pixels), wanted, TOP)
            seconds[name] += time.perf_counter() - start
            recalls[name] += found
    if not images or not recalls[WAYS[0]]:
        raise UserError("no object of the scenes is among the bundle's texts: nothing to measure")
    means = {name: sum(values) / len(values) for name, values in recalls.items()}
    return {
        "images": images,
        "objects": objects,
        "objects_not_in_pool": unknown,
        "pool": len(bundle.texts),
        "chance": round(_chance(list(naming.values()), len(bundle.texts), TOP), 4),
        _RECALL: {name: round(mean, 4) for name, mean in means.items()},
        "interval_95": {name: _interval(values) for name, values in recalls.items()},
    }


def in_words(figures: Mapping) -> str:
    """Recall of every method, and by chance, in one line."""
    recall = ", ".join(f"{n.replace('_', ' ')} {r:.1%}" for n, r in figures[_RECALL].items())
    return f"concepts  {_RECALL.replace('_', ' ')} {recall}; chance {figures['chance']:.1%}"


class _Naming(dict):
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


def _chance(places: Sequence[frozenset[int]], texts: int, top: int) -> float:
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
    from PIL import Image

    from clipneurons.synthetic.pictograms import load_pictograms
    from clipneurons.synthetic.scenes import SceneConfig, Scenes

    pack = load_pictograms(heldout=heldout)
    scenes = Scenes(pack, SceneConfig(size=max(clip.image_size)), count, seed)
    for start in range(0, count, _BATCH):
        some = [scenes[i] for i in range(start, min(start + _BATCH, count))]
        pixels = torch.stack([clip.preprocess(Image.fromarray(one.image)) for one in some])
        yield pixels, [tuple(thing.name.lower() for thing in one.objects) for one in some]
