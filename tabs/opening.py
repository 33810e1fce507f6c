"""What a tab opens with: the examples that a bundle ships (`examples/opening.json`).

A bundle may come from a stranger: what does not have the form of an example is left out, and
pictures are taken from the gallery alone.
"""

from __future__ import annotations

from PIL import Image

from tabs.image_reading import picture_of
from tabs.server.session import BundleSession
from tabs.shift_reading import Compared
from tabs.ui.concept_card import concepts_html
from tabs.ui.image_input import image_uri
from tabs.ui.neuron_card import says
from tabs.ui.shift_card import unit_rows, verdict_html, words_html

_UNFIT = (KeyError, TypeError, ValueError, IndexError, AttributeError)


def opening_concepts(session: BundleSession) -> tuple[Image.Image, dict, str] | None:
    """A picture, its reading as `discover` gives it, and that as HTML; None where none is shipped.

    Made once, with no need of the model.
    """
    return session.cached("opening concepts", lambda: _concepts(session))


def _concepts(session: BundleSession) -> tuple[Image.Image, dict, str] | None:
    try:
        shipped = session.bundle.opening["concepts"]
        image = picture_of(session, shipped["pictures"][0])
        found = dict(shipped["reading"])
        found["neurons"] = [
            one | {"phrases": says(session.bundle, one["layer"], one["unit"])}
            for one in found["neurons"]
        ]
        found["shown"] = image_uri(image)
        return image, found, concepts_html(session.key, found)
    except _UNFIT:
        return None


def opening_shift(session: BundleSession) -> tuple[Compared, str] | None:
    """A comparison of the bundle's own pictures, and the word of the drawing on some of them.

    Made once, with no need of the model.
    """
    return session.cached("opening shift", lambda: _shift(session))


def _shift(session: BundleSession) -> tuple[Compared, str] | None:
    from clipneurons.shift.planted import planted_mark

    try:
        shipped = session.bundle.opening["shift"]
        pictures = [picture_of(session, number) for number in shipped["pictures"]]
        old, new, word = planted_mark(pictures, session.bundle.texts, shipped["word"])
        compared = Compared({"bundle": session.key} | shipped["reading"], old, new)
        data = compared.data
        verdict_html(data), words_html(data), unit_rows(data, session.bundle)
    except (*_UNFIT, FileNotFoundError):
        return None
    return compared, word
