"""What cues are asked for: two classes, a method, its settings, and which texts may be cues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from clipneurons.text.class_names import Similarity, content, names, stem, tokens

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from clipneurons.bundle.bundle import Bundle

# Where cues come from; `clipneurons.adversarial.cues` has the formulas.
SECOND_ORDER, RECORDED_EFFECTS = "second-order", "recorded effects"
RECORDED_EMBEDDINGS, SIMILAR_WORDS, NO_CUES = "recorded embeddings", "similar words", "no cues"
METHODS = (SECOND_ORDER, RECORDED_EFFECTS, RECORDED_EMBEDDINGS, SIMILAR_WORDS, NO_CUES)
# These choose cues by what neurons do.
BY_NEURONS = (SECOND_ORDER, RECORDED_EFFECTS)
# These need images of the cues; the second reads them without the neurons.
RECORDED = (RECORDED_EFFECTS, RECORDED_EMBEDDINGS)

# The paper's number of neurons.
NEURONS = 100
# Cues to draw from where images are made at once: fewer are stronger (docs/guide/adversarial.md).
FEW_CUES = 8
MAX_NAME = 60
MAX_CUES = 200


def default_method(bundle: Bundle) -> str:
    """Recorded effects where the bundle has them, else the paper's method."""
    return RECORDED_EFFECTS if bundle.cues else SECOND_ORDER


def check_name(text: object, what: str = "class name") -> str:
    """The text in one line; raises ValueError unless it is a short, printable text."""
    if not isinstance(text, str):
        raise ValueError(f"the {what} must be a text, not {type(text).__name__}")
    name = " ".join(text.split())
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(
            f"the {what} {name[:20]!r}... has {len(name)} characters: expected at most {MAX_NAME}, "
            "all printable"
        )
    if not tokens(name):
        raise ValueError(f"the {what} is empty: expected a word or a few words")
    return name


@dataclass(frozen=True)
class CueFilter:
    """Which texts may be cues: none that names a class or means the target, none twice.

    Attributes:
        similarity: finds synonyms of the target class; None leaves only the string rules.
        blocked: words that no cue may contain.
        drawable: where given, the name of what is drawn for a text, None where nothing can be;
            texts that are drawn alike are one cue.
    """

    similarity: Similarity | None = None
    blocked: tuple[str, ...] = ()
    drawable: Callable[[str], str | None] | None = None

    def reasons(self, texts: Sequence[str], true_class: str, target_class: str) -> list[str | None]:
        """For each text why it may not be a cue, or None where it may."""
        reasons = [self._by_rule(text, true_class, target_class) for text in texts]
        left = [index for index, reason in enumerate(reasons) if reason is None]
        if self.similarity is not None and left:
            same = self.similarity.synonyms([texts[index] for index in left], target_class)
            for index in (i for i, is_same in zip(left, same, strict=True) if is_same):
                reasons[index] = f"means {target_class}"
        return reasons

    def keys(self, texts: Sequence[str]) -> list[str | None]:
        """The same for texts that are one cue (singular and plural, or drawn alike)."""
        if self.drawable is not None:
            return [self.drawable(text) for text in texts]
        return [" ".join(stem(word) for word in content(text)) for text in texts]

    def strongest(
        self,
        texts: Sequence[str],
        keys: Sequence[str | None],
        scores: Float[Tensor, " text"],
        request: CueRequest,
    ) -> tuple[list[int], list[tuple[str, str]]]:
        """Indices of the highest positive scores that may be cues, and (text, why not) of others.

        The others are those that score as high as what was kept; ``keys`` are `keys` of the texts.
        """
        order = scores.argsort(descending=True, stable=True).tolist()
        order = [j for j in order[: int((scores > 0).sum())] if keys[j] is not None]
        kept, dropped, seen = [], [], set()
        step = max(4 * request.count, 32)  # synonyms are looked up for a few at a time
        for start in range(0, len(order), step):
            batch = order[start : start + step]
            pair = request.true_class, request.target_class
            reasons = self.reasons([texts[j] for j in batch], *pair)
            for j, reason in zip(batch, reasons, strict=True):
                if len(kept) == request.count:
                    return kept, dropped
                if reason is None and keys[j] in seen:
                    reason = "repeats a stronger cue"
                if reason is None:
                    kept.append(j)
                    seen.add(keys[j])
                else:
                    dropped.append((texts[j], reason))
        return kept, dropped

    def _by_rule(self, text: str, true_class: str, target_class: str) -> str | None:
        for name in (target_class, true_class):
            if names(text, name) or names(name, text):
                return f"names {name}"
        for word in self.blocked:
            if names(text, word):
                return f"contains the blocked word {word}"
        return None


@dataclass(frozen=True)
class CueRequest:
    """Cues of one class pair by one method.

    Attributes:
        true_class: the class that the image shows.
        target_class: the class that it should be read as.
        layers: layers whose units take part; by default all of the bundle.
        neurons: number of units ("second-order").
        count: number of positive and of negative cues.
        method: one of `METHODS`, unless `find_cues` is given a scorer.
        rules: which texts may be cues.

    Raises:
        ValueError: empty or equal classes, counts out of range.
    """

    true_class: str
    target_class: str
    _: KW_ONLY
    layers: Sequence[int] | None = None
    neurons: int = NEURONS
    count: int = 25
    method: str = SECOND_ORDER
    rules: CueFilter = field(default_factory=CueFilter)

    def __post_init__(self) -> None:
        for side in ("true_class", "target_class"):
            object.__setattr__(self, side, check_name(getattr(self, side)))
        true, target = self.true_class, self.target_class
        if names(true, target) or names(target, true):
            raise ValueError(
                f"{true!r} and {target!r} name each other: expected two different classes"
            )
        if self.neurons < 1:
            raise ValueError(f"expected at least 1 neuron, not {self.neurons}")
        if not 1 <= self.count <= MAX_CUES:
            raise ValueError(f"expected 1 to {MAX_CUES} cues, not {self.count}")
