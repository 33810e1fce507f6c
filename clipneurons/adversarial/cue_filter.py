"""Which phrases may be cues: none that names a class or means the target, none twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.text.class_names import Similarity, content, names, stem


@dataclass(frozen=True)
class CueFilter:
    """Which phrases may be cues: the same rules for every method.

    Attributes:
        similarity: finds synonyms of the target class; None leaves only the string rules.
        blocked: words that no cue may contain.
        drawable: where given, the name of what a painter draws for a phrase, None where it cannot;
            phrases that are drawn alike are one cue.
    """

    similarity: Similarity | None = None
    blocked: tuple[str, ...] = ()
    drawable: Callable[[str], str | None] | None = None

    def reasons(
        self, phrases: Sequence[str], true_class: str, target_class: str
    ) -> list[str | None]:
        """For each phrase why it may not be a cue, or None where it may."""
        reasons = [self._by_rule(phrase, true_class, target_class) for phrase in phrases]
        left = [index for index, reason in enumerate(reasons) if reason is None]
        if self.similarity is not None and left:
            same = self.similarity.synonyms([phrases[index] for index in left], target_class)
            for index in (i for i, is_same in zip(left, same, strict=True) if is_same):
                reasons[index] = f"means {target_class}"
        return reasons

    def keys(self, texts: Sequence[str]) -> list[str | None]:
        """The same for phrases that are one cue (singular and plural, or drawn alike)."""
        if self.drawable is not None:
            return [self.drawable(text) for text in texts]
        return [" ".join(stem(word) for word in content(text)) for text in texts]

    def strongest(
        self,
        texts: Sequence[str],
        keys: Sequence[str | None],
        scores: Float[Tensor, " text"],
        count: int,
        true_class: str,
        target_class: str,
    ) -> tuple[list[int], list[tuple[str, str]]]:
        """Indices of the highest positive scores that may be cues, and (text, why not) of others.

        The others are those that score as high as what was kept; ``keys`` are `keys` of the texts.
        """
        drawable = torch.tensor([key is not None for key in keys])
        allowed = torch.where(drawable, scores, scores.new_tensor(0.0))
        order = allowed.argsort(descending=True, stable=True)
        order = order[: int((allowed > 0).sum())].tolist()
        kept, dropped, seen = [], [], set()
        step = max(4 * count, 32)  # synonyms are looked up for a few at a time
        for start in range(0, len(order), step):
            batch = order[start : start + step]
            reasons = self.reasons([texts[j] for j in batch], true_class, target_class)
            for j, reason in zip(batch, reasons, strict=True):
                if len(kept) == count:
                    return kept, dropped
                if reason is None and keys[j] in seen:
                    reason = "repeats a stronger cue"
                if reason is None:
                    kept.append(j)
                    seen.add(keys[j])
                else:
                    dropped.append((texts[j], reason))
        return kept, dropped

    def _by_rule(self, phrase: str, true_class: str, target_class: str) -> str | None:
        for name in (target_class, true_class):
            if names(phrase, name) or names(name, phrase):
                return f"names {name}"
        for word in self.blocked:
            if names(phrase, word):
                return f"contains the blocked word {word}"
        return None
