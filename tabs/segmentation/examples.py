"""Pictures of the bundle to try, with the words that their captions name."""

from __future__ import annotations

import random
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest

from PIL import Image

from clipneurons.segmentation.methods import BEST
from clipneurons.synthetic.captions import COLOURS
from tabs.segmentation.found import search
from tabs.segmentation.pictures import BLANK, regions
from tabs.server.session import BundleSession
from tabs.server.uploads import open_image

_SHOWN = 6
_READ = 400  # captions that are read
_TRIED = 24  # pictures that the model looks at to choose those it reads best
_LONGEST = 3  # words of a class name


@dataclass(frozen=True)
class Example:
    """A picture and what to look for in it."""

    image: Image.Image
    words: str


def examples(session: BundleSession) -> list[Example]:
    """A few of the bundle's pictures: of several things and of one, in turn.

    Those first in which the model finds all names best, each at a place of its own.
    """

    def make() -> list[int]:
        known, captions = _class_names(session), session.bundle.examples.caption
        named = {i: named_in(captions(i), known) for i in session.sample(_READ)}
        kinds = [
            [i for i, names in named.items() if fits(len(names))]
            for fits in (lambda count: count > 1, lambda count: count == 1)
        ]
        share = _TRIED if not all(kinds) else _TRIED // 2
        best = [
            sorted(
                kind[:: max(1, len(kind) // share)][:share],
                key=lambda i: -_agreement(session, i, named[i]),
            )
            for kind in kinds
        ]
        # Of a picture that says "hammer, glove" the hammer's map must not lie on the glove.
        first = sorted(best[0][:_SHOWN], key=lambda i: -_smallest_region(session, i, named[i]))
        best[0][:_SHOWN] = first
        in_turn = [i for pair in zip_longest(*best) for i in pair if i is not None]
        return (in_turn or list(named))[:_SHOWN]

    return [example(session, number) for number in session.cached("segmentation examples", make)]


def any_example(session: BundleSession) -> Example:
    """One of the bundle's pictures, by chance."""
    numbers = list(session.bundle.examples)
    if not numbers:
        raise ValueError("This bundle has no images.")
    return example(session, random.choice(numbers))


def example(session: BundleSession, number: int) -> Example:
    """A picture of the bundle with the names in its caption, else the text that fits it best."""
    bundle = session.bundle
    names = named_in(bundle.examples.caption(number), _class_names(session))
    if not names:
        embedding = session.encode_thumbnails([number])[0]
        names = [bundle.texts[int((bundle.text_embeddings @ embedding).argmax())]]
    return Example(open_image(BytesIO(bundle.examples[number])), ", ".join(names))


def named_in(caption: str | None, known: set[str]) -> list[str]:
    """Class names in a caption, in its order; of overlapping ones the longest."""
    words = (caption or "").casefold().replace(",", " , ").split()
    found, start = [], 0
    while start < len(words):
        for length in range(_LONGEST, 0, -1):
            name = " ".join(words[start : start + length])
            if name in known and name not in found:
                found.append(name)
                start += length - 1
                break
        start += 1
    return found


def _class_names(session: BundleSession) -> set[str]:
    # "An orange cat" shows no orange.
    return {name.casefold() for name in session.bundle.config.data.class_names} - COLOURS.keys()


def _smallest_region(session: BundleSession, number: int, names: list[str]) -> float:
    """Of all names at once, as the page draws them, the smallest one's share of the picture.

    0 unless each is found in it.
    """
    if not names:
        return 0.0
    image = open_image(BytesIO(session.bundle.examples[number]))
    found = search(session, image, ", ".join(names), BEST, finer=False, refine=False)
    shares = [mask.mean() for mask, _ in regions(found, BLANK)[1]]
    return float(min(shares)) if len(shares) == len(names) else 0.0


def _agreement(session: BundleSession, number: int, names: list[str]) -> float:
    """Of the bundle's texts, the share that agrees less with the picture than the worst name."""
    if not names:
        return 0.0
    embedding = session.encode_thumbnails([number])[0]
    worst = (session.encode_texts(names) @ embedding).min()
    return (session.bundle.text_embeddings @ embedding < worst).float().mean().item()
