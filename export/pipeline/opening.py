"""What the page shows before its model is loaded, made once and shipped with the bundle.

An image read, two sets of images compared, class pairs to confuse, and each unit's weaker images.
The images are those of the gallery, decoded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from clipneurons.adversarial.cues import CLASS_TEMPLATES
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.unit_words import plain
from clipneurons.concepts.concepts import ConceptReader, top_concepts
from clipneurons.concepts.image_concepts import read_image
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.shift.comparison import EmbeddedTextPool
from clipneurons.shift.planted import IMAGES, marks, planted_mark
from clipneurons.shift.profile import Profiler
from clipneurons.shift.report import ImageSet, compare_sets
from clipneurons.text.class_names import names
from clipneurons.text.embedding import embed_texts
from export.pipeline.gallery import DecodedGallery
from export.pipeline.weaker_images import with_weaker_images

TRIED, SHOWN, _TOP, _DIGITS = 64, 6, 10, 5
# Everyday things that there are pictograms of.
CLASS_PAIRS = (
    ("cat", "dog"), ("horse", "automobile"), ("ship", "truck"), ("bird", "frog"),
    ("duck", "rabbit"), ("airplane", "deer"), ("bicycle", "motorcycle"), ("apple", "flower"),
)  # fmt: skip


def with_opening(bundle: Bundle, lens: Lens) -> Bundle:
    """The bundle with its units' weaker images and with `examples/opening.json`.

    As far as it has what they need: a bundle with the shared bias has neither, since its effects
    cannot be centred.
    """
    if bundle.config.shared_bias or not bundle.examples:
        return replace(bundle, opening={})
    reader, gallery = ConceptReader(lens, bundle), DecodedGallery(bundle.examples)
    return replace(with_weaker_images(bundle, reader, gallery), opening=opening(reader, gallery))


def opening(reader: ConceptReader, gallery: DecodedGallery) -> dict:
    """The parts of `examples/opening.json`; none where the gallery is too small."""
    if len(gallery.examples) < SHOWN:
        return {}
    parts = {
        "concepts": _concepts(reader, gallery),
        "shift": planted_shift(reader, gallery),
        "pairs": class_pairs(reader.bundle, reader.lens.clip),
    }
    return {name: _rounded(part) for name, part in parts.items() if part}


def _concepts(reader: ConceptReader, gallery: DecodedGallery) -> dict:
    """Images to try, the best first, and the reading of that one."""
    bundle = reader.bundle
    order = best_read(reader, gallery, bundle.examples.spread(TRIED))
    best = varied(order, bundle.examples.caption)[:SHOWN]
    pixels = reader.lens.clip.preprocess(gallery[best[0]])
    return {"pictures": best, "reading": read_image(reader, pixels).to_dict()}


def best_read(reader: ConceptReader, gallery: DecodedGallery, numbers: list[int]) -> list[int]:
    """Images of the gallery by the rank of the first concept that their caption names."""
    bundle = reader.bundle
    order = []
    for number in numbers:
        pixels = reader.lens.clip.preprocess(gallery[number])[None]
        weights = reader.weights(reader.written(reader(pixels)[1]))[0]
        concepts, caption = (
            top_concepts(weights, bundle.texts, _TOP),
            bundle.examples.caption(number),
        )
        hits = [rank for rank, (text, _) in enumerate(concepts) if names(caption, text)]
        # Of two that are found as early, the one of which more is found, then the clearer one.
        clear = concepts[0][1] / max(float(weights.std()), 1e-12) if concepts else 0.0
        order.append((hits[0] if hits else _TOP, -len(hits), -clear, number))
    return [number for *_, number in sorted(order)]


def varied(order: list[int], caption: Callable[[int], str]) -> list[int]:
    """The same images, those last whose caption one before them has."""
    first = list({caption(number): number for number in reversed(order)}.values())
    return sorted(order, key=lambda number: number not in first)


def planted_shift(reader: ConceptReader, gallery: DecodedGallery) -> dict:
    """The comparison with a drawing stuck on some of the images; none without pictograms.

    Of a few drawings the first that makes a difference, else the one that comes nearest.
    """
    bundle = reader.bundle
    numbers = bundle.examples.spread(2 * IMAGES)
    images = [gallery[number] for number in numbers]
    profiler, pool = Profiler(reader.lens, bundle), EmbeddedTextPool.of(bundle)
    best: dict = {}
    try:
        for word in marks(bundle.texts):
            old, new, _ = planted_mark(images, bundle.texts, word)
            sets = (ImageSet(profiler.of_images(side), side.__getitem__) for side in (old, new))
            report = compare_sets(profiler, pool, *sets).to_dict()
            if not best or report["p"] < best["report"]["p"]:
                best = {"images": numbers, "word": word, "report": report}
            if report["significant"]:
                break
    except FileNotFoundError:
        return {}
    return best


def class_pairs(bundle: Bundle, clip: ClipModel) -> list[tuple[str, str]]:
    """The class pairs that the bundle's texts name, those first whose classes are most alike.

    These are confused most often, by the paper's cues too; the cues' scores do not tell which.
    """
    known = {plain(text) for text in bundle.texts}
    pairs = [pair for pair in CLASS_PAIRS if known.issuperset(pair)]

    def similarity(pair: tuple[str, str]) -> float:
        true_class, target_class = embed_texts(clip, list(pair), CLASS_TEMPLATES)
        return float(true_class @ target_class)

    return sorted(pairs, key=similarity, reverse=True)


def _rounded(value: Any) -> Any:
    """Numbers as short as a page shows them, so that small differences of a sum change no byte."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
