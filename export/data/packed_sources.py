"""The photographs that ship, and several data sets read as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from clipneurons.synthetic.captions import article
from clipneurons.synthetic.photographs import Photographs, load_names, load_photographs
from clipneurons.synthetic.pictograms import load_pictograms
from clipneurons.synthetic.truth import PhotographTruth
from export.common.errors import SourceError
from export.data.dataset import Content, Raw, Source, Truth


@dataclass
class PhotographsSource:
    """Photographs of a pack with the names of what they show."""

    pack: Photographs
    name: str = "photographs"
    notes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.class_names = tuple(sorted({entry["name"] for entry in self.pack.classes}))

    def __len__(self) -> int:
        return len(self.pack)

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for i in indices:
            yield Raw(i, f"photograph {i}", partial(self._load, i))

    def _load(self, i: int) -> Content:
        name = self.pack.name(i)
        label = self.class_names.index(name)
        return Content(self.pack.data(i), label, f"a photo of {article(name)}")

    def truth(self, texts: Sequence[str]) -> Truth:
        truth = PhotographTruth(load_names(), load_pictograms(), texts)
        return Truth(truth.known, lambda indices: truth(self.pack.name(i) for i in indices))


def shipped_photographs(heldout: bool = False) -> PhotographsSource:
    """The bundled photographs without, or only, each name's third that is kept for figures.

    Raises `SourceError` where they are missing or damaged.
    """
    try:
        pack = load_photographs()
    except (OSError, ValueError) as error:
        raise SourceError(str(error)) from None
    thirds = {row for rows in pack.by_name.values() for row in rows[2::3]}
    rows = [row for row in range(len(pack)) if (row in thirds) == heldout]
    name = "held-out photographs" if heldout else "photographs"
    return PhotographsSource(pack.subset(np.array(rows)), name)


class Joined:
    """Several sources one after the other; a class that two of them name is one class."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = list(sources)
        self.name = " and ".join(source.name for source in self.sources)
        self.class_names = tuple(sorted({n for s in self.sources for n in s.class_names}))
        self.notes = [note for source in self.sources for note in source.notes]
        self._ends = list(accumulate(len(source) for source in self.sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for i in indices:
            which, number = self._place(i)
            source: Any = self.sources[which]
            (raw,) = source.raws([number])
            yield Raw(i, raw.name, partial(self._load, source, raw))

    def truth(self, texts: Sequence[str]) -> Truth:
        truths = [source.truth(texts) for source in self.sources]

        def rows(indices: Sequence[int]) -> np.ndarray:
            places = map(self._place, indices)
            return np.concatenate([truths[which].rows([number]) for which, number in places])

        return Truth(np.any([truth.known for truth in truths], axis=0), rows)

    def _place(self, i: int) -> tuple[int, int]:
        """Which source an entry is of, and its number there."""
        which = bisect_right(self._ends, i)
        return which, i - self._ends[which] + len(self.sources[which])

    def _load(self, source: Source, raw: Raw) -> Content:
        content = raw.load()
        if content.label is None:
            return content
        return replace(content, label=self.class_names.index(source.class_names[content.label]))
