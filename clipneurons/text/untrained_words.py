"""Which words a small model cannot know, because training never touched their tokens."""

from __future__ import annotations

from collections.abc import Sequence

from clipneurons.models.clip import ClipModel


def untrained_words(clip: ClipModel, phrases: Sequence[str]) -> list[str]:
    """Words with a token whose embedding is zero, in the order given.

    A model trained on a small vocabulary is saved with the full token table, in which the rows of
    all other tokens are zero. Empty for models whose token table is elsewhere.
    """
    table = getattr(clip.model, "token_embedding", None)
    if table is None:
        return []
    known = table.weight.detach().any(1).cpu()
    found = []
    for word in dict.fromkeys(word for phrase in phrases for word in phrase.split()):
        ids = clip.tokenizer([word])[0]
        end = int(ids.argmax()) if int(ids.max()) == len(known) - 1 else len(ids)
        inside = ids[1:end]
        if not bool(known[inside[inside > 0]].all()) and len(inside):
            found.append(word)
    return found
