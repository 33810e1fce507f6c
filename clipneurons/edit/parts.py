"""An edit in parts that can be moved: units, units that say a word, and the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.unit_words import signed_words
from clipneurons.dictionary.dictionary import Dictionary, Phrase
from clipneurons.edit.edit import Edit, UnitFactor, WordFactor
from clipneurons.edit.preview import patch_attributions, weighted_effects
from clipneurons.lens.contributions import Contributions

_SHOWN, _SLIDERS = 6, 24  # units for and against; units of an edit that are parts of their own


@dataclass(frozen=True)
class Part:
    """A unit, all units that say a word, or the rest of an edit.

    `adds` is what it adds to the margin of the first image at factor 1, `units` how many it has,
    `map` where in the first image a unit's share comes from, in [0, 1]; `label` is a unit's
    reliable label in one line, `reliable` None where labels were not tested.
    """

    rules: tuple[UnitFactor | WordFactor, ...]
    adds: float
    units: int = 1
    map: list[list[float]] | None = None
    label: str = ""
    reliable: bool | None = None

    @property
    def kind(self) -> str:
        """ "unit", "words" or "rest"."""
        if len(self.rules) != 1:
            return "rest"
        return "words" if isinstance(self.rules[0], WordFactor) else "unit"

    @property
    def strength(self) -> float:
        """How much of the part's change the edit makes: f − 1; of the rest, all."""
        return 1.0 if self.kind == "rest" else self.rules[0].factor - 1


class EditParts:
    """An edit in parts, with the strongest units beside it, on images' contributions."""

    def __init__(
        self, dictionary: Dictionary, edit: Edit, contributions: Mapping[int, Contributions],
        grid: tuple[int, int],
    ) -> None:  # fmt: skip
        self.dictionary, self.edit, self.grid = dictionary, edit, grid
        self.bundle, self.contributions = dictionary.bundle, contributions
        self.count = len(dictionary.directions)
        self._weights: list[Float[Tensor, " unit"]] = []

    def of(self, margin: Float[Tensor, " unit"], toward: Float[Tensor, " embed"]) -> list[Part]:
        """The parts, by what they add to `margin`, of the classes whose difference is `toward`."""
        groups = self._groups(margin)
        self._weights = [weights for _, weights in groups]
        return [
            self._part(rules, float(weights @ margin), int((weights != 0).sum()), toward)
            for rules, weights in groups
        ]

    def _part(self, rules: tuple, adds: float, units: int, toward: Float[Tensor, " embed"]) -> Part:
        rule = rules[0]
        if len(rules) != 1 or not isinstance(rule, UnitFactor):
            return Part(rules, adds, units)
        label = self.bundle.label(rule.layer, rule.unit)
        return Part(
            rules, adds, units, self._map(rule, adds, toward),
            ", ".join(signed_words(self.bundle, rule.layer, rule.unit)), label and label.reliable,
        )  # fmt: skip

    def vectors(self, images: int) -> list[Float[Tensor, "part embed"]]:
        """What each part changes at strength 1, by image."""
        sizes = [self.dictionary.units(layer) for layer in self.dictionary.layers]
        means = {layer: arrays.means for layer, arrays in self.bundle.layers.items()}
        by_layer = [
            dict(zip(self.dictionary.layers, weights.split(sizes), strict=True))
            for weights in self._weights
        ]
        return [
            torch.stack([weighted_effects(self.contributions, means, w, image) for w in by_layer])
            if by_layer else torch.zeros(0, self.bundle.config.embed_dim)
            for image in range(images)
        ]  # fmt: skip

    def _groups(self, margin: Float[Tensor, " unit"]) -> list[tuple[tuple, Tensor]]:
        """Rules of each part, and the weight of every unit in it."""
        units, free = list(self.edit.units), torch.ones(self.count, dtype=torch.bool)
        free[[self._row(unit) for unit in units]] = False
        groups: list[tuple[tuple, Tensor]] = []
        for rule in reversed(self.edit.words):  # a unit belongs to the last rule that names it
            scores = self.dictionary.coefficient_scores([Phrase(rule.words)])
            said = (scores > rule.more_than) & free
            groups.insert(0, ((rule,), said.float()))
            free &= ~said
        if rest := tuple(units[_SLIDERS:]):
            weights = torch.zeros(self.count)
            for unit in rest:
                weights[self._row(unit)] = unit.factor - 1
            groups.append((rest, weights))
        order = margin.masked_fill(~free, 0)
        strongest = [
            row
            for signed in (order, -order)
            for row in signed.topk(min(_SHOWN, len(order))).indices.tolist()
        ]
        beside = [
            UnitFactor(*self.dictionary.place(row), 1.0)
            for row in dict.fromkeys(strongest)
            if free[row]
        ]
        for unit in (*units[:_SLIDERS], *beside):
            weights = torch.zeros(self.count)
            weights[self._row(unit)] = 1.0
            groups.append(((unit,), weights))
        return groups

    def _row(self, unit: UnitFactor) -> int:
        return self.dictionary.row(unit.layer, unit.unit)

    def _map(self, unit: UnitFactor, adds: float, toward: Tensor) -> list[list[float]] | None:
        shares = patch_attributions(self.contributions[unit.layer], unit.unit, toward)
        if shares is None:
            return None
        shares = (shares * math.copysign(1, adds)).clamp_min(0)
        shares = (shares / shares.max().clamp_min(1e-12)).unflatten(0, self.grid)
        return [[round(share, 3) for share in row] for row in shares.tolist()]
