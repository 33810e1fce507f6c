"""Cues: texts whose objects turn one class into another (2406.04341, section 5.1).

    w_j = Σ_{n ∈ N} γ_j^n ⟨v, r_n⟩,   v = M_text(target) − M_text(true)

    v      [embed]  difference of the two classes' text embeddings
    r_n    [embed]  direction of unit n, the first principal component of its effects
    γ_j^n           coefficient of text j in the sparse decomposition of r_n
    N               the units of largest |⟨v, r_n⟩|, 100 in the paper
    w_j             score of text j; positive pushes an image toward the target class

"second-order" is this formula, over the units of all chosen layers together. "recorded effects",
ours, puts Δ_j^n in place of γ_j^n and sums over all units: what unit n does in images in which
cue j is drawn, mean of ⟨φ_n(I), r_n⟩, less the mean over all cues. Its control, "recorded
embeddings", scores the same images without neurons: w_j = ⟨ΔM_j, v⟩ with ΔM_j the change of the
whole embedding. "similar words" is the baseline w_j = ⟨t_j, v⟩ with t_j the text's embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.adversarial.cue_request import (
    METHODS,
    NO_CUES,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
    SIMILAR_WORDS,
    CueRequest,
)
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.cue_recordings import CueRecordings
from clipneurons.bundle.stacked_units import StackedUnits
from clipneurons.models.clip import ClipModel
from clipneurons.notebook import article, bars, number
from clipneurons.text.embedding import embed_texts

# Plain enough for models that never read the word "photo".
CLASS_TEMPLATES = ("a {}", "a picture of a {}")
# Units that are named behind a cue.
UNITS_SHOWN = 10


@dataclass(frozen=True)
class CueUnit:
    """A unit behind a cue, and its part of the cue's score."""

    layer: int
    unit: int
    share: float


@dataclass(frozen=True)
class Cue:
    """A text with its score (positive: toward the target class) and the units behind it."""

    text: str
    score: float
    units: tuple[CueUnit, ...] = ()


@dataclass(frozen=True)
class Cues:
    """Texts that push toward (positive) or away from (negative) the target class.

    ``dropped`` holds (text, reason) of those that scored high enough but may not be used.
    """

    true_class: str
    target_class: str
    method: str
    positive: tuple[Cue, ...]
    negative: tuple[Cue, ...]
    dropped: tuple[tuple[str, str], ...] = ()

    @property
    def texts(self) -> list[str]:
        """The positive cues' texts, strongest first."""
        return [cue.text for cue in self.positive]

    def to_dict(self) -> dict[str, Any]:
        """In JSON values, as the page's endpoint gives it."""
        return {
            "method": self.method,
            "toward": [_data(cue) for cue in self.positive],
            "away": [_data(cue) for cue in self.negative],
            "dropped": [{"text": text, "reason": reason} for text, reason in self.dropped],
        }

    def __repr__(self) -> str:
        lines = [f"Cues that turn {self.true_class} into {self.target_class} ({self.method})"]
        lines += [f"  {number(cue.score)}  {cue.text}" for cue in (*self.positive, *self.negative)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        toward, away = (
            [(cue.text, cue.score) for cue in cues] for cues in (self.positive, self.negative)
        )
        return article(
            f"Cues: {self.true_class} read as {self.target_class}",
            bars(f"Toward {self.target_class}", toward),
            bars(f"Toward {self.true_class}", away),
            note=f"By {self.method}; {len(self.dropped)} texts dropped, see .dropped.",
        )


def _data(cue: Cue) -> dict[str, Any]:
    return asdict(cue) | {"units": [asdict(unit) for unit in cue.units]}


@dataclass(frozen=True)
class TextScores:
    """w_j of every text of the pool, and the units behind a text (none where no unit is asked)."""

    scores: Float[Tensor, " text"]
    behind: Callable[[int], tuple[CueUnit, ...]] = lambda text: ()


Scorer = Callable[[Bundle, CueRequest, Float[Tensor, " embed"]], TextScores]


def find_cues(
    bundle: Bundle,
    clip: ClipModel,
    request: CueRequest,
    *,
    difference: Float[Tensor, " embed"] | None = None,
    scorer: Scorer | None = None,
) -> Cues:
    """Texts whose objects should turn the true class into the target class.

    Args:
        bundle: dictionary of the model's units.
        clip: the model under attack, for the class texts.
        request: the classes, the method and its settings.
        difference: v, where the class texts are embedded already.
        scorer: scores the texts instead of the request's method.

    Raises:
        ValueError: an unknown method, a layer that the bundle does not have, or a method that
            needs recorded cues and a bundle without them.
    """
    if scorer is None:
        if request.method not in SCORERS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {request.method!r}")
        scorer = SCORERS[request.method]
    request = replace(request, layers=chosen_layers(bundle, request.layers))
    pair = (request.true_class, request.target_class)
    if difference is None:
        true_text, target_text = embed_texts(clip, list(pair), CLASS_TEMPLATES)
        difference = target_text - true_text
    scored = scorer(bundle, request, difference.cpu())
    keys = request.rules.keys(bundle.texts)

    def strongest(sign: int) -> tuple[tuple[Cue, ...], list[tuple[str, str]]]:
        kept, dropped = request.rules.strongest(bundle.texts, keys, sign * scored.scores, request)
        cues = (Cue(bundle.texts[j], float(scored.scores[j]), scored.behind(j)) for j in kept)
        return tuple(cues), dropped

    positive, dropped = strongest(+1)
    negative, _ = strongest(-1)
    return Cues(*pair, request.method, positive, negative, tuple(dropped))


def chosen_layers(bundle: Bundle, layers: Sequence[int] | None) -> list[int]:
    """The layers, or all of the bundle; raises ValueError for one that it does not have."""
    known = list(bundle.layers)
    chosen = known if layers is None else list(dict.fromkeys(layers))
    unknown = [layer for layer in chosen if layer not in known]
    if unknown or not chosen:
        raise ValueError(f"expected layers among {known}, the bundle's own, not {list(chosen)}")
    return chosen


# -- the methods


def aligned_units(
    units: StackedUnits, difference: Float[Tensor, " embed"], count: int
) -> StackedUnits:
    """N: the units of largest |⟨v, r_n⟩|."""
    order = (units.directions @ difference).abs().argsort(descending=True, stable=True)
    return units.take(order[:count])


def decomposition_scores(
    units: StackedUnits, difference: Float[Tensor, " embed"], texts: int
) -> TextScores:
    """w_j = Σ_n γ_j^n ⟨v, r_n⟩ over the given units."""
    along = units.directions @ difference  # [unit]
    parts = units.coefficients * along[:, None]  # [unit, component]
    scores = torch.zeros(texts).index_add_(0, units.indices.flatten(), parts.flatten())  # [text]

    def behind(text: int) -> tuple[CueUnit, ...]:
        return _largest(units.layer, units.unit, (parts * (units.indices == text)).sum(-1))

    return TextScores(scores, behind)


def _second_order(bundle: Bundle, request: CueRequest, difference: Tensor) -> TextScores:
    units = StackedUnits.of({layer: bundle.layers[layer] for layer in request.layers})
    units = aligned_units(units, difference, request.neurons)
    return decomposition_scores(units, difference, len(bundle.texts))


def _recorded_effects(bundle: Bundle, request: CueRequest, difference: Tensor) -> TextScores:
    """w_j = Σ_n Δ_j^n ⟨v, r_n⟩; the units named behind a cue are of those that it moves most."""
    recordings = _recordings(bundle, request)
    written = sum(recordings.layers[layer].written for layer in request.layers)  # [cue, embed]

    def behind(text: int) -> tuple[CueUnit, ...]:
        cue = recordings.row[text]
        if cue < 0:
            return ()
        layers, units, shares = [], [], []
        for layer in request.layers:
            loudest = recordings.layers[layer].units[cue]
            along = bundle.layers[layer].directions[loudest].cpu() @ difference
            layers.append(torch.full_like(loudest, layer))
            units.append(loudest)
            shares.append(recordings.layers[layer].effects[cue] * along)
        return _largest(torch.cat(layers), torch.cat(units), torch.cat(shares))

    return TextScores(_of_texts(recordings.row, written @ difference), behind)


def _recorded_embeddings(bundle: Bundle, request: CueRequest, difference: Tensor) -> TextScores:
    """w_j = ⟨ΔM_j, v⟩: the same images without the neurons."""
    recordings = _recordings(bundle, request)
    return TextScores(_of_texts(recordings.row, recordings.embeddings @ difference))


def _similar_words(bundle: Bundle, request: CueRequest, difference: Tensor) -> TextScores:
    """w_j = ⟨t_j, v⟩."""
    return TextScores(bundle.text_embeddings @ difference)


def _no_cues(bundle: Bundle, request: CueRequest, difference: Tensor) -> TextScores:
    return TextScores(torch.zeros(len(bundle.texts)))


SCORERS: Mapping[str, Scorer] = {
    SECOND_ORDER: _second_order,
    RECORDED_EFFECTS: _recorded_effects,
    RECORDED_EMBEDDINGS: _recorded_embeddings,
    SIMILAR_WORDS: _similar_words,
    NO_CUES: _no_cues,
}


def _largest(
    layer: Int[Tensor, " unit"], unit: Int[Tensor, " unit"], parts: Float[Tensor, " unit"]
) -> tuple[CueUnit, ...]:
    """Those of the units with the largest parts of a score, either sign."""
    order = parts.abs().argsort(descending=True, stable=True)[:UNITS_SHOWN]
    return tuple(
        CueUnit(int(layer[i]), int(unit[i]), float(parts[i])) for i in order.tolist() if parts[i]
    )


def _recordings(bundle: Bundle, request: CueRequest) -> CueRecordings:
    if bundle.cues is None:
        raise ValueError(
            f"the method {request.method!r} needs a bundle whose cues were recorded "
            f"(python -m export evaluate cues): record them, or use the method {SECOND_ORDER!r}"
        )
    return bundle.cues


def _of_texts(row: Int[Tensor, " text"], scores: Float[Tensor, " cue"]) -> Float[Tensor, " text"]:
    """Scores of recorded cues for every text of the pool, 0 where it was not recorded."""
    return torch.where(row >= 0, scores[row.clamp_min(0)], 0.0)
