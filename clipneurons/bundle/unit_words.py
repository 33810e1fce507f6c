"""How a unit's words are written: the same on the page, in reports and in data."""

from __future__ import annotations

import re

from clipneurons.bundle.bundle import Bundle

_ARTICLE = re.compile(r"^(−?)(?:an?|the)\s+(?=\S)", re.IGNORECASE)


def plain(text: str) -> str:
    """A text as a name, without the article that it begins with ("a tennis"); a minus stays."""
    return _ARTICLE.sub(r"\1", text)


def signed(text: str, coefficient: float) -> str:
    """A phrase, with a minus before it when its unit writes against it."""
    return text if coefficient > 0 else f"−{text}"


def signed_words(bundle: Bundle, layer: int, unit: int, count: int = 4) -> list[str]:
    """The first phrases of a unit's label, each `signed`."""
    return [signed(text, c) for text, c in bundle.label(layer, unit, count)]
