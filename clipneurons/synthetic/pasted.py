"""Packs as what scenes of a spurious cue are drawn from: halves of pictograms and photographs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .photographs import Photographs
from .pictograms import SIZE, Pictograms


def half_of_styles(pack: Pictograms, half: int) -> Pictograms:
    """Every other drawing style of a pack, from the first or the second on."""
    styles = pack.styles[half::2]
    entries = {place: ids for place, ids in pack.entries.items() if place[1] in styles}
    return replace(pack, styles=styles, entries=entries)


@dataclass(frozen=True)
class PastedPhotographs:
    """Every other photograph of each name, cut to a square, as drawings of one style."""

    photographs: Photographs
    half: int

    @cached_property
    def rows(self) -> dict[str, list[int]]:
        """Photographs by name."""
        found = self.photographs.by_name
        return {name: rows[self.half :: 2] for name, rows in found.items() if len(rows) > 1}

    @cached_property
    def _kept(self) -> dict[str, list[np.ndarray]]:
        return {}

    def styles_of(self, concept: str) -> list[str]:
        """The one style; an error for a name that no photograph has."""
        if concept not in self.rows:
            raise KeyError(f"no photographs of {concept!r} among {len(self.rows)} names")
        return ["photograph"]

    def variants(self, concept: str, style: str) -> list[np.ndarray]:
        """All photographs of a name, RGBA."""
        if concept not in self._kept:
            self._kept[concept] = [self._drawn(row) for row in self.rows[concept]]
        return self._kept[concept]

    def lookup(self, concept: str, style: str, variant: int = 0) -> np.ndarray:
        """One photograph as RGBA [64, 64, 4], nowhere transparent."""
        drawn = self.variants(concept, style)
        return drawn[variant % len(drawn)]

    def _drawn(self, row: int) -> np.ndarray:
        return np.asarray(self.photographs.square(row, SIZE).convert("RGBA"))
