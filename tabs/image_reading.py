"""What the Concepts tab does, as data: images read, several compared, examples to try."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from tabs.server.session import BundleSession
from tabs.server.uploads import open_image
from tabs.ui.image_input import image_uri
from tabs.ui.neuron_card import says
from tabs.ui.unknown_words import untrained

if TYPE_CHECKING:
    from clipneurons.concepts.concepts import ConceptReader
    from clipneurons.statistics.textspan import TextSpanReader

# The ways of `ConceptReader.weights`, and what the page calls them.
WAYS = [
    ("all that neurons write", "dense"),
    ("the same, place by place", "by-place"),
    ("phrases, signed weights", "sparse-projection"),
    ("phrases, the paper’s weights", "sparse-norm"),
]
MOST_IMAGES = 8
NO_PICTURE = "Choose, paste or take a picture first."
_EXAMPLES, _SPAN_IMAGES, _BATCH, _TOP = 6, 256, 32, 10


def reader_of(session: BundleSession) -> ConceptReader:
    """What concepts are read with, prepared once a model."""
    from clipneurons.concepts.concepts import ConceptReader

    return session.cached("concepts", lambda: ConceptReader(session.lens, session.bundle))


def default_way(session: BundleSession) -> str:
    """The variant that finds most of the true objects, as far as it was measured."""
    recall = session.bundle.metrics.get("concepts", {}).get("recall_at_10", {})
    return max((way for _, way in WAYS), key=lambda way: recall.get(way, 0))


def discover(session: BundleSession, image: Image.Image | None, way: str, top: int = _TOP) -> dict:
    """Concepts of an image (`read_image`), its neurons' words, and the picture as it was seen."""
    from clipneurons.concepts.image_reading import as_seen, read_image

    if image is None:
        raise ValueError(NO_PICTURE)
    reader = reader_of(session)
    found = read_image(reader, image, way, top)
    for one in found["neurons"]:
        one["phrases"] = says(session.bundle, one["layer"], one["unit"])
    shown = [one["text"] for one in found["concepts"]]
    return found | {
        "never_trained": untrained(session, shown),
        "shown": image_uri(as_seen(reader, image)),
    }


def heads_say(
    session: BundleSession,
    image: Image.Image | None,
    progress: Callable[[int, int, str], object] = lambda done, of, what: None,
) -> list[dict] | None:
    """What the attention heads say of an image (TextSpan); None where it is not defined.

    The first call finds the texts of every head, which takes a minute on a large model.
    """
    from clipneurons.concepts.concepts import top_concepts
    from clipneurons.concepts.image_reading import pairs

    if image is None:
        raise ValueError(NO_PICTURE)
    if session.bundle.config.kind != "vit" or not len(session.bundle.examples):
        return None
    reader = session.cached("text span", lambda: _text_span(session, progress))
    pixels = session.clip.preprocess(image)[None].to(session.clip.device)
    return pairs(top_concepts(reader(pixels)[0], session.bundle.texts, _TOP))


def _text_span(session: BundleSession, progress: Callable) -> TextSpanReader:
    """The texts of the model's heads, from a sample of the gallery."""
    import torch

    from clipneurons.lens.first_order import FirstOrderLens
    from clipneurons.statistics.textspan import TextSpanReader

    images = session.sample(_SPAN_IMAGES)

    def batches():
        for first in range(0, len(images), _BATCH):
            progress(first, len(images), "Reading pictures of the gallery")
            yield torch.stack([session.pixels(image) for image in images[first : first + _BATCH]])

    def of_heads(done: int, heads: int) -> None:
        progress(done, heads, "Finding the texts of each attention head")

    lens = FirstOrderLens(session.clip)
    texts = session.bundle.text_embeddings
    return TextSpanReader.fit(lens, batches(), texts, count=30, progress=of_heads)


def contrast(session: BundleSession, images: list[Image.Image], way: str) -> dict:
    """What several images have in common, and what sets each apart."""
    import torch

    from clipneurons.concepts.concepts import compare
    from clipneurons.concepts.image_reading import as_seen, pairs

    if len(images) < 2:
        raise ValueError("Choose at least two pictures to compare.")
    if len(images) > MOST_IMAGES:
        raise ValueError(f"At most {MOST_IMAGES} pictures at once, please.")
    reader = reader_of(session)
    pixels = torch.stack([session.clip.preprocess(image) for image in images])
    found = compare(reader.weights(reader(pixels)[1], way), session.bundle.texts)
    return {
        "common": pairs(found.common),
        "only": [pairs(own) for own in found.only],
        "shown": [image_uri(as_seen(reader, image)) for image in images],
    }


def picture_of(session: BundleSession, number: int) -> Image.Image:
    """A picture of the bundle's gallery."""
    return open_image(BytesIO(session.bundle.examples[number]))


def example_numbers(session: BundleSession) -> list[int]:
    """Numbers of a few gallery pictures to try: those that were read best, where that is known."""
    shipped = session.bundle.opening.get("concepts")
    best = shipped.get("pictures") if isinstance(shipped, dict) else None
    known = set(session.bundle.examples)
    if isinstance(best, list) and best and all(isinstance(n, int) and n in known for n in best):
        return best[:_EXAMPLES]
    return session.sample(_EXAMPLES)


def examples_of(session: BundleSession) -> list[tuple[Image.Image, str]]:
    """A few gallery pictures to try, with their captions."""
    caption = session.bundle.examples.caption
    return [(picture_of(session, one), caption(one)) for one in example_numbers(session)]
