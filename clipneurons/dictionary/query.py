"""Queries in words: wanted and unwanted phrases, and where a pool of texts has them."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.stats.centring import without_shared

# Texts this alike mean the same: "boat", "ship".
_SYNONYM = 0.85

Embed = Callable[[list[str]], Float[Tensor, "text embed"]]


@dataclass(frozen=True)
class Phrase:
    """A part of a query: words, and whether they are wanted (+1) or unwanted (−1)."""

    words: str
    sign: int = 1


def parse_query(query: str) -> list[Phrase]:
    """Phrases of a query: separated by commas or semicolons, with a leading minus where unwanted.

    Raises `ValueError` for a query without words.
    """
    phrases = []
    for part in re.split("[,;\n]", query):
        part = " ".join(part.split()).rstrip(".!?:")
        unwanted = part[:1] in ("-", "−", "–")
        words = part.lstrip("-−– ")
        if words:
            phrases.append(Phrase(words, -1 if unwanted else 1))
    if not phrases:
        raise ValueError(
            'Type what to look for: one or more phrases with commas between them, such as "boat", '
            '"boat, water" or "boat, -water" (not water).'
        )
    return phrases


class TextIndex:
    """A bundle's texts, arranged for finding phrases among them; case does not matter."""

    def __init__(self, texts: Sequence[str], embeddings: Float[Tensor, "text embed"]) -> None:
        self.texts = [text.lower() for text in texts]
        self.embeddings = embeddings

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {text: i for i, text in reversed(list(enumerate(self.texts)))}

    def __contains__(self, words: str) -> bool:
        return words.lower() in self._rows

    @cached_property
    def _joined(self) -> tuple[str, list[int]]:
        """All texts as one, a line each, and where each line starts: one scan finds a word."""
        starts = [0, *accumulate(len(text) + 1 for text in self.texts[:-1])]
        return "\n".join(self.texts), starts

    def with_words(self, words: str) -> list[int]:
        """Texts that contain a phrase as whole words, in no order."""
        joined, starts = self._joined
        whole = re.compile(rf"\b{re.escape(words.lower())}\b")
        return list({bisect(starts, match.start()) - 1 for match in whole.finditer(joined)})

    def going_on(self, words: str, count: int) -> list[str]:
        """Texts with a word that begins as the last of ``words``, after the others; short first."""
        joined, starts = self._joined
        begins = re.compile(rf"\b{re.escape(words.lower())}")
        found = {bisect(starts, match.start()) - 1 for match in begins.finditer(joined)}
        texts = sorted((self.texts[row] for row in found), key=lambda text: (len(text), text))
        return texts[:count]

    def embed(
        self, phrases: Sequence[Phrase], embed: Embed | None = None
    ) -> Float[Tensor, " embed"]:
        """Unit vector of a query: wanted phrases minus unwanted ones.

        Texts of the pool are looked up; for others `embed` is called. Raises `ValueError` when
        it is needed and missing, or when the phrases cancel out.
        """
        total = torch.zeros(self.embeddings.shape[1])
        unknown = [phrase for phrase in phrases if phrase.words not in self]
        if unknown:
            if embed is None:
                words = ", ".join(f'"{phrase.words}"' for phrase in unknown)
                raise ValueError(f"The bundle has no text {words}, and no model to embed it with.")
            vectors = embed([phrase.words for phrase in unknown]).float().cpu()
            for phrase, vector in zip(unknown, vectors, strict=True):
                total += phrase.sign * normalize(vector, dim=0)
        for phrase in phrases:
            if phrase.words in self:
                row = self._rows[phrase.words.lower()]
                total += phrase.sign * normalize(self.embeddings[row], dim=0)
        if total.norm() < 1e-6:
            raise ValueError("The wanted and the unwanted phrases cancel out: nothing is left.")
        return normalize(total, dim=0)

    def named(self, phrases: Sequence[Phrase]) -> Float[Tensor, " text"]:
        """How many of the wanted minus the unwanted phrases each text names.

        A text names a phrase that it has as whole words, and one that means the same: their
        embeddings, without what all texts share, have a cosine of more than 0.85.
        """
        named = torch.zeros(len(self.texts))
        for phrase in phrases:
            texts = torch.zeros(len(self.texts), dtype=torch.bool)
            texts[self.with_words(phrase.words)] = True
            if phrase.words in self:
                row = self._rows[phrase.words.lower()]
                texts |= self._centred @ self._centred[row] > _SYNONYM
            named += phrase.sign * texts
        return named

    @cached_property
    def _centred(self) -> Float[Tensor, "text embed"]:
        return without_shared(self.embeddings)

    def weights(self, phrases: Sequence[Phrase]) -> Float[Tensor, " text"]:
        """How many of the wanted minus the unwanted phrases each text has as whole words.

        Raises `ValueError` when no text matches any phrase.
        """
        weights = torch.zeros(len(self.texts))
        for phrase in phrases:
            weights[self.with_words(phrase.words)] += phrase.sign
        if not weights.any():
            words = ", ".join(f'"{phrase.words}"' for phrase in phrases)
            raise ValueError(
                f"No text of this bundle's pool contains {words}: take a word of its vocabulary."
            )
        return weights
