"""The neuron dictionary: what each unit of a bundle says, and who says a given thing.

Everything here reads the bundle alone. A model is needed only to embed words that the bundle's
pool of texts does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.bundle.stacked_units import StackedUnits
from clipneurons.dictionary.head_groups import HeadGroup as HeadGroup
from clipneurons.dictionary.head_groups import head_groups
from clipneurons.dictionary.query import Embed as Embed
from clipneurons.dictionary.query import Phrase as Phrase
from clipneurons.dictionary.query import TextIndex
from clipneurons.dictionary.query import parse_query as parse_query

# Random directions behind `Dictionary.chance_line`, and the share of them below it.
_RANDOM, _BELOW = 1000, 0.95
# A unit to open with has so many images.
_PICTURES = 4
# Directions that are compared at once.
_CHUNK = 1024


@dataclass(frozen=True)
class Hit:
    """A unit that a search found; `score` is a cosine or a coefficient."""

    layer: int
    unit: int
    score: float


class Dictionary:
    """A bundle, arranged for looking things up in it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.layers = tuple(sorted(bundle.layers))
        counts = [len(bundle.layers[layer].directions) for layer in self.layers]
        self._starts = {layer: sum(counts[:i]) for i, layer in enumerate(self.layers)}
        stacked = StackedUnits.of({layer: bundle.layers[layer] for layer in self.layers})
        self._layer, self._unit = stacked.layer, stacked.unit
        self.directions = stacked.directions
        self.indices, self.coefficients = stacked.indices, stacked.coefficients
        self.pool = TextIndex(bundle.texts, bundle.text_embeddings)

    # -- where units are

    def units(self, layer: int) -> int:
        """Number of units of a layer."""
        return len(self._arrays(layer).directions)

    def _arrays(self, layer: int) -> LayerArrays:
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
        return int(self._layer[row]), int(self._unit[row])

    def rows(self, layer: int) -> slice:
        """Places of a layer's units among all units."""
        return slice(self._starts[layer], self._starts[layer] + self.units(layer))

    def hits(self, scores: Float[Tensor, " row"], rows: Iterable[int]) -> list[Hit]:
        """Places of units with their scores."""
        return [Hit(*self.place(row), float(scores[row])) for row in rows]

    # -- search

    def in_pool(self, words: str) -> bool:
        """Whether the pool has exactly this text, so that no model is needed to embed it."""
        return words in self.pool

    def embed(
        self, phrases: Sequence[Phrase], embed: Embed | None = None
    ) -> Float[Tensor, " embed"]:
        """Unit vector of a query; see `TextIndex.embed`."""
        return self.pool.embed(phrases, embed)

    def cosines(self, vector: Float[Tensor, " embed"]) -> Float[Tensor, " row"]:
        """Cosine of every unit's direction with a unit vector; 0 for dead units."""
        return self.directions @ vector

    def coefficient_scores(self, phrases: Sequence[Phrase]) -> Float[Tensor, " row"]:
        """Summed coefficients, by unit, of the pool's texts that hold a phrase's words.

        A phrase matches a text that contains it as whole words; unwanted phrases count
        negatively. Raises `ValueError` when no text of the pool matches any phrase.
        """
        return (self.pool.weights(phrases)[self.indices] * self.coefficients).sum(1)

    def label_scores(self, phrases: Sequence[Phrase]) -> Float[Tensor, " row"]:
        """How well each unit's reliable label names a query; 0 for units without one.

        The simulation score, over the place of the text that names the query (1, 2, 3), for texts
        with a positive weight; the negative of it for texts with a negative one.
        """
        if not self.tested:
            return torch.zeros(len(self.directions))
        labels = [self.bundle.labels[layer] for layer in self.layers]
        indices = torch.cat([layer_labels.indices for layer_labels in labels])
        signs = torch.cat([layer_labels.coefficients for layer_labels in labels]).sign()
        places = 1 + torch.arange(indices.shape[1])
        match = (self.pool.named(phrases)[indices] * signs / places).sum(1)
        return match * self.simulation_score * self.reliable

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

    # -- one unit

    def effect_on(
        self, layer: int, unit: int, classes: Float[Tensor, "class embed"]
    ) -> Float[Tensor, " class"]:
        """What the unit adds to ⟨embedding, class⟩ where it is strong.

        The mean norm of its top effects times the cosine of its direction with the class text;
        in units of an image embedding of norm 100.
        """
        arrays = self._arrays(layer)
        along = normalize(classes, dim=1) @ self.directions[self.row(layer, unit)]
        return along * arrays.mean_top_norm(unit)

    def sub_concepts(
        self, layer: int, unit: int, similar: float = 0.5, phrases: int = 4
    ) -> list[HeadGroup]:
        """What the neuron behind a pair says through its heads (2509.19943, section 4).

        Pairs are grouped by average linkage of their directions, joined from a mean cosine of
        ``similar``; the group with the largest share comes first. Dead pairs are left out. Empty
        for a ViT, whose neurons are units themselves.
        """
        self.row(layer, unit)
        heads = self.bundle.config.units_per_neuron
        if heads == 1:
            return []
        return head_groups(self.bundle, layer, unit // heads, similar, phrases)

    # -- all units

    @cached_property
    def tested(self) -> bool:
        """Whether the bundle's labels were tested."""
        return bool(self.bundle.labels)

    @cached_property
    def simulation_score(self) -> Float[Tensor, " row"]:
        """The simulation score of every unit's label; 0 where labels were not tested."""
        if not self.tested:
            return torch.zeros(len(self.directions))
        return torch.cat([self.bundle.labels[layer].simulation_score for layer in self.layers])

    @cached_property
    def reliable(self) -> Bool[Tensor, " row"]:
        """Units with a reliable label; none where labels were not tested."""
        if not self.tested:
            return torch.zeros(len(self.directions), dtype=torch.bool)
        return torch.cat([self.bundle.labels[layer].reliable for layer in self.layers])

    @cached_property
    def interest(self) -> Float[Tensor, " row"]:
        """How well each unit serves as one to open with.

        1 + simulation score (low end of its interval) of a unit with a reliable label, else the
        explained variance of its direction; plus 2 where at least four of its top-activating
        images are kept.
        """
        explained = torch.cat([self._arrays(layer).explained_variance for layer in self.layers])
        pictured = torch.cat(
            [
                torch.isin(self._arrays(layer).top_activating_images, self.bundle.examples.ids)
                .sum(1)
                .ge(_PICTURES)
                for layer in self.layers
            ]
        )
        return torch.where(self.reliable, 1 + self._simulation_low, explained) + 2 * pictured

    def interesting(self) -> tuple[int, int]:
        """The unit of the largest `interest`: the one to open with."""
        return self.place(int(self.interest.argmax()))

    def most_reliable(self, count: int) -> list[int]:
        """Rows of the units whose reliable labels predict them best, at the interval's low end."""
        order = self._simulation_low.where(self.reliable, -torch.inf).argsort(descending=True)
        return [row for row in order[:count].tolist() if self.reliable[row]]

    @cached_property
    def _simulation_low(self) -> Float[Tensor, " row"]:
        if not self.tested:
            return torch.zeros(len(self.directions))
        return torch.cat([self.bundle.labels[layer].simulation_low for layer in self.layers])
