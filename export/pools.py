"""The texts that directions are written in."""

from __future__ import annotations

from clipneurons.text import TextPool, clean_texts, text_pool

VOCABULARY = "vocabulary"


def open_pool(name: str) -> TextPool:
    """A pool by name or file; "vocabulary" is what the bundled models' captions speak of."""
    return vocabulary() if name == VOCABULARY else text_pool(name)


def vocabulary() -> TextPool:
    """Concepts of the bundled pictograms, their other names and groups, colours and grounds.

    No coloured concepts: eleven texts that differ in a colour alone crowd out what else is said.
    """
    from clipneurons.captions import COLOURS, PATTERNS, article
    from clipneurons.pictograms import load_pictograms

    pack = load_pictograms()
    texts = [article(name) for name in pack.concepts]
    texts += [article(word) for name in pack.concepts for word in pack.synonyms[name]]
    texts += sorted(set(pack.groups.values()))
    texts += COLOURS
    grounds = ["", *(f"{pattern} " for pattern in PATTERNS.values())]
    texts += [article(f"{colour} {ground}background") for ground in grounds for colour in COLOURS]
    credit = "names of the bundled pictograms, synonyms, colours and backgrounds"
    return TextPool(VOCABULARY, clean_texts(texts), credit, "MIT")
