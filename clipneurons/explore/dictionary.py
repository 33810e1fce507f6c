"""The neuron dictionary: what each unit of a bundle says, and who says a given thing.

Everything here reads the bundle alone. A model is needed only to embed words that the bundle's
pool of texts does not have.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.analysis.clustering import linked
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.unit_words import signed, signed_words

# Columns of `Dictionary.table`.
TABLE = (
    "unit", "label", "simulation", "reliable", "decomposition", "decomposition_simulation",
    "explained_variance", "participation_ratio", "effective_concepts", "top_norm",
)  # fmt: skip
Embed = Callable[[list[str]], Float[Tensor, "text embed"]]
# Units whose phrases are compared at once.
_CHUNK = 1024
# Phrases of a unit that count as its effective concepts; later ones carry little weight.
_MEANING_PHRASES = 16
# Random directions behind `Dictionary.chance_line`, and the share of them below it.
_RANDOM, _BELOW = 1000, 0.95


@dataclass(frozen=True)
class Phrase:
    """A part of a query: words, and whether they are wanted (+1) or unwanted (−1)."""

    words: str
    sign: int = 1


@dataclass(frozen=True)
class Hit:
    """A unit that a search found; `score` is a cosine or a coefficient."""

    layer: int
    unit: int
    score: float


@dataclass(frozen=True)
class LabelTrust:
    """How far a unit's label can be trusted; see `clipneurons.bundle.labels.LayerLabels`.

    `decomposition` is the correlation of the paper's decomposition, `concept` the text that the
    unit detects best, with intersection over union.
    """

    simulation: float
    low: float
    high: float
    shuffled_line: float
    reliable: bool
    decomposition: float
    concept: str
    concept_iou: float
    monosemanticity: float


@dataclass(frozen=True)
class NeuronDashboard:
    """What is known of one unit, ready to be shown or saved.

    `phrases` are the unit's tested label, of a bundle without such the decomposition, with their
    coefficients, largest first; `decomposition` is the paper's; `trust` is None where no label was
    tested; `images` have their centred effect norms;
    `significant_share` is the share of images that carry the effect (participation ratio);
    `effective_concepts` counts its distinct phrases (see `Dictionary.effective_concepts`).
    """

    layer: int
    unit: int
    neuron: int
    head: int | None
    phrases: list[tuple[str, float]]
    decomposition: list[tuple[str, float]]
    trust: LabelTrust | None
    images: list[tuple[int, float]]
    explained_variance: float
    significant_share: float
    effective_concepts: float
    threshold: float
    mean_top_norm: float
    neighbours: list[Hit]
    dead: bool


@dataclass(frozen=True)
class HeadGroup:
    """Pairs through which a ResNet's neuron says about the same thing, the strongest first.

    `units` are the pairs and `heads` theirs; `share` is the part of the squared top norms of all
    the neuron's pairs that they have. `phrases` are the strongest pair's with their coefficients,
    `images` those on which the pairs' centred effects have the largest summed norms.
    """

    units: tuple[int, ...]
    heads: tuple[int, ...]
    share: float
    phrases: list[tuple[str, float]]
    images: list[tuple[int, float]]


def parse_query(query: str) -> list[Phrase]:
    """Phrases of a query: separated by commas, with a leading minus where unwanted.

    Raises `ValueError` for a query without words.
    """
    phrases = []
    for part in query.split(","):
        part = " ".join(part.split())
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


class Dictionary:
    """A bundle, arranged for looking things up in it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.layers = tuple(sorted(bundle.layers))
        counts = [len(bundle.layers[layer].directions) for layer in self.layers]
        self._starts = {layer: sum(counts[:i]) for i, layer in enumerate(self.layers)}
        self.directions = torch.cat([bundle.layers[layer].directions for layer in self.layers])
        self.indices = torch.cat([bundle.layers[layer].indices for layer in self.layers]).long()
        self.coefficients = torch.cat([bundle.layers[layer].coefficients for layer in self.layers])
        self._texts = [text.lower() for text in bundle.texts]

    def units(self, layer: int) -> int:
        """Number of units of a layer."""
        return len(self._arrays(layer).directions)

    def _arrays(self, layer: int):
        if layer not in self.bundle.layers:
            known = ", ".join(map(str, self.layers))
            raise ValueError(f"This bundle has no layer {layer}; it has {known}.")
        return self.bundle.layers[layer]

    def row(self, layer: int, unit: int) -> int:
        """Place of a unit among all units of all layers.

        Raises `ValueError` for a layer or unit that the bundle does not have.
        """
        count = self.units(layer)
        if not 0 <= unit < count:
            raise ValueError(f"Layer {layer} has units 0 to {count - 1}, not {unit}.")
        return self._starts[layer] + unit

    def place(self, row: int) -> tuple[int, int]:
        """The layer and unit at a place among all units."""
        layer = max((la for la in self.layers if self._starts[la] <= row), key=self._starts.get)
        return layer, row - self._starts[layer]

    def hits(self, scores: Float[Tensor, " row"], rows: Iterable[int]) -> list[Hit]:
        """Places of units with their scores."""
        return [Hit(*self.place(row), float(scores[row])) for row in rows]

    # -- search

    @cached_property
    def _row_of_text(self) -> dict[str, int]:
        return {text: i for i, text in reversed(list(enumerate(self._texts)))}

    def in_pool(self, words: str) -> bool:
        """Whether the pool has exactly this text, so that no model is needed to embed it."""
        return words.lower() in self._row_of_text

    def embed(
        self, phrases: Sequence[Phrase], embed: Embed | None = None
    ) -> Float[Tensor, " embed"]:
        """Unit vector of a query: wanted phrases minus unwanted ones.

        Texts of the pool are looked up; for others `embed` is called. Raises `ValueError` when
        it is needed and missing, or when the phrases cancel out.
        """
        total = torch.zeros(self.bundle.config.embed_dim)
        unknown = [phrase for phrase in phrases if not self.in_pool(phrase.words)]
        if unknown:
            if embed is None:
                words = ", ".join(f'"{phrase.words}"' for phrase in unknown)
                raise ValueError(f"The bundle has no text {words}, and no model to embed it with.")
            vectors = embed([phrase.words for phrase in unknown]).float().cpu()
            for phrase, vector in zip(unknown, vectors, strict=True):
                total += phrase.sign * normalize(vector, dim=0)
        for phrase in phrases:
            if self.in_pool(phrase.words):
                row = self._row_of_text[phrase.words.lower()]
                total += phrase.sign * normalize(self.bundle.text_embeddings[row], dim=0)
        if total.norm() < 1e-6:
            raise ValueError("The wanted and the unwanted phrases cancel out: nothing is left.")
        return normalize(total, dim=0)

    def cosines(self, vector: Float[Tensor, " embed"]) -> Float[Tensor, " row"]:
        """Cosine of every unit's direction with a unit vector; 0 for dead units."""
        return self.directions @ vector

    @cached_property
    def _joined(self) -> tuple[str, list[int]]:
        """All texts as one, a line each, and where each line starts: one scan finds a word."""
        starts = [0, *accumulate(len(text) + 1 for text in self._texts[:-1])]
        return "\n".join(self._texts), starts

    def coefficient_scores(self, phrases: Sequence[Phrase]) -> Float[Tensor, " row"]:
        """Summed coefficients, by unit, of the pool's texts that hold a phrase's words.

        A phrase matches a text that contains it as whole words; unwanted phrases count
        negatively. Raises `ValueError` when no text of the pool matches any phrase.
        """
        weights = torch.zeros(len(self._texts))
        joined, starts = self._joined
        for phrase in phrases:
            whole = re.compile(rf"\b{re.escape(phrase.words.lower())}\b")
            lines = {bisect(starts, match.start()) - 1 for match in whole.finditer(joined)}
            weights[list(lines)] += phrase.sign
        if not weights.any():
            words = ", ".join(f'"{phrase.words}"' for phrase in phrases)
            raise ValueError(
                f"No text of this bundle's pool contains {words}. Search by direction instead."
            )
        return (weights[self.indices] * self.coefficients).sum(1)

    def strongest(
        self, scores: Float[Tensor, " row"], top: int = 12
    ) -> tuple[list[Hit], list[Hit]]:
        """Units with the largest positive scores, and those with the most negative ones."""
        top = min(top, len(scores))
        toward, against = scores.topk(top).indices, (-scores).topk(top).indices
        return (
            self.hits(scores, [r for r in toward.tolist() if scores[r] > 0]),
            self.hits(scores, [r for r in against.tolist() if scores[r] < 0]),
        )

    # -- one unit

    def neighbours(self, layer: int, unit: int, top: int = 8) -> list[Hit]:
        """Units of any layer whose directions are nearest by cosine; none for a dead unit."""
        row = self.row(layer, unit)
        scores = self.directions @ self.directions[row]
        if not self.directions[row].any():
            return []
        order = scores.topk(min(top + 1, len(scores))).indices.tolist()
        return self.hits(scores, [other for other in order if other != row][:top])

    def effect_on(
        self, layer: int, unit: int, classes: Float[Tensor, "class embed"]
    ) -> Float[Tensor, " class"]:
        """What the unit adds to ⟨embedding, class⟩ where it is strong.

        The mean norm of its top effects times the cosine of its direction with the class text;
        in units of an image embedding of norm 100.
        """
        arrays = self._arrays(layer)
        along = normalize(classes, dim=1) @ self.directions[self.row(layer, unit)]
        return along * _mean_top_norm(arrays.top_norms[unit], arrays.top_activating_images[unit])

    def card(
        self, layer: int, unit: int, phrases: int = 12, neighbours: int = 8
    ) -> NeuronDashboard:
        """Everything the page shows of a unit."""
        row, arrays = self.row(layer, unit), self._arrays(layer)
        heads = self.bundle.config.units_per_neuron
        images = arrays.top_activating_images[unit].tolist()
        norms = arrays.top_norms[unit].tolist()
        return NeuronDashboard(
            layer=layer,
            unit=unit,
            neuron=unit // heads,
            head=unit % heads if heads > 1 else None,
            phrases=self.bundle.label(layer, unit, phrases),
            decomposition=self.bundle.phrases(layer, unit, phrases),
            trust=self.trust(layer, unit),
            images=[(i, n) for i, n in zip(images, norms, strict=True) if i >= 0],
            explained_variance=float(arrays.explained_variance[unit]),
            significant_share=float(arrays.participation_ratio[unit]),
            effective_concepts=float(self.effective_concepts[row]),
            threshold=float(arrays.percentile[unit]),
            mean_top_norm=_mean_top_norm(
                arrays.top_norms[unit], arrays.top_activating_images[unit]
            ),
            neighbours=self.neighbours(layer, unit, neighbours),
            dead=not bool(self.directions[row].any()),
        )

    def trust(self, layer: int, unit: int) -> LabelTrust | None:
        """How far the unit's label can be trusted; None where it was not tested."""
        self.row(layer, unit)
        if layer not in self.bundle.labels:
            return None
        mine = self.bundle.labels[layer]
        return LabelTrust(
            simulation=float(mine.simulation[unit]),
            low=float(mine.simulation_low[unit]),
            high=float(mine.simulation_high[unit]),
            shuffled_line=float(mine.shuffled_line[unit]),
            reliable=bool(mine.reliable[unit]),
            decomposition=float(mine.decomposition[unit]),
            concept=self.bundle.texts[int(mine.concept[unit])],
            concept_iou=float(mine.concept_iou[unit]),
            monosemanticity=float(mine.monosemanticity[unit]),
        )

    def sub_concepts(
        self, layer: int, unit: int, similar: float = 0.5, phrases: int = 4
    ) -> list[HeadGroup]:
        """What the neuron behind a pair says through its heads (2509.19943, section 4).

        Pairs are grouped by average linkage of their directions, joined from a mean cosine of
        ``similar``; the group with the largest share comes first. Dead pairs are left out. Empty
        for a ViT, whose neurons are units themselves.
        """
        row, arrays = self.row(layer, unit), self._arrays(layer)
        heads = self.bundle.config.units_per_neuron
        if heads == 1:
            return []
        first = unit // heads * heads
        rows = self.directions[row - unit + first :][:heads]
        alive = rows.any(1).nonzero().flatten()
        norms = arrays.top_norms[first : first + heads]
        strength = (
            norms.square() * (arrays.top_activating_images[first : first + heads] >= 0)
        ).sum(1)
        found = []
        for group in linked(rows[alive], similar):
            mine = sorted(alive[group].tolist(), key=lambda head: -float(strength[head]))
            units = tuple(first + head for head in mine)
            found.append(
                HeadGroup(
                    units=units,
                    heads=tuple(mine),
                    share=float(strength[mine].sum() / strength.sum()),
                    phrases=self.bundle.phrases(layer, units[0], phrases),
                    images=_strongest_images(
                        arrays.top_activating_images[list(units)], norms[mine]
                    ),
                )
            )
        return sorted(found, key=lambda concept: -concept.share)

    # -- all units

    @cached_property
    def tested(self) -> bool:
        """Whether the bundle's labels were tested."""
        return bool(self.bundle.labels)

    @cached_property
    def simulation(self) -> Float[Tensor, " row"]:
        """How well every unit's label predicts it; 0 where labels were not tested."""
        if not self.tested:
            return torch.zeros(len(self.directions))
        return torch.cat([self.bundle.labels[layer].simulation for layer in self.layers])

    @cached_property
    def reliable(self) -> Bool[Tensor, " row"]:
        """Units with a reliable label; none where labels were not tested."""
        if not self.tested:
            return torch.zeros(len(self.directions), dtype=torch.bool)
        return torch.cat([self.bundle.labels[layer].reliable for layer in self.layers])

    @cached_property
    def chance_line(self) -> float:
        """Cosine that the best unit for a random direction stays below in 95 % of the cases.

        A search whose best unit is not above it has found nothing.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (_RANDOM, self.directions.shape[1])
        drawn = normalize(torch.randn(shape, generator=generator), dim=1)
        best = torch.zeros(_RANDOM)
        for part in self.directions.split(_CHUNK):
            best = torch.maximum(best, (drawn @ part.T).amax(1))
        return float(best.quantile(_BELOW))

    @cached_property
    def centred_texts(self) -> Float[Tensor, "text embed"]:
        """The pool's embeddings without what all texts share, as unit rows."""
        texts = self.bundle.text_embeddings
        return normalize(texts - texts.mean(0), dim=1)

    @cached_property
    def effective_concepts(self) -> Float[Tensor, " row"]:
        """Effective number of distinct phrases of each unit: 1 says one thing.

        Diversity of order 2 that takes similarity into account (Leinster and Cobbold 2012):
        1 / Σ_jk p_j p_k max(0, s_j s_k cos(t_j, t_k)), with p the shares of |γ|, s the signs and
        t the centred texts; a unit that says the same in several words has one meaning. 0 for
        dead units.
        """
        parts = []
        order = (
            self.coefficients.abs()
            .topk(min(_MEANING_PHRASES, self.coefficients.shape[1]), dim=1)
            .indices
        )
        gamma = self.coefficients.gather(1, order)
        share = gamma.abs() / gamma.abs().sum(1, keepdim=True).clamp_min(1e-12)
        indices = self.indices.gather(1, order)
        for start in range(0, len(share), _CHUNK):
            part = slice(start, start + _CHUNK)
            texts = self.centred_texts[indices[part]] * gamma[part].sign()[..., None]
            alike = (texts @ texts.mT).clamp_min(0)  # [unit, phrase, phrase]
            alike.diagonal(dim1=1, dim2=2).fill_(1.0)
            same = torch.einsum("uj,ujk,uk->u", share[part], alike, share[part])
            parts.append(torch.where(same > 0, 1 / same, 0.0))
        return torch.cat(parts)

    def table(self, layer: int, phrases: int = 4) -> list[list]:
        """A row a unit, as the columns of `TABLE`; what was not tested is None."""
        arrays, rows = self._arrays(layer), []
        start = self._starts[layer]
        columns = zip(
            arrays.indices[:, :phrases].tolist(),
            arrays.coefficients[:, :phrases].tolist(),
            arrays.explained_variance.tolist(),
            arrays.participation_ratio.tolist(),
            self.effective_concepts[start : start + self.units(layer)].tolist(),
            arrays.top_norms[:, 0].tolist(),
            strict=True,
        )
        for unit, (texts, gammas, explained, share, effective_concepts, norm) in enumerate(columns):
            pairs = zip(texts, gammas, strict=True)
            said = [signed(self.bundle.texts[i], g) for i, g in pairs if g]
            trust = self.trust(layer, unit)
            label = signed_words(self.bundle, layer, unit, phrases)
            rows.append(
                [
                    unit,
                    ", ".join(label),
                    trust and trust.simulation,
                    None if trust is None else trust.reliable,
                    ", ".join(said),
                    trust and trust.decomposition,
                    explained,
                    share,
                    effective_concepts,
                    norm,
                ]
            )
        return rows

    def interesting(self) -> tuple[int, int]:
        """A unit worth opening with.

        Of a bundle with tested labels the one whose reliable label predicts it best. Else one that
        is rarely active, has one clear direction and few concepts, is strong, and whose pictures'
        captions, where there are any, name what it says.
        """
        if bool(self.reliable.any()):
            return self.place(self.most_trusted(1)[0])
        best, found = -1.0, (self.layers[-1], 0)
        for layer in reversed(self.layers):
            arrays, start = self._arrays(layer), self._starts[layer]
            said = (self.coefficients[start : start + self.units(layer), 0]).clamp_min(0)
            rare = 1 - arrays.participation_ratio
            effective_concepts = self.effective_concepts[start : start + len(rare)].clamp_min(1)
            clear = arrays.explained_variance / effective_concepts
            size = arrays.top_norms[:, 0] / arrays.top_norms[:, 0].median().clamp_min(1e-12)
            score = said * rare * clear * size.clamp_max(3).sqrt() * self._named(layer)
            if float(score.max()) > best:
                best, found = float(score.max()), (layer, int(score.argmax()))
        return found

    def most_trusted(self, count: int) -> list[int]:
        """Rows of the units whose reliable labels predict them best, at the interval's low end."""
        low = [self.bundle.labels[layer].simulation_low for layer in self.layers if self.tested]
        if not low:
            return []
        order = torch.cat(low).where(self.reliable, -torch.inf).argsort(descending=True)
        return [row for row in order[:count].tolist() if self.reliable[row]]

    def _named(self, layer: int) -> Float[Tensor, " unit"]:
        """Of a unit's first nine pictures, those whose caption has one of its first phrases,
        plus one, so that bundles without captions are compared by the rest."""
        kept, named = self.bundle.examples, []
        for unit, images in enumerate(self._arrays(layer).top_activating_images[:, :9].tolist()):
            words = [text for text, c in self.bundle.phrases(layer, unit, 6) if c > 0]
            captions = [kept.caption(image) for image in images if image in kept]
            named.append(1.0 + sum(any(word in one for word in words) for one in captions))
        return torch.tensor(named)


def _strongest_images(
    images: Int[Tensor, "pair top"], norms: Float[Tensor, "pair top"]
) -> list[tuple[int, float]]:
    """Images of several pairs with their summed norms, the largest sums first; −1 pads."""
    total: dict[int, float] = {}
    for image, norm in zip(images.flatten().tolist(), norms.flatten().tolist(), strict=True):
        if image >= 0:
            total[image] = total.get(image, 0.0) + norm
    return sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))


def _mean_top_norm(norms: Float[Tensor, " top"], images: Int[Tensor, " top"]) -> float:
    kept = norms[images >= 0]
    return float(kept.mean()) if len(kept) else 0.0
