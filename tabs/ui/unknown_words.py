"""A warning about words that the model never saw, for every field in which words are typed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tabs.server.session import BundleSession

_NAMED = 6


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
    named = ", ".join(f"“{escape(word)}”" for word in words[:_NAMED])
    more = f" and {len(words) - _NAMED} more words" if len(words) > _NAMED else ""
    return (
        f'<p class="cn-warn">This small model never saw {named}{more} in training, so what it '
        "says about such words is noise. Words from its own vocabulary work.</p>"
    )
