"""A reading as data: for programs, and for the page's script."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from clipneurons.images.convert import from_pixels
from tabs.edit.edits import for_real
from tabs.edit.reading import Reading
from tabs.edit.view import edit_html
from tabs.server.session import BundleSession
from tabs.ui.image_input import image_uri

if TYPE_CHECKING:
    from torch import Tensor


def edited_data(session: BundleSession, reading: Reading) -> dict:
    """A reading as data, with what the model itself says under the edit where that can be."""
    try:
        real = for_real(session, reading, reading.edit)[0]
    except ValueError:  # a tower into whose weights an edit cannot be folded
        real = None
    return reading_data(reading, real)


def reading_data(reading: Reading, real: list[float] | None = None) -> dict:
    """A reading as the endpoint gives it."""
    columns = zip(reading.names, reading.before(), reading.after(), strict=True)
    return {
        "bundle": reading.bundle,
        "shares": "cosine" if reading.scale is None else "probability",
        "top": reading.names[reading.top],
        "against": reading.names[reading.wanted],
        "never_trained": list(reading.never_trained),
        "classes": [
            {"name": name, "before": before, "after": after,
             "for_real": real[i] if real else None}
            for i, (name, before, after) in enumerate(columns)
        ],
        "neurons": [
            {
                "layer": part.rules[0].layer, "unit": part.rules[0].unit,
                "factor": part.rules[0].factor, "adds": part.adds, "says": part.says,
                "reliable": part.label and part.label.reliable, "map": part.map,
            }
            for part in reading.parts
            if part.kind == "unit"
        ],
        "edit": reading.edit.to_json(),
    }  # fmt: skip


def page_data(reading: Reading) -> dict:
    """What the page's script needs to move the bars: rounded inner products, an edit's parts."""

    def rounded(rows: Tensor) -> list[list[float]]:
        return [[float(f"{value:.6g}") for value in row] for row in rows.tolist()]

    return {
        "bundle": reading.bundle, "picture": reading.picture, "names": list(reading.names),
        "wanted": reading.names[reading.wanted], "top": reading.names[reading.top],
        "scale": reading.scale, "sha": reading.edit.weights_sha256,
        "parts": [
            {"kind": part.kind, "rules": [asdict(rule) for rule in part.rules]}
            for part in reading.parts
        ],
        "previews": [{"gram": rounded(p.gram), "along": rounded(p.along)}
                     for p in reading.previews],
    }  # fmt: skip


def shown(session: BundleSession, reading: Reading, note: str = "") -> str:
    """The reading as HTML."""
    config = session.bundle.config
    seen = [from_pixels(row, config.image_mean, config.image_std) for row in reading.pixels]
    return edit_html(reading, page_data(reading), [image_uri(image) for image in seen], note)
