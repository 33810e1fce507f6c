"""Images to try, and the reading that a bundle ships for the tab to open with.

A bundle may come from a stranger: a reading that has not the form of one is left out, and images
are taken from the gallery alone.
"""

from __future__ import annotations

from PIL import Image

from tabs.concepts.view import concepts_html
from tabs.server.session import BundleSession
from tabs.ui.image_input import image_uri
from tabs.ui.units import says

_EXAMPLES = 6
_NO_READING = (KeyError, TypeError, ValueError, IndexError, AttributeError)


def example_numbers(session: BundleSession) -> list[int]:
    """Gallery images to try: those whose captions are found best, where that is known."""
    shipped = session.bundle.opening.get("concepts")
    best = shipped.get("pictures") if isinstance(shipped, dict) else None
    gallery = set(session.bundle.examples)
    if isinstance(best, list) and best and all(isinstance(n, int) and n in gallery for n in best):
        return best[:_EXAMPLES]
    return session.sample(_EXAMPLES)


def examples(session: BundleSession) -> list[tuple[Image.Image, str]]:
    """The images to try, with their captions."""
    caption = session.bundle.examples.caption
    return [(session.image(number), caption(number)) for number in example_numbers(session)]


def opening_concepts(session: BundleSession) -> tuple[Image.Image, dict, str] | None:
    """An image, its concepts as the endpoint gives them, and as HTML; None where none is shipped.

    Made once, without the model.
    """
    return session.cached("opening concepts", lambda: _opening(session))


def _opening(session: BundleSession) -> tuple[Image.Image, dict, str] | None:
    try:
        shipped = session.bundle.opening["concepts"]
        image = session.image(shipped["pictures"][0])
        concepts = dict(shipped["reading"])
        concepts["neurons"] = [
            neuron | {"label": says(session.bundle, neuron["layer"], neuron["unit"])}
            for neuron in concepts["neurons"]
        ]
        concepts |= {"shown": image_uri(image), "share_seen": 1.0}
        return image, concepts, concepts_html(session.key, concepts)
    except _NO_READING:
        return None
