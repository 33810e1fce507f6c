"""Words that visitors type and texts that results name: lists, names, and a warning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from clipneurons.bundle.unit_words import plain
from tabs.server.session import BundleSession

MOST_LETTERS, MOST_NAMES = 300, 12
_NAMED = 6


def names_of(text: str) -> list[str]:
    """Class names from a field, with commas or semicolons between them."""
    parts = re.split("[,;\n]", text[:MOST_LETTERS])
    names = [" ".join(part.split()).rstrip(".!?:") for part in parts]
    return list(dict.fromkeys(name for name in names if name))[:MOST_NAMES]


def named(rows: Iterable[dict]) -> list[dict]:
    """The rows with their `text` as a name, without an article; of one name the first row."""
    first: dict[str, dict] = {}
    for row in rows:
        first.setdefault(plain(row["text"]), row)
    return [row | {"text": name} for name, row in first.items()]


def untrained(session: BundleSession, phrases: Sequence[str]) -> list[str]:
    """Words that the model never saw in training (only ever known of the bundled models)."""
    if not phrases:
        return []
    from clipneurons.text.untrained_words import untrained_words

    return untrained_words(session.clip, phrases)


def unknown_words_html(words: Sequence[str]) -> str:
    """The warning; nothing where all words are known."""
    if not words:
        return ""
    listed = ", ".join(f"“{escape(word)}”" for word in words[:_NAMED])
    more = f" and {len(words) - _NAMED} more words" if len(words) > _NAMED else ""
    return (
        f'<p class="cn-warn">This small model never saw {listed}{more} in training, so what it '
        "says about such words is noise. Words from its own vocabulary work.</p>"
    )
