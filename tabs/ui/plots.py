"""Charts as HTML that the page's own style sheet draws.

They take the page's colours in light and dark, reflow on a phone, show each value on hover and to
a screen reader, and tell signs by side, sign character and hatching, not by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

import gradio as gr
import numpy as np
from PIL import Image

from clipneurons.images.convert import png_uri

# Okabe and Ito's blue and vermilion: told apart by all common kinds of colour vision.
PLUS, MINUS = "#0072B2", "#D55E00"
# How dark a patch with nothing gets, of 255; light alone carries a map, no hue.
_DARK = 185


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    `link` (parameters of the address) makes its label a link, `interval` draws a whisker, `shown`
    stands in place of the value.
    """

    label: str
    value: float
    hint: str = ""
    link: dict[str, object] | None = None
    interval: tuple[float, float] | None = None
    shown: str = ""


def address(**parameters: object) -> str:
    """The query part of a permanent link, such as `?tab=explore&layer=4&unit=12`."""
    return "?" + urlencode({k: v for k, v in parameters.items() if v not in (None, "")})


def link(text: str, **parameters: object) -> str:
    """A link within the page; the page follows it without loading again (`page.js`)."""
    return f'<a class="cn-link" href="{escape(address(**parameters))}">{escape(text)}</a>'


def bars(
    rows: Sequence[Bar], *, label: str, digits: int = 2, most: float | None = None,
    wide: bool = False, mark: float | None = None,
) -> str:  # fmt: skip
    """Signed horizontal bars, in the order given.

    `label` says to a screen reader what the chart shows; `most` fixes the value of a full bar;
    `wide` leaves more room to long labels; `mark` is drawn as a line across all bars.
    """
    if not rows:
        return empty("Nothing to show here.")
    most = most or max((abs(row.value) for row in rows), default=1.0) or 1.0
    signed = any(row.value < 0 for row in rows)
    both = signed and any(row.value > 0 for row in rows)
    kind = "cn-bars" + " cn-signed" * both + " cn-wide" * wide
    parts = [f'<ol class="{kind}" aria-label="{escape(label)}">']
    for row in rows:
        share = min(abs(row.value) / most, 1.0)
        sign = "minus" if row.value < 0 else "plus"
        value = f"{row.value:+.{digits}f}" if signed else f"{row.value:.{digits}f}"
        if not float(value):  # rounded to nothing, which has no sign
            value = value.lstrip("+-")
        value = row.shown or value.replace("-", "−")
        name = escape(row.label)
        if row.link is not None:
            name = link(row.label, **row.link)
        hint = escape(row.hint or f"{row.label}: {value}")
        parts.append(
            f'<li title="{hint}"><span class="cn-name">{name}</span>'
            f'<span class="cn-track" aria-hidden="true">'
            f'<span class="cn-bar cn-{sign}" style="--share:{share:.4f}"></span>'
            f"{_whisker(row, most)}{_line(mark, most)}</span>"
            f'<span class="cn-value">{escape(value)}</span></li>'
        )
    return "".join(parts) + "</ol>"


def _whisker(row: Bar, most: float) -> str:
    """The interval of an unsigned bar's value."""
    if row.interval is None:
        return ""
    low, high = (min(max(end / most, 0.0), 1.0) for end in row.interval)
    return f'<span class="cn-whisker" style="--low:{low:.4f};--high:{high:.4f}"></span>'


def _line(mark: float | None, most: float) -> str:
    """A threshold, drawn on every bar, so that together they are one line."""
    return "" if mark is None else f'<span class="cn-line" style="--at:{mark / most:.4f}"></span>'


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    label: str,
    unit: str,
    mark: float | None = None,
) -> str:
    """A histogram over logarithmic bins; `mark` is drawn as a line (a threshold)."""
    filled = [i for i, count in enumerate(counts) if count]
    if not filled:
        return empty("No values.")
    first, last = filled[0], filled[-1] + 1
    edges, counts = edges[first : last + 1], counts[first:last]
    width, height, most = 100 / len(counts), 60, max(counts)
    parts = [
        f'<figure class="cn-histogram"><svg viewBox="0 0 100 {height}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(label)}">'
    ]
    for i, count in enumerate(counts):
        tall = max(height * count / most, 1.0 if count else 0)
        low, high = edges[i], edges[i + 1]
        parts.append(
            f'<g class="cn-bin"><rect class="cn-hit" x="{i * width:.2f}" y="0" '
            f'width="{width:.2f}" height="{height}"/><rect x="{i * width + 0.1 * width:.2f}" '
            f'y="{height - tall:.2f}" width="{0.8 * width:.2f}" height="{tall:.2f}"/>'
            f"<title>{low:.3g} to {high:.3g}: {count} images</title></g>"
        )
    if mark is not None and edges[0] < mark <= edges[-1]:
        place = next(i for i in range(len(counts)) if mark <= edges[i + 1])
        inside = (mark - edges[place]) / (edges[place + 1] - edges[place])
        x = (place + inside) * width
        parts.append(f'<line class="cn-mark" x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="{height}"/>')
    parts.append(
        f"</svg><figcaption><span>{edges[0]:.2g}</span><span>{escape(unit)}</span>"
        f"<span>{edges[-1]:.2g}</span></figcaption></figure>"
    )
    return "".join(parts)


def percent(share: float, digits: int = 1) -> str:
    """A share as the page writes it, such as "1.2 %"."""
    return f"{100 * share:.{digits}f} %"


def empty(text: str) -> str:
    """What stands where there is nothing to show."""
    return f'<p class="cn-empty">{escape(text)}</p>'


def section(title: str, body: str, note: str = "") -> str:
    """A titled block of a card."""
    note = f'<p class="cn-note">{escape(note)}</p>' if note else ""
    return f'<section class="cn-block"><h3>{escape(title)}</h3>{note}{body}</section>'


def folded(title: str, body: str) -> str:
    """A part of a card that is opened by whoever wants it."""
    return f'<details class="cn-fold"><summary>{escape(title)}</summary>{body}</details>'


def figures(pairs: Sequence[tuple[str, str, str]]) -> str:
    """A row of numbers: (value, what it is, a longer explanation on hover)."""
    cells = "".join(
        f'<div title="{escape(hint)}"><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>'
        for value, name, hint in pairs
    )
    return f'<dl class="cn-figures">{cells}</dl>'


def html(value: str = "", **options) -> gr.HTML:
    """A component for the HTML of this file."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, **options)


def patch_mask(values: Sequence[Sequence[float]], size: int = 224) -> str:
    """A map over patches as a transparent PNG to lay over an image, the source of an `<img>`.

    `values` [row, column] are in [0, 1]; where they are low, the image goes dark. A map that is
    zero everywhere leaves the image as it is.
    """
    shares = np.clip(np.asarray(values, dtype=np.float32), 0, 1)
    # The square root keeps patches in view that carry a part of what the first one does.
    dark = (1 - np.sqrt(shares)) * _DARK if shares.any() else np.zeros_like(shares)
    small = Image.fromarray(dark.astype(np.uint8))
    alpha = small.resize((size, size), Image.Resampling.BICUBIC)
    return png_uri(Image.merge("LA", (Image.new("L", alpha.size, 12), alpha)))
