"""One line on what the page shows: model and data, and of a small model what it will misread."""

from __future__ import annotations

import re
from html import escape

from clipneurons.bundle.bundle import Bundle
from tabs.ui.plots import percent

_LONGEST = 190


def model_line(title: str, bundle: Bundle) -> str:
    """Title and sizes, what was measured of it, and its own card on its training and its limits."""
    config = bundle.config
    units = sum(len(arrays.directions) for arrays in bundle.layers.values())
    text = (
        f"<b>{escape(title)}</b>: {units:,} {config.unit_nouns} read over "
        f"{config.data.count:,} images in {config.pool.count:,} texts.{_measured(bundle)}"
    )
    for heading, label in (("Data", "Its training"), ("Limits", "Its limits")):
        said = _first_sentences(model_card(bundle.card), heading)
        text += f" <b>{label}:</b> {escape(said)}" if said else ""
    return f'<p class="cn-about">{text}</p>'


def _measured(bundle: Bundle) -> str:
    """How large pictures are seen, and how often they are named rightly where that was measured."""
    height, width = bundle.config.image_size
    found = bundle.metrics.get("fidelity")
    try:
        named = (
            f", and names {percent(float(found['baseline']['accuracy']), 0)} of "
            f"{int(found['count']):,} "
            f"pictures ({escape(str(found['images']))}) rightly among {int(found['classes']):,} "
            "classes"
        )
    except (KeyError, TypeError, ValueError):  # not measured, or not by this export
        named = ""
    return f" It sees pictures at {width} × {height} pixels{named}."


def model_card(card: str) -> str:
    """The model's own card within a bundle's, where its weights came with one."""
    return card.partition("\n## The model\n")[2]


def _first_sentences(card: str, heading: str) -> str:
    """The first sentences below a heading, without marks and brackets of Markdown."""
    found = re.search(rf"^#+ {heading}\n+(.+?)(?:\n\n|\n#|\Z)", card, re.MULTILINE | re.DOTALL)
    if not found:
        return ""
    # Code, emphasis and what stands in brackets about files is for who reads the whole card.
    plain = re.sub(r"\s*\([^)]*`[^)]*\)|[*_`]|<[^>]*>", "", found[1].replace("\n", " "))
    sentences = re.split(r"(?<=[.!?])\s+", plain)
    if len(sentences[0]) > _LONGEST:
        sentences = re.split(r"(?<=[;:])\s+", sentences[0])
    kept = ""
    for sentence in sentences:
        if kept and len(kept) + len(sentence) > _LONGEST:
            break
        kept = f"{kept} {sentence}"
    return kept.strip().rstrip(";:") + ("" if kept.strip().endswith((".", "!", "?")) else ".")
