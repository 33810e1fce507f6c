"""What the page opens with, made once and shipped: a picture read, two sets compared, class pairs.

A visitor sees results before the model is loaded, and without asking. The pictures are the
gallery's own; those are chosen in which the neurons find what the caption says.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from PIL import Image

from clipneurons.bundle.bundle import Bundle
from clipneurons.concepts.concepts import DENSE, WAYS, ConceptReader, top_concepts
from clipneurons.concepts.image_reading import read_image
from clipneurons.lens.make import Lens
from clipneurons.shift.comparison import EmbeddedTextPool
from clipneurons.shift.planted import IMAGES, marks, planted_mark
from clipneurons.shift.profile import Profiler
from clipneurons.shift.reading import LEVEL, read_shift
from clipneurons.text.class_names import names
from export.pipeline.misleading_pairs import misleading_pairs

TRIED, SHOWN, _TOP, _DIGITS = 64, 6, 10, 5


def opening(bundle: Bundle, lens: Lens) -> dict:
    """The examples of `examples/opening.json`, as far as the bundle has what they need."""
    if bundle.config.shared_bias or len(bundle.examples) < SHOWN:
        return {}
    found = {
        "concepts": _concepts(bundle, lens), "shift": _shift(bundle, lens),
        "pairs": misleading_pairs(bundle, lens.clip),
    }  # fmt: skip
    return {name: _rounded(one) for name, one in found.items() if one}


def _concepts(bundle: Bundle, lens: Lens) -> dict:
    """Pictures to try, the best first, and the reading of that one."""
    recall = bundle.metrics.get("concepts", {}).get("recall_at_10", {})
    way = max((DENSE, *WAYS), key=lambda one: recall.get(one, 0))
    reader = ConceptReader(lens, bundle)
    order = best_read(reader, way, bundle.examples.spread(TRIED))
    best = varied(order, bundle.examples.caption)[:SHOWN]
    return {"pictures": best, "reading": read_image(reader, picture(bundle, best[0]), way)}


def best_read(reader: ConceptReader, way: str, images: list[int]) -> list[int]:
    """Pictures of the gallery by the rank of the first concept that their caption names."""
    bundle = reader.bundle
    order = []
    for number in images:
        pixels = reader.lens.clip.preprocess(picture(bundle, number))[None]
        weights = reader.weights(reader(pixels)[1], way)[0]
        said, caption = top_concepts(weights, bundle.texts, _TOP), bundle.examples.caption(number)
        hits = [rank for rank, (text, _) in enumerate(said) if names(caption, text)]
        # Of two that are found as early, the one of which more is found, then the clearer one.
        clear = said[0][1] / max(float(weights.std()), 1e-12) if said else 0.0
        order.append((hits[0] if hits else _TOP, -len(hits), -clear, number))
    return [number for *_, number in sorted(order)]


def varied(order: list[int], caption: Callable[[int], str]) -> list[int]:
    """The same pictures, those last whose caption one before them has."""
    first = list({caption(number): number for number in reversed(order)}.values())
    return sorted(order, key=lambda number: number not in first)


def _shift(bundle: Bundle, lens: Lens) -> dict:
    """The comparison with a drawing stuck on some of the pictures; none without pictograms.

    Of a few drawings the first that makes a difference, else the one that comes nearest.
    """
    numbers = bundle.examples.spread(2 * IMAGES)
    pictures = [picture(bundle, one) for one in numbers]
    profiler, pool = Profiler(lens, bundle), EmbeddedTextPool.of(bundle)
    best: dict = {}
    try:
        for word in marks(bundle.texts):
            old, new, _ = planted_mark(pictures, bundle.texts, word)
            reading = read_shift(profiler, pool, old, new)
            if not best or reading["p"] < best["reading"]["p"]:
                best = {"pictures": numbers, "word": word, "reading": reading}
            if reading["p"] <= LEVEL:
                break
    except FileNotFoundError:
        return {}
    return best


def picture(bundle: Bundle, number: int) -> Image.Image:
    """A picture of the gallery."""
    with Image.open(BytesIO(bundle.examples[number])) as image:
        return image.convert("RGB")


def _rounded(value):
    """Numbers as short as a page shows them, so that small differences of a sum change no byte."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
