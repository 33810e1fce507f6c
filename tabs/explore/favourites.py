"""Neurons that a visitor keeps: in the address, such as `fav=4.12_3.7`, and as a row of links."""

from __future__ import annotations

import re
from html import escape

from tabs.server.session import BundleSession
from tabs.ui.plots import link
from tabs.ui.units import unit_title

MOST = 24
_UNIT = re.compile(r"(\d{1,4})\.(\d{1,7})")


def parse(text: str) -> list[tuple[int, int]]:
    """Layers and units of an address's text; what is none is left out."""
    found = (_UNIT.fullmatch(part) for part in text[:2000].split("_"))
    units = [(int(one[1]), int(one[2])) for one in found if one]
    return list(dict.fromkeys(units))[:MOST]


def toggled(text: str, layer: int, unit: int) -> str:
    """The address's text with a unit, or without it if it was there.

    Raises:
        ValueError: one more than 24.
    """
    units = parse(text)
    if (layer, unit) in units:
        units.remove((layer, unit))
    elif len(units) == MOST:
        raise ValueError(f"An address keeps at most {MOST} favourites: take one out first.")
    else:
        units.append((layer, unit))
    return "_".join(f"{one}.{other}" for one, other in units)


def html_of(session: BundleSession, units: list[tuple[int, int]]) -> str:
    """Links to those that the bundle has."""
    dictionary = session.dictionary
    chips = [
        link(
            unit_title(session.bundle, layer, unit),
            tab="explore", layer=layer, unit=unit, bundle=session.key,
        )
        for layer, unit in units
        if layer in dictionary.layers and unit < dictionary.units(layer)
    ]  # fmt: skip
    if not chips:
        return ""
    return f'<div class="cn-try"><span>{escape("★ Favourites")}</span> {" ".join(chips)}</div>'
