"""Texts to offer a visitor: what some unit of the bundle says clearly."""

from __future__ import annotations

from clipneurons.dictionary.dictionary import Phrase
from tabs.server.session import BundleSession

# What to look for where neither labels nor classes say it, and classes that are tried.
_EVERYDAY = (
    "dog", "cat", "bird", "horse", "fish", "car", "train", "boat", "airplane", "bicycle", "tree",
    "flower", "beach", "mountain", "snow", "water", "fire", "food", "fruit", "bread", "coffee",
    "book", "music", "guitar", "computer", "phone", "house", "church", "street", "city", "baby",
    "child", "wedding", "sport", "football", "red", "blue", "green", "yellow", "stripes",
)  # fmt: skip
_CLASSES = 400


def clearly_said(session: BundleSession) -> list[str]:
    """Texts that some unit says clearly, the clearest first.

    What reliable labels say; of a bundle without any, things (`_things`) that a direction is
    nearer to than random directions are. A pool of words holds much that is no thing to look for.
    """
    return session.cached("clearly said", lambda: _clearly_said(session))


def _clearly_said(session: BundleSession) -> list[str]:
    dictionary = session.dictionary
    places = [dictionary.place(row) for row in dictionary.most_reliable(100)]
    labels = [session.bundle.label(layer, unit) for layer, unit in places]
    texts = list(dict.fromkeys(label.positive[0] for label in labels if label.positive))
    if len(texts) >= 2:
        return texts
    best = {
        text: float(dictionary.cosines(dictionary.embed([Phrase(text)])).max())
        for text in _things(session)
        if dictionary.in_pool(text)
    }
    known = [text for text in best if best[text] > dictionary.chance_line]
    return sorted(known, key=lambda text: -best[text])


def _things(session: BundleSession) -> list[str]:
    """Names of things: the data's classes, else everyday ones."""
    names = session.bundle.config.data.class_names or _EVERYDAY
    return list(dict.fromkeys(text for name in names[:_CLASSES] for text in _forms(name)))


def _forms(name: str) -> tuple[str, str]:
    """A name as pools of texts may have it: alone or with its article."""
    name = name.replace("_", " ").strip().lower()
    return name, f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"
