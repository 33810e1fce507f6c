"""How strongly a phrase pushes from one class to another: a scorer a method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.adversarial.cue_request import CueRequest
from clipneurons.adversarial.methods import (
    DENSE_EFFECTS,
    INDIRECT,
    NO_CUES,
    RANDOM_NEURONS,
    RANDOM_WORDS,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
    SIMILAR_WORDS,
    TESTED_LABELS,
)
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.cue_recordings import CueRecordings
from clipneurons.bundle.stacked_units import StackedUnits

# Neurons of a cue that a report names.
NEURONS_SHOWN = 10


@dataclass(frozen=True)
class CueNeuron:
    """A unit behind a cue, and its part of the cue's score."""

    layer: int
    unit: int
    share: float


@dataclass(frozen=True)
class PhraseScores:
    """Scores of the pool's phrases, and which units are behind one (none of words alone)."""

    scores: Float[Tensor, " text"]
    behind: Callable[[int], tuple[CueNeuron, ...]] = lambda text: ()


def _strongest(
    layer: Int[Tensor, " unit"], unit: Int[Tensor, " unit"], parts: Float[Tensor, " unit"]
) -> tuple[CueNeuron, ...]:
    """Those of the units with the largest parts."""
    order = parts.abs().argsort(descending=True, stable=True)[:NEURONS_SHOWN]
    return tuple(
        CueNeuron(int(layer[i]), int(unit[i]), float(parts[i]))
        for i in order.tolist()
        if parts[i] != 0
    )


class Units(StackedUnits):
    """Stacked units that push from one class to another."""

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
            0, self.indices.flatten(), (self.coefficients * along[:, None]).flatten()
        )

    def behind(self, text: int, difference: Float[Tensor, " embed"]) -> tuple[CueNeuron, ...]:
        """The units with the largest parts of a phrase's score, either sign."""
        parts = (self.coefficients * (self.indices == text)).sum(-1)
        return self.named(parts * (self.directions @ difference))

    def named(self, parts: Float[Tensor, " unit"]) -> tuple[CueNeuron, ...]:
        """The units with the largest parts."""
        return _strongest(self.layer, self.unit, parts)


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
    return DenseEffects(Units.of(chosen), torch.cat(energy), texts)


def _by_phrases(bundle: Bundle, request: CueRequest, difference: Tensor) -> PhraseScores:
    """Phrases of the units that write most along the difference, or of units by chance."""
    arrays = request.decompositions or bundle.layers
    units = Units.of({layer: arrays[layer] for layer in request.layers})
    generator = _generator(request) if request.method == RANDOM_NEURONS else None
    units = units.choose(difference, request.neurons, generator)
    scores = units.phrase_scores(difference, len(bundle.texts))
    return PhraseScores(scores, lambda text: units.behind(text, difference))


def _by_effects(bundle: Bundle, request: CueRequest, difference: Tensor) -> PhraseScores:
    """All that all units write."""
    units = dense_effects(bundle, request.layers)
    return PhraseScores(
        units.phrase_scores(difference), lambda text: units.behind(text, difference)
    )


def _by_labels(bundle: Bundle, request: CueRequest, difference: Tensor) -> PhraseScores:
    """w_j = Σ_n c_j^n s_n ⟨v, r_n⟩: what makes a unit act, by its label, and what it then writes.

    Raises:
        ValueError: the bundle's labels were not tested.
    """
    if not bundle.labels:
        raise ValueError(
            f"the method {TESTED_LABELS!r} needs a bundle whose labels were tested "
            "(python -m export evaluate labels): use another method"
        )
    every = dense_effects(bundle, request.layers)
    labels = [bundle.labels[layer] for layer in request.layers]
    units = replace(
        every.units,
        directions=every.energy.sqrt()[:, None] * every.units.directions,
        indices=torch.cat([mine.indices.cpu() for mine in labels]),
        coefficients=torch.cat([mine.coefficients.float().cpu() for mine in labels]),
    )
    scores = units.phrase_scores(difference, len(bundle.texts))
    return PhraseScores(scores, lambda text: units.behind(text, difference))


def _by_recorded_effects(bundle: Bundle, request: CueRequest, difference: Tensor) -> PhraseScores:
    """w_j = Σ_n Δ_j^n ⟨v, r_n⟩ with Δ_j^n what a unit does in pictures of the phrase.

    Behind a phrase are named units of those that its pictures move most.
    """
    recordings = _recordings(bundle, request)
    written = sum(recordings.layers[layer].written for layer in request.layers)

    def behind(text: int) -> tuple[CueNeuron, ...]:
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
        return _strongest(torch.cat(layers), torch.cat(units), torch.cat(shares))

    return PhraseScores(_of_phrases(recordings.row, written @ difference), behind)


def _by_recorded_embeddings(
    bundle: Bundle, request: CueRequest, difference: Tensor
) -> PhraseScores:
    """w_j = ⟨ΔM_j, v⟩: the same pictures without the neurons."""
    recordings = _recordings(bundle, request)
    return PhraseScores(_of_phrases(recordings.row, recordings.embeddings @ difference))


def _recordings(bundle: Bundle, request: CueRequest) -> CueRecordings:
    if bundle.cues is None:
        raise ValueError(
            f"the method {request.method!r} needs a bundle with pictures of its phrases read "
            "(python -m export evaluate cues): use another method"
        )
    return bundle.cues


def _of_phrases(row: Int[Tensor, " text"], scores: Float[Tensor, " cue"]) -> Float[Tensor, " text"]:
    """Scores of recorded cues for every phrase of the pool, 0 where it was not recorded."""
    return torch.where(row >= 0, scores[row.clamp_min(0)], 0.0)


def _similar_words(bundle: Bundle, request: CueRequest, difference: Tensor) -> PhraseScores:
    return PhraseScores(bundle.text_embeddings @ difference)


def _random_words(bundle: Bundle, request: CueRequest, difference: Tensor) -> PhraseScores:
    return PhraseScores(2 * torch.rand(len(bundle.texts), generator=_generator(request)) - 1)


def _no_cues(bundle: Bundle, request: CueRequest, difference: Tensor) -> PhraseScores:
    return PhraseScores(torch.zeros(len(bundle.texts)))


def _generator(request: CueRequest) -> torch.Generator:
    return torch.Generator().manual_seed(request.seed)


# By method; the request's layers are the bundle's.
SCORERS: Mapping[str, Callable[[Bundle, CueRequest, Float[Tensor, " embed"]], PhraseScores]] = {
    SECOND_ORDER: _by_phrases,
    RANDOM_NEURONS: _by_phrases,
    INDIRECT: _by_phrases,
    DENSE_EFFECTS: _by_effects,
    TESTED_LABELS: _by_labels,
    RECORDED_EFFECTS: _by_recorded_effects,
    RECORDED_EMBEDDINGS: _by_recorded_embeddings,
    SIMILAR_WORDS: _similar_words,
    RANDOM_WORDS: _random_words,
    NO_CUES: _no_cues,
}
