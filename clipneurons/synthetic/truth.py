"""Which texts are true of a composed scene: its concepts, colours, backgrounds and places; and of
a photograph: the name of what it shows, and that thing's kinds.

A text is understood as the facts of which any one makes it true: "an animal" is true of a scene
with a cat, "a red cat" only of one with a red cat, "a cat left of a dog" by the objects' places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .captions import BACKGROUNDS, COLOURS, PATTERNS, RELATIONS
from .pictograms import Pictograms
from .scenes import Placed, Scene, relation

Fact = tuple[str, ...]
_PLACES = re.compile(rf"(.+) ({'|'.join(RELATIONS)}) (.+)")


class SceneTruth:
    """Ground truth of scenes for a list of texts.

    `known` bool [text]: texts that speak of what scenes are made of; of the others nothing can be
    said, and they count as never true.
    """

    def __init__(self, pack: Pictograms, texts: Sequence[str]) -> None:
        self._concepts: dict[str, set[str]] = {}  # by what a text may call them
        for name in pack.concepts:
            for word in _said_of(pack, name):
                self._concepts.setdefault(word, set()).add(name)
        self._texts_of: dict[Fact, list[int]] = {}
        self.known = np.zeros(len(texts), bool)
        for number, text in enumerate(texts):
            for fact in self._meant(text.lower()):
                self._texts_of.setdefault(fact, []).append(number)
                self.known[number] = True

    def __call__(self, scenes: Iterable[Scene]) -> np.ndarray:
        """float32 [scene, text]: 1 where the text is true of the scene."""
        rows = []
        for scene in scenes:
            row = np.zeros(len(self.known), np.float32)
            for fact in facts(scene):
                row[self._texts_of.get(fact, [])] = 1
            rows.append(row)
        return np.stack(rows)

    def _meant(self, text: str) -> set[Fact]:
        """Facts of which any one makes the text true; none for a text about something else."""
        if places := _PLACES.fullmatch(text):
            first, how, second = places.groups()
            others = self._concepts.get(_bare(second), ())
            return {
                ("place", one, how, other)
                for one in self._concepts.get(_bare(first), ())
                for other in others
            }
        words = _bare(text)
        found = {("object", name) for name in self._concepts.get(words, ())}
        if words in COLOURS:
            found.add(("colour", words))
        colour, _, rest = words.partition(" ")
        if colour in COLOURS:
            found |= {("object", name, colour) for name in self._concepts.get(rest, ())}
            if rest == "background":
                found.add(("background", colour))
            found |= {
                ("background", colour, kind)
                for kind in BACKGROUNDS
                if rest == f"{PATTERNS[kind]} background"
            }
        return found


class PhotographTruth:
    """What is true of photographs of which only the main thing's name is known.

    `known` bool [text]: texts that are a name, another word for it that the pictograms have, or a
    kind of thing (`kinds`: the kinds by name).
    """

    def __init__(
        self, kinds: Mapping[str, Sequence[str]], pack: Pictograms, texts: Sequence[str]
    ) -> None:
        meant = [_bare(text.lower()) for text in texts]
        drawn = {name: _said_of(pack, name) for name in pack.concepts}
        kinds = {name: [*of, *drawn.get(name, ())] for name, of in kinds.items()}
        self._rows = {
            name: np.array([text == name or text in of for text in meant], np.float32)
            for name, of in kinds.items()
        }
        said = set(kinds) | {kind for of in kinds.values() for kind in of}
        self.known = np.array([text in said for text in meant])

    def __call__(self, names: Iterable[str]) -> np.ndarray:
        """float32 [photograph, text]: 1 where the text is true of what is called so."""
        return np.stack([self._rows[name] for name in names])


def facts(scene: Scene) -> set[Fact]:
    """Everything that a text can be true of."""
    found: set[Fact] = {("colour", colour) for colour in scene.colours}
    found.add(("background", scene.background_colour))
    found.add(("background", scene.background_colour, scene.background))
    for thing in scene.objects:
        found |= {("object", thing.name), ("object", thing.name, thing.colour)}
        for other in scene.objects:
            if other is not thing:
                places = [Placed(o.name, o.style, _centre(o.box)) for o in (thing, other)]
                found.add(("place", thing.name, relation(places), other.name))
    return found


def _centre(box: tuple[int, int, int, int]) -> tuple[float, float]:
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2


def _said_of(pack: Pictograms, name: str) -> list[str]:
    """What a text may call a concept: its name, its other words and its group."""
    return [word.lower() for word in (name, *pack.synonyms[name], pack.groups[name])]


def _bare(text: str) -> str:
    """The words without their article."""
    return re.sub(r"^(an?|the) ", "", text)
