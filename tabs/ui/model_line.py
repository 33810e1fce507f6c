"""One line on what the page shows: model and data, and of a small model what it will misread."""

from __future__ import annotations

import re
from html import escape

from clipneurons.bundle.bundle import Bundle

_LONGEST = 190


def model_line(title: str, bundle: Bundle) -> str:
    """Title and sizes, and what the model's own card says of its training and its limits."""
    config = bundle.config
    units = sum(len(arrays.directions) for arrays in bundle.layers.values())
    kind = "neurons" if config.units_per_neuron == 1 else "neuron-head pairs"
    text = (
        f"<b>{escape(title)}</b>: {units:,} {kind} read over {config.data.count:,} images in "
        f"{config.pool.count:,} texts."
    )
    for heading, label in (("Data", "Its training"), ("Limits", "Its limits")):
        said = _first_sentences(model_card(bundle.card), heading)
        text += f" <b>{label}:</b> {escape(said)}" if said else ""
    return f'<p class="cn-about">{text}</p>'


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
    kept = ""
    for sentence in re.split(r"(?<=[.!?;:])\s+", plain):
        if kept and len(kept) + len(sentence) > _LONGEST:
            break
        kept = f"{kept} {sentence}"
    return kept.strip().rstrip(";:") + ("" if kept.strip().endswith((".", "!", "?")) else ".")
