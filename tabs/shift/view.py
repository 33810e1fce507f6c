"""A comparison of two image sets as HTML and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw

from clipneurons.bundle.bundle import Bundle
from tabs.ui.plots import Bar, bars, figures, folded, link, section
from tabs.ui.units import unit_title
from tabs.ui.words import named

ALL_UNITS = "All units"
_SHOWN = 8  # texts a list
_FRAME = "#0072b2"


@dataclass(frozen=True)
class Compared:
    """A comparison (`compare_sets`) with the images of both sides."""

    report: dict
    reference: list[Image.Image]
    new: list[Image.Image]


def verdict_html(report: dict, skipped: int = 0, title: str = "") -> str:
    """Whether the sets differ significantly, and the p-value of each test in a fold."""
    from clipneurons.shift.comparison import TESTS

    text = "The sets differ" if report["significant"] else "No significant difference"
    images = report["images"]
    note = f"{images['new']} new images against {images['reference']} reference images."
    if skipped:
        note += f" {skipped} files could not be read."
    numbers = [(p_text(report["p"], report), "p-value", "by permutation, all tests together")]
    if report["significant"]:
        changed = f"{report['units_changed']:,}"
        numbers.append((changed, "units changed", "at a false-discovery rate of 5 %"))
    each = [
        (p_text(p, report), name, f"Small when {TESTS[name]}.")
        for name, p in report["tests"].items()
    ]
    body = figures(numbers) + folded("p-value of each test", figures(each))
    return section(f"{title}: {text.lower()}" if title else text, body, note)


def p_text(p: float, report: dict) -> str:
    """A p-value; the smallest that permutations can give is a bound."""
    smallest = 1 / (report["permutations"] + 1)
    return f"≤ {smallest:.2g}" if p < 1.5 * smallest else f"{p:.3g}"


def differences_html(report: dict) -> str:
    """Low-level changes first, then where images differ and in which texts; none without a
    significant difference."""
    if not report["significant"]:
        return ""
    lists = _localised_html(report["localised"]) + (
        f'<div class="cn-three">{_texts_html("Texts matched more", report["more"])}'
        f"{_texts_html('Texts matched less', report['less'])}</div>"
    )
    if not report["pixels"]:
        return lists
    return _pixels_html(report["pixels"]) + lists


def _pixels_html(changes: Sequence[dict]) -> str:
    rows = [
        Bar(
            f"{change['measure']} {change['direction']}", change["change"],
            f"{change['change']:+.2f} standard deviations, false-discovery rate {change['q']:.2g}",
        )
        for change in changes
    ]  # fmt: skip
    note = (
        "Measured on the pixels, in standard deviations. Texts and units below may follow from "
        "these changes."
    )
    return section("Low-level changes", bars(rows, label="Low-level changes", wide=True), note)


def _localised_html(place: dict | None) -> str:
    if place is None:
        text = "The images differ at no single place."
        return f'<section class="cn-block"><p class="cn-note">{text}</p></section>'
    note = "Texts of the place where the new images differ most, cropped and read by itself."
    return _texts_html(f"Where the images differ: {place['where']}", place["texts"], note)


def _texts_html(title: str, texts: list[dict], note: str = "") -> str:
    rows = [Bar(row["text"], row["score"]) for row in named(texts)[:_SHOWN]]
    return section(title, bars(rows, label=title, digits=1), note)


def unit_rows(report: dict, bundle: Bundle) -> list[tuple[str, int]]:
    """The units that changed most as choices with their labels; 0 is all of them."""
    rows = [(ALL_UNITS, 0)]
    for number, unit in enumerate(report["units"], start=1):
        change = f"{unit['change']:+.2f}".replace("-", "−")
        title = unit_title(bundle, unit["layer"], unit["unit"])
        rows.append((f"{change}   {title}", number))
    return rows


def unit_html(report: dict, number: int, bundle: str) -> str:
    """What the images below show, with a link to the unit's dashboard."""
    if not number:
        return '<p class="cn-note">New: the images that changed most.</p>'
    unit = report["units"][number - 1]
    dashboard = link(
        f"{unit['layer']} · {unit['unit']}",
        tab="explore", layer=unit["layer"], unit=unit["unit"], bundle=bundle,
    )  # fmt: skip
    change = f"{unit['change']:+.2f}".replace("-", "−")
    return (
        f'<p class="cn-note">Top-activating images of {dashboard}. Its mean effect changed by '
        f"{change} standard deviations (false-discovery rate {unit['q']:.2g}).</p>"
    )


def example_html(drawing: str) -> str:
    """What was done to the example's new images."""
    from clipneurons.shift.planted import SHARE

    return (
        f'<p class="cn-note">A drawing ({escape(drawing)}) was pasted on the corner of '
        f"{SHARE:.0%} of the new images.</p>"
    )


def images(compared: Compared, number: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Images of both sides: top-activating ones of a unit, or for 0 the ones that changed most."""
    report = compared.report
    if number:
        top = report["units"][number - 1]["top_images"]
        return (
            [compared.reference[i] for i in top["reference"]],
            [compared.new[i] for i in top["new"]],
        )
    changed = [compared.new[i] for i in report["changed_images"]]
    if report["localised"]:
        changed = [framed(image, report["localised"]["box"]) for image in changed]
    return compared.reference[: len(changed)], changed


def framed(image: Image.Image, box: list[float]) -> Image.Image:
    """The image with a frame around the box (left, top, right, bottom, in shares of it)."""
    framed = image.convert("RGB")
    sides = (image.width - 1, image.height - 1) * 2
    corners = [round(share * side) for share, side in zip(box, sides, strict=True)]
    ImageDraw.Draw(framed).rectangle(corners, outline=_FRAME, width=max(2, min(image.size) // 48))
    return framed
