"""Cues that make a CLIP read one class as another (2406.04341, section 5.1).

Neurons that write along the difference of two class texts also write other phrases; those
phrases, put into a picture of the first class, push it toward the second.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from clipneurons.text.class_names import Similarity, content, names, stem, tokens
from clipneurons.text.embedding import embed_texts

SECOND_ORDER, RANDOM_NEURONS, INDIRECT = "second-order", "random neurons", "indirect effect"
SIMILAR_WORDS, RANDOM_WORDS, NO_CUES = "similar words", "random words", "no cues"
DENSE_EFFECTS = "dense effects"
OURS = (SECOND_ORDER, DENSE_EFFECTS)
METHODS = (*OURS, RANDOM_NEURONS, INDIRECT, SIMILAR_WORDS, RANDOM_WORDS, NO_CUES)
# Neurons of a cue that a report names.
NEURONS_SHOWN = 10
MAX_NAME = 60
MAX_WORDS = 200
# Plain enough for models that never read the word "photo".
CLASS_TEMPLATES = ("a {}", "a picture of a {}")


@runtime_checkable
class Decomposition(Protocol):
    """What is known of a layer's units; `bundle.LayerArrays` is one."""

    directions: Float[Tensor, "unit embed"]
    indices: Int[Tensor, "unit component"]
    coefficients: Float[Tensor, "unit component"]


@dataclass(frozen=True)
class CueNeuron:
    """A unit behind a cue, and its part of the cue's score."""

    layer: int
    unit: int
    share: float


@dataclass(frozen=True)
class Cue:
    """A phrase with its contribution score (positive: toward the target class)."""

    text: str
    score: float
    neurons: tuple[CueNeuron, ...] = ()


@dataclass(frozen=True)
class Cues:
    """Phrases that push toward (positive) or away from (negative) the target class.

    ``dropped`` holds (phrase, reason) of those that scored high enough but may not be used.
    """

    true_class: str
    target_class: str
    method: str
    positive: tuple[Cue, ...]
    negative: tuple[Cue, ...]
    dropped: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> list[str]:
        """The positive cues' phrases, strongest first."""
        return [cue.text for cue in self.positive]


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

    def _by_rule(self, phrase: str, true_class: str, target_class: str) -> str | None:
        for name in (target_class, true_class):
            if names(phrase, name) or names(name, phrase):
                return f"names {name}"
        for word in self.blocked:
            if names(phrase, word):
                return f"contains the blocked word {word}"
        return None


def check_name(text: str, what: str = "class name") -> str:
    """The text in one line, refused when empty or longer than ``MAX_NAME`` characters."""
    name = " ".join(str(text).split())
    if not tokens(name):
        raise ValueError(f"the {what} is empty: expected a word or a short phrase")
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(
            f"the {what} {name[:20]!r}... has {len(name)} characters: expected at most {MAX_NAME}, "
            "all printable"
        )
    return name


def find_cues(
    bundle: Bundle,
    clip: ClipModel,
    true_class: str,
    target_class: str,
    layers: Sequence[int] | None = None,
    neurons: int = 100,
    words: int = 25,
    *,
    method: str = SECOND_ORDER,
    rules: CueFilter | None = None,
    decompositions: Mapping[int, Decomposition] | None = None,
    seed: int = 0,
) -> Cues:
    """Phrases whose presence should turn the true class into the target one.

    With v = M_text(target) − M_text(true), the ``neurons`` units of largest |⟨v, r_n⟩| give each
    phrase j the score w_j = Σ_n γ_j^n ⟨v, r_n⟩ (2406.04341, section 5.1). "dense effects" is ours:
    all units and all that they write, w_j = Σ_n s_n² ⟨t_j, r_n⟩ ⟨v, r_n⟩ with s_n the size of a
    unit's largest effects. The baselines differ in one thing each: "random neurons" in the choice
    of units, "indirect effect" in ``decompositions`` (see `indirect_decompositions`), "similar
    words" scores a phrase by ⟨t_j, v⟩, "random words" by chance, "no cues" is empty.

    Args:
        bundle: dictionary of the model's units.
        clip: the model under attack, for the class texts.
        true_class: what the picture shows.
        target_class: what it shall be read as.
        layers: layers whose units take part; by default all of the bundle.
        neurons: number of units.
        words: number of positive and of negative cues.
        method: one of ``METHODS``.
        rules: which phrases may be cues.
        decompositions: what takes the place of the bundle's directions and phrases.
        seed: of the random baselines.

    Raises:
        ValueError: empty or equal classes, an unknown layer or method, counts out of range.
    """
    true_class, target_class = check_name(true_class), check_name(target_class)
    _check_request(true_class, target_class, neurons, words, method, decompositions)
    rules = rules or CueFilter()
    chosen = chosen_layers(bundle, layers)
    true_text, target_text = embed_texts(clip, [true_class, target_class], CLASS_TEMPLATES).cpu()
    difference = target_text - true_text
    generator = torch.Generator().manual_seed(seed)
    units = None
    if method == NO_CUES:
        return Cues(true_class, target_class, method, (), ())
    if method == SIMILAR_WORDS:
        scores = bundle.text_embeddings @ difference
    elif method == RANDOM_WORDS:
        scores = 2 * torch.rand(len(bundle.texts), generator=generator) - 1
    elif method == DENSE_EFFECTS:
        units = dense_effects(bundle, chosen)
        scores = units.phrase_scores(difference)
    else:
        units = stack_units({layer: (decompositions or bundle.layers)[layer] for layer in chosen})
        units = units.choose(difference, neurons, generator if method == RANDOM_NEURONS else None)
        scores = units.phrase_scores(difference, len(bundle.texts))
    keys = [_key(text) if rules.drawable is None else rules.drawable(text) for text in bundle.texts]

    def best(sign: int) -> tuple[tuple[Cue, ...], list[tuple[str, str]]]:
        kept, dropped = _strongest(
            bundle.texts, sign * scores, keys, words, rules, true_class, target_class
        )
        behind = [() if units is None else units.behind(j, difference) for j in kept]
        found = zip(kept, behind, strict=True)
        return tuple(Cue(bundle.texts[j], float(scores[j]), who) for j, who in found), dropped

    positive, dropped = best(+1)
    negative, _ = best(-1)
    return Cues(true_class, target_class, method, positive, negative, tuple(dropped))


@dataclass(frozen=True)
class Units:
    """Units of several layers one below the other."""

    layer: Int[Tensor, " unit"]
    unit: Int[Tensor, " unit"]
    directions: Float[Tensor, "unit embed"]
    indices: Int[Tensor, "unit component"]
    coefficients: Float[Tensor, "unit component"]

    def choose(
        self, difference: Float[Tensor, " embed"], count: int, generator: torch.Generator | None
    ) -> "Units":
        """The units that write most along the difference, or live ones by chance."""
        if generator is None:
            order = (self.directions @ difference).abs().argsort(descending=True, stable=True)
        else:
            live = (self.directions.norm(dim=-1) > 0).nonzero().flatten()
            order = live[torch.randperm(len(live), generator=generator)]
        rows = order[:count]
        return Units(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def phrase_scores(
        self, difference: Float[Tensor, " embed"], texts: int
    ) -> Float[Tensor, " text"]:
        """w_j = Σ_n γ_j^n ⟨v, r_n⟩ of every phrase of the pool."""
        along = self.directions @ difference
        return torch.zeros(texts).index_add_(
            0, self.indices.flatten().long(), (self.coefficients * along[:, None]).flatten()
        )

    def behind(self, text: int, difference: Float[Tensor, " embed"]) -> tuple[CueNeuron, ...]:
        """The units with the largest parts of a phrase's score, either sign."""
        parts = (self.coefficients * (self.indices == text)).sum(-1)
        return self.named(parts * (self.directions @ difference))

    def named(self, parts: Float[Tensor, " unit"]) -> tuple[CueNeuron, ...]:
        """The units with the largest parts."""
        order = parts.abs().argsort(descending=True, stable=True)[:NEURONS_SHOWN]
        return tuple(
            CueNeuron(int(self.layer[i]), int(self.unit[i]), float(parts[i]))
            for i in order.tolist()
            if parts[i] != 0
        )


@dataclass(frozen=True)
class DenseEffects:
    """All units with what their effects write along every text; ``energy`` is s_n²."""

    units: Units
    energy: Float[Tensor, " unit"]
    texts: Float[Tensor, "text embed"]

    def phrase_scores(self, difference: Float[Tensor, " embed"]) -> Float[Tensor, " text"]:
        """w_j = Σ_n s_n² ⟨t_j, r_n⟩ ⟨v, r_n⟩ of every phrase of the pool."""
        along = self.units.directions @ difference
        return self.texts @ (self.units.directions.T @ (self.energy * along))

    def behind(self, text: int, difference: Float[Tensor, " embed"]) -> tuple[CueNeuron, ...]:
        """The units with the largest parts of a phrase's score, either sign."""
        directions = self.units.directions
        parts = (directions @ self.texts[text]) * (directions @ difference)
        return self.units.named(self.energy * parts)


def dense_effects(bundle: Bundle, layers: Sequence[int]) -> DenseEffects:
    """The layers' units; s_n is the root mean square of a unit's largest centred norms."""
    chosen = {layer: bundle.layers[layer] for layer in layers}
    energy = []
    for arrays in chosen.values():
        real = arrays.top_activating_images >= 0
        count = real.sum(1).clamp_min(1)
        energy.append((arrays.top_norms.float().square() * real).sum(1).cpu() / count.cpu())
    texts = torch.nn.functional.normalize(bundle.text_embeddings.float().cpu(), dim=1)
    return DenseEffects(stack_units(chosen), torch.cat(energy), texts)


def stack_units(decompositions: Mapping[int, Decomposition]) -> Units:
    """All units of the layers."""
    counts = {layer: len(d.directions) for layer, d in decompositions.items()}
    arrays = decompositions.values()
    return Units(
        layer=torch.cat([torch.full((count,), layer) for layer, count in counts.items()]),
        unit=torch.cat([torch.arange(count) for count in counts.values()]),
        directions=torch.cat([a.directions.float().cpu() for a in arrays]),
        indices=torch.cat([a.indices.cpu() for a in arrays]),
        coefficients=torch.cat([a.coefficients.float().cpu() for a in arrays]),
    )


def _strongest(
    texts: Sequence[str],
    scores: Float[Tensor, " text"],
    keys: Sequence[str | None],
    count: int,
    rules: CueFilter,
    true_class: str,
    target_class: str,
) -> tuple[list[int], list[tuple[str, str]]]:
    """Indices of the highest positive scores that the rules allow, and what they did not."""
    drawable = torch.tensor([key is not None for key in keys])
    allowed = torch.where(drawable, scores, scores.new_tensor(0.0))
    order = allowed.argsort(descending=True, stable=True)
    order = order[: int((allowed > 0).sum())].tolist()
    kept, dropped, seen = [], [], set()
    step = max(4 * count, 32)  # synonyms are looked up for a few at a time
    for start in range(0, len(order), step):
        batch = order[start : start + step]
        reasons = rules.reasons([texts[j] for j in batch], true_class, target_class)
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


def _key(text: str) -> str:
    """The same for singular and plural."""
    return " ".join(stem(word) for word in content(text))


def chosen_layers(bundle: Bundle, layers: Sequence[int] | None) -> list[int]:
    """The layers, or all of the bundle; raises ValueError for one that it does not have."""
    known = list(bundle.layers)
    chosen = known if layers is None else list(dict.fromkeys(layers))
    unknown = [layer for layer in chosen if layer not in known]
    if unknown or not chosen:
        raise ValueError(f"expected layers among {known}, the bundle's own, not {list(chosen)}")
    return chosen


def _check_request(true_class, target_class, neurons, words, method, decompositions) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if names(true_class, target_class) or names(target_class, true_class):
        raise ValueError(
            f"{true_class!r} and {target_class!r} name each other: expected two different classes"
        )
    if neurons < 1:
        raise ValueError(f"expected at least 1 neuron, not {neurons}")
    if not 1 <= words <= MAX_WORDS:
        raise ValueError(f"expected 1 to {MAX_WORDS} words, not {words}")
    if (method == INDIRECT) != (decompositions is not None):
        raise ValueError(
            f"the method {INDIRECT!r}, and no other, needs `decompositions` "
            "(clipneurons.analysis.indirect_decomposition)"
        )
