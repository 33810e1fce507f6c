"""Rows of texts as names of things: a vocabulary holds "music" and "a music"."""

from __future__ import annotations

from collections.abc import Iterable

from clipneurons.bundle.unit_words import plain


def named(rows: Iterable[dict]) -> list[dict]:
    """The rows with their `text` as a name, without an article; of one name the first row."""
    found: dict[str, dict] = {}
    for row in rows:
        found.setdefault(plain(row["text"]), row)
    return [row | {"text": name} for name, row in found.items()]
