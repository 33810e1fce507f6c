"""How lists and bars name a unit: layer, number and reliable label."""

from __future__ import annotations

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.unit_words import signed_words
from tabs.ui.plots import Bar


def says(bundle: Bundle, layer: int, unit: int) -> str:
    """The unit's reliable label as one line; empty where it has none."""
    return ", ".join(signed_words(bundle, layer, unit))


def unit_title(bundle: Bundle, layer: int, unit: int) -> str:
    """What a list calls a unit: layer, number and reliable label."""
    return f"{layer} · {unit}  {says(bundle, layer, unit)}".rstrip()


def unit_bar(key: str, bundle: Bundle, layer: int, unit: int, value: float, hint: str = "") -> Bar:
    """A unit with its label and a value, as a bar that leads to its dashboard."""
    link = {"tab": "explore", "layer": layer, "unit": unit, "bundle": key}
    return Bar(unit_title(bundle, layer, unit), value, hint, link)
