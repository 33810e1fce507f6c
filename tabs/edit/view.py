"""A reading with its sliders as HTML; `script.js` moves the bars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from tabs.ui.plots import empty, link, patch_mask, section
from tabs.ui.words import unknown_words_html

if TYPE_CHECKING:
    from tabs.edit.reading import Part, Reading

_LEAST, _MOST = 0.0, 2.0  # of a slider, unless the edit goes further


def edit_html(reading: Reading, data: dict, shown: Sequence[str], note: str = "") -> str:
    """The whole reading; `data` is for the script, `shown` the images as the model sees them."""
    top, against = reading.names[reading.top], reading.names[reading.wanted]
    warnings = unknown_words_html(reading.never_trained)
    alt = escape(f"The picture as the model sees it, read as {top}")
    picture = f'<div class="cn-picture"><img src="{shown[0]}" alt="{alt}"></div>'
    note = f'<p class="cn-note cn-found" role="status">{escape(note)}</p>' if note else ""
    body = (
        f'<h2>Read as “<span class="cn-top">{escape(_top(reading, reading.after()))}</span>”</h2>'
        f"{warnings}{note}{_classes(reading)}"
    )
    speakers = _speakers(reading, shown[0], top, against)
    facts = escape(json.dumps(data, ensure_ascii=False, allow_nan=False))
    return (
        f'<article class="cn-concepts cn-edit" data-facts="{facts}"><div class="cn-look">'
        f"<div>{picture}</div><div>{body}</div></div>{_others(reading, shown)}{speakers}</article>"
    )


def _top(reading: Reading, probabilities: Sequence[float]) -> str:
    return reading.names[max(range(len(probabilities)), key=lambda i: probabilities[i])]


def value_text(share: float, scale: float | None) -> str:
    """A probability in per cent, or a cosine."""
    return f"{share:.3f}" if scale is None else f"{100 * share:.1f}"


def _classes(reading: Reading) -> str:
    before, after = reading.before(), reading.after()
    unedited = all(part.strength == 0 for part in reading.parts)
    most = 1.0 if reading.scale is not None else max(map(abs, before)) or 1.0
    rows = []
    for i, name in enumerate(reading.names):
        real = before[i] if unedited else None
        cells = []
        for kind, value in (("was", before[i]), ("now", after[i]), ("real", real)):
            text = "…" if value is None else value_text(value, reading.scale)
            share = max(0.0, min(1.0, (value or 0.0) / most))
            cells.append((kind, share, text))
        tracks = "".join(
            f'<span class="cn-track cn-{kind}"><span class="cn-bar cn-plus" '
            f'style="--share:{share:.4f}"></span></span>'
            for kind, share, _ in cells
        )
        values = "".join(
            f'<span class="cn-value cn-{kind}">{text}</span>' for kind, _, text in cells
        )
        rows.append(
            f'<li data-class="{i}"><span class="cn-name" title="{escape(name)}">{escape(name)}'
            f'</span><span class="cn-tracks" aria-hidden="true">{tracks}</span>{values}</li>'
        )
    unit = "cosine" if reading.scale is None else "%"
    head = (
        f'<li class="cn-head"><span class="cn-name">{unit}</span><span></span>'
        '<span class="cn-value cn-was">before</span><span class="cn-value cn-now">after</span>'
        '<span class="cn-value cn-real">for real</span></li>'
    )
    label = "Classes before and after the edit, and with the edit made in the model"
    chart = f'<ol class="cn-classes" aria-label="{label}">{head}{"".join(rows)}</ol>'
    note = (
        "After: the neurons’ effects on the embedding scaled, exact and at once. For real: the "
        "same edit on their activations, run through the model, where later layers respond."
    )
    words = "How likely each class is" if reading.scale is not None else "How near each class is"
    return section(words, chart, note)


def _speakers(reading: Reading, picture: str, top: str, against: str) -> str:
    own = [(i, p) for i, p in enumerate(reading.parts) if p.kind != "unit" or p.strength != 0]
    rest = [(i, p) for i, p in enumerate(reading.parts) if p.kind == "unit" and p.strength == 0]
    sides = [
        (f"Speak for {top}", sorted((x for x in rest if x[1].adds > 0), key=lambda x: -x[1].adds)),
        (f"Speak for {against}", sorted((x for x in rest if x[1].adds < 0),
                                        key=lambda x: x[1].adds)),
    ]  # fmt: skip
    most = max((abs(part.adds) for _, part in rest), default=1.0) or 1.0

    def rows(parts: list[tuple[int, Part]]) -> str:
        if not parts:
            return empty("No other neuron does.")
        items = "".join(_row(reading.bundle, i, part, picture, most) for i, part in parts)
        return f'<ol class="cn-parts">{items}</ol>'

    columns = "".join(section(title, rows(parts)) for title, parts in sides)
    edited = section("In the edit", rows(own)) if own else ""
    note = (
        f"What each neuron adds to {top} rather than {against} on this picture, and the patches "
        "that carry it. 0 ablates it to its mean over the data, 1 leaves it, 2 doubles what "
        "differs from the mean."
    )
    grid = f'<div class="cn-results">{columns}</div>'
    return section("Neurons behind it", edited + grid, note)


def _row(key: str, index: int, part: Part, picture: str, most: float) -> str:
    factor = 1.0 if part.kind == "rest" else part.rules[0].factor
    name, title = escape(part.says), escape(part.says)
    thumb = ""
    if part.kind == "unit":
        rule = part.rules[0]
        place = link(f"{rule.layer} · {rule.unit}", tab="explore", layer=rule.layer,
                     unit=rule.unit, bundle=key)  # fmt: skip
        name = f'{place} <span class="cn-said">{name}</span>' if name else place
        title = f"layer {rule.layer}, neuron {rule.unit}"
        if part.map is not None:
            thumb = (
                f'<span class="cn-thumb"><img alt="" src="{picture}"><img alt="" '
                f'src="{patch_mask(part.map, 64)}"></span>'
            )
    on = part.kind == "rest" or factor != 0
    switch = f'<input type="checkbox" role="switch" aria-label="On: {title}"{" checked" * on}>'
    slider = ""
    if part.kind != "rest":
        low, high = min(_LEAST, factor), max(_MOST, factor)
        slider = (
            f'<span class="cn-slide"><input type="range" min="{low:g}" max="{high:g}" step="any" '
            f'value="{factor:g}" aria-label="Factor of {title}"><output>{factor:.2f}</output>'
            "</span>"
        )
    share = min(1.0, abs(part.adds) / most)
    sign = "plus" if part.adds >= 0 else "minus"
    value = f"{part.adds:+.2f}".replace("-", "−")
    return (
        f'<li data-part="{index}">{switch}{thumb}<span class="cn-who">{name}</span>'
        f'<span class="cn-track" aria-hidden="true"><span class="cn-bar cn-{sign}" '
        f'style="--share:{share:.4f}"></span></span><span class="cn-value">{value}</span>'
        f"{slider}</li>"
    )


def _others(reading: Reading, shown: Sequence[str]) -> str:
    if len(shown) < 2:
        return ""
    figures = []
    for image, uri in enumerate(shown[1:], start=1):
        before, after = (
            f"{_top(reading, shares)} {value_text(max(shares), reading.scale)}"
            for shares in (reading.before(image), reading.after(image))
        )
        figures.append(
            f'<figure data-image="{image}"><img alt="Picture {image + 1}" src="{uri}">'
            f"<figcaption>{escape(before)} → <b>{escape(after)}</b></figcaption></figure>"
        )
    body = f'<div class="cn-gallery cn-also">{"".join(figures)}</div>'
    return section("The same edit on the other pictures", body)
