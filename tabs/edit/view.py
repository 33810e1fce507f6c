"""What the edit tab shows as JSON and as HTML with sliders, whose bars `script.js` moves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from clipneurons.bundle.bundle import Bundle
from clipneurons.images.convert import from_pixels
from tabs.ui.image_input import cropped_html, image_uri
from tabs.ui.plots import empty, link, patch_mask, section
from tabs.ui.words import unknown_words_html

if TYPE_CHECKING:
    from torch import Tensor

    from clipneurons.edit.parts import Part
    from clipneurons.edit.reading import EditReading

_LEAST, _MOST = 0.0, 2.0  # of a slider, unless the edit goes further
_NOTE = (
    "Estimated: the neurons’ effects on the embedding are scaled, while you move a slider. "
    "Measured: a forward pass with the same edit of their activations, to which later layers "
    "respond."
)
_NO_MEASURE = " This model’s weights cannot hold an edit, so nothing is measured."


@dataclass(frozen=True, eq=False)
class Opened:
    """What the tab shows: a reading, the images as they were brought, unknown class names.

    picture  the first image's number in the gallery, where it is from there
    flat     whether the first image is one flat colour, of which every class is a guess
    seen     share of the first image that the model reads
    """

    bundle: str
    images: tuple[Image.Image, ...]
    picture: int | None
    reading: EditReading
    never_trained: tuple[str, ...] = ()
    flat: bool = False
    seen: float = 1.0

    @property
    def top(self) -> str:
        """The first image's class without the edit."""
        return self.reading.class_names[self.reading.top]

    @property
    def wanted(self) -> str:
        """The class that is held against it."""
        return self.reading.class_names[self.reading.wanted]


def top_class(reading: EditReading, shares: Sequence[float]) -> str:
    """The class with the largest share."""
    return reading.class_names[max(range(len(shares)), key=lambda i: shares[i])]


def part_text(part: Part) -> str:
    """What a part of an edit is called: a label, a rule of words, how many neurons."""
    rule = part.rules[0]
    if part.kind == "rest":
        return f"{len(part.rules)} more neurons of the edit"
    if part.kind == "words":
        return f"{part.units} neuron{'s' * (part.units != 1)} that say “{rule.words}”"
    return part.label


# -- JSON


def reading_data(opened: Opened) -> dict:
    """A reading as the endpoint gives it."""
    of_page = {"bundle": opened.bundle, "never_trained": list(opened.never_trained)}
    return of_page | opened.reading.to_dict()


def page_data(opened: Opened) -> dict:
    """What the page's script needs to move the bars: rounded inner products, an edit's parts."""
    reading = opened.reading

    def rounded(rows: Tensor) -> list[list[float]]:
        return [[float(f"{value:.6g}") for value in row] for row in rows.tolist()]

    measured = [reading.measured(image) for image in range(len(opened.images))]
    return {
        "bundle": opened.bundle, "picture": opened.picture, "names": list(reading.class_names),
        "wanted": opened.wanted, "scale": reading.scale, "sha": reading.edit.weights_sha256,
        "parts": [
            {"kind": part.kind, "rules": [asdict(rule) for rule in part.rules]}
            for part in reading.parts
        ],
        "previews": [{"gram": rounded(p.gram), "along": rounded(p.along)}
                     for p in reading.previews],
        "measured": measured if measured[0] else None,
    }  # fmt: skip


# -- HTML


def edit_html(bundle: Bundle, opened: Opened, note: str = "") -> str:
    """The whole reading: the images as the model sees them, classes, neurons with sliders."""
    reading, config = opened.reading, bundle.config
    seen = [
        image_uri(from_pixels(row, config.image_mean, config.image_std)) for row in reading.pixels
    ]
    alt = escape(f"The image as the model sees it, classified as {opened.top}")
    note = f'<p class="cn-note cn-found" role="status">{escape(note)}</p>' if note else ""
    nothing = '<p class="cn-warn">Nothing recognised: the image is one flat colour.</p>'
    basis = "Estimated" if reading.measured() is None else "Measured"
    top = escape(top_class(reading, reading.result()))
    facts = escape(json.dumps(page_data(opened), ensure_ascii=False, allow_nan=False))
    return (
        f'<article class="cn-concepts cn-edit" data-facts="{facts}"><div class="cn-look">'
        f'<div><div class="cn-picture"><img src="{seen[0]}" alt="{alt}"></div>'
        f"{cropped_html(opened.seen)}</div>"
        f'<div><h2>Classified as “<span class="cn-top">{top}</span>” '
        f'<small class="cn-basis">{basis}</small></h2>'
        f"{nothing * opened.flat}{unknown_words_html(opened.never_trained)}{note}"
        f"{_classes(reading)}</div></div>"
        f"{_others(reading, seen)}{_speakers(bundle, opened, seen[0])}</article>"
    )


def value_text(share: float, scale: float | None) -> str:
    """A probability in per cent, or a cosine."""
    return f"{share:.3f}" if scale is None else f"{100 * share:.1f}"


def _classes(reading: EditReading) -> str:
    before, estimated, measured = reading.before(), reading.estimated(), reading.measured()
    most = 1.0 if reading.scale is not None else max(map(abs, before)) or 1.0
    rows = []
    for i, name in enumerate(reading.class_names):
        cells = [
            ("was", before[i]), ("estimated", estimated[i]), ("measured", measured and measured[i])
        ]  # fmt: skip
        tracks = "".join(
            f'<span class="cn-track cn-{kind}"><span class="cn-bar cn-plus" '
            f'style="--share:{max(0.0, min(1.0, (value or 0.0) / most)):.4f}"></span></span>'
            for kind, value in cells
        )
        values = "".join(
            f'<span class="cn-value cn-{kind}">'
            f"{'–' if value is None else value_text(value, reading.scale)}</span>"
            for kind, value in cells
        )
        rows.append(
            f'<li data-class="{i}"><span class="cn-name" title="{escape(name)}">{escape(name)}'
            f'</span><span class="cn-tracks" aria-hidden="true">{tracks}</span>{values}</li>'
        )
    unit = "cosine" if reading.scale is None else "%"
    head = (
        f'<li class="cn-head"><span class="cn-name">{unit}</span><span></span>'
        '<span class="cn-value cn-was">Before</span>'
        '<span class="cn-value cn-estimated">Estimated</span>'
        '<span class="cn-value cn-measured">Measured</span></li>'
    )
    label = "Classes before the edit, estimated with it, and measured with it"
    chart = f'<ol class="cn-classes" aria-label="{label}">{head}{"".join(rows)}</ol>'
    title = "Cosines" if reading.scale is None else "Probabilities"
    return section(title, chart, _NOTE + (_NO_MEASURE if measured is None else ""))


def _speakers(bundle: Bundle, opened: Opened, seen: str) -> str:
    parts = list(enumerate(opened.reading.parts))
    in_edit = [(i, part) for i, part in parts if part.kind != "unit" or part.strength != 0]
    beside = [(i, part) for i, part in parts if part.kind == "unit" and part.strength == 0]
    most = max((abs(part.adds) for _, part in beside), default=1.0) or 1.0

    def rows(chosen: list[tuple[int, Part]]) -> str:
        if not chosen:
            return empty("No other neuron does.")
        items = (_row(bundle, opened.bundle, i, part, seen, most) for i, part in chosen)
        return f'<ol class="cn-parts">{"".join(items)}</ol>'

    by_size = sorted(beside, key=lambda numbered: -abs(numbered[1].adds))
    for_top = [numbered for numbered in by_size if numbered[1].adds > 0]
    against = [numbered for numbered in by_size if numbered[1].adds < 0]
    columns = (
        section(f"Promote {opened.top}", rows(for_top))
        + section(f"Promote {opened.wanted}", rows(against))
    )  # fmt: skip
    edit = section("In the edit", rows(in_edit)) if in_edit else ""
    note = (
        f"What each neuron adds to {opened.top} rather than {opened.wanted} on this image, and the "
        "patches that carry it. 0 ablates it to its mean over the data, 1 leaves it, 2 doubles "
        "what differs from the mean."
    )
    return section("Neurons behind it", f'{edit}<div class="cn-results">{columns}</div>', note)


def _row(bundle: Bundle, key: str, index: int, part: Part, seen: str, most: float) -> str:
    factor = 1.0 if part.kind == "rest" else part.rules[0].factor
    name = title = escape(part_text(part))
    thumb = ""
    if part.kind == "unit":
        rule = part.rules[0]
        place = link(f"{rule.layer} · {rule.unit}", tab="explore", layer=rule.layer,
                     unit=rule.unit, bundle=key)  # fmt: skip
        name = f'{place} <span class="cn-said">{name}</span>' if name else place
        title = f"layer {rule.layer}, neuron {rule.unit}"
        if part.map is not None:
            thumb = (
                f'<span class="cn-thumb"><img alt="" src="{seen}"><img alt="" '
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


def _others(reading: EditReading, seen: Sequence[str]) -> str:
    figures = []
    for image, uri in enumerate(seen[1:], start=1):
        before, after = (
            f"{top_class(reading, shares)} {value_text(max(shares), reading.scale)}"
            for shares in (reading.before(image), reading.result(image))
        )
        figures.append(
            f'<figure data-image="{image}"><img alt="Image {image + 1}" src="{uri}">'
            f"<figcaption>{escape(before)} → <b>{escape(after)}</b></figcaption></figure>"
        )
    if not figures:
        return ""
    body = f'<div class="cn-gallery cn-also">{"".join(figures)}</div>'
    return section("The same edit on the other images", body)
