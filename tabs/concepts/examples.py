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
# Names of shipped photographs, and which of each.
_PHOTOGRAPHS = (
    ("leopard", 0), ("sunflower", 0), ("motorcycle", 0), ("grand piano", 0), ("butterfly", 0),
    ("airplane", 0),
)  # fmt: skip
_NO_READING = (KeyError, TypeError, ValueError, IndexError, AttributeError)


def examples(session: BundleSession) -> list[tuple[Image.Image, str]]:
    """Photographs to try, with what they show; images of the gallery where none are installed."""
    return session.cached("concept examples", lambda: _photographs() or _of_gallery(session))


def _photographs() -> list[tuple[Image.Image, str]]:
    """Of those that ship with the project, one of each name."""
    from clipneurons.synthetic.photographs import load_photographs

    try:
        photographs = load_photographs()
    except FileNotFoundError:
        return []
    rows = [(photographs.by_name[name][at], name) for name, at in _PHOTOGRAPHS]
    return [(Image.fromarray(photographs.image(row)), name) for row, name in rows]


def _of_gallery(session: BundleSession) -> list[tuple[Image.Image, str]]:
    caption = session.bundle.examples.caption
    return [(session.image(number), caption(number)) for number in session.sample(_EXAMPLES)]


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
