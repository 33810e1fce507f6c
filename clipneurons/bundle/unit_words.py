"""How a unit's words are written: the same on the page, in reports and in data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipneurons.bundle.bundle import Bundle

_ARTICLE = re.compile(r"^(−?)(?:an?|the)\s+(?=\S)", re.IGNORECASE)


def neuron_and_head(unit: int, heads: int) -> tuple[int, int | None]:
    """The neuron of a unit, and its head where a neuron has several units (a ResNet's pairs)."""
    return unit // heads, unit % heads if heads > 1 else None


def unit_name(neuron: int, head: int | None, noun: str = "neuron") -> str:
    """What a unit is called; `noun` is that of its bundle (`BundleConfig.noun`)."""
    return f"{noun} {neuron}" if head is None else f"{noun} {neuron}, head {head}"


def plain(text: str) -> str:
    """A text as a name, without the article that it begins with ("a tennis"); a minus stays."""
    return _ARTICLE.sub(r"\1", text)


def signed(text: str, coefficient: float) -> str:
    """A phrase, with a minus before it when its unit writes against it."""
    return text if coefficient > 0 else f"−{text}"


def signed_words(bundle: Bundle, layer: int, unit: int) -> list[str]:
    """A unit's name in texts: those of its reliable label, without articles, each `signed`.

    Empty for a unit without a reliable label, which is shown by its number.
    """
    label = bundle.label(layer, unit)
    if label is None or not label.reliable:
        return []
    pairs = zip(label.texts, label.weights, strict=True)
    return [signed(plain(text), weight) for text, weight in pairs]
