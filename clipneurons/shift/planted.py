"""An example of a shift: one drawing stuck on the corner of some of the new pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from clipneurons.synthetic.pictograms import load_pictograms

IMAGES = 80  # a side
SHARE = 0.4  # of the new pictures that carry the drawing
# Of all drawings in order, those at these eighths, the middle one first.
_PARTS, _ORDER = 8, (4, 2, 6, 1)
_SIDE, _MARGIN = 0.36, 2  # of the drawing, as a share of the short side; pixels


def marks(texts: Sequence[str]) -> list[str]:
    """A few drawings that can be planted, of things that the texts name if there are any.

    Raises `FileNotFoundError` without pictograms.
    """
    concepts, known = load_pictograms().concepts, set(texts)
    words = [c for c in concepts if c in known] or list(concepts)
    return list(dict.fromkeys(words[len(words) * part // _PARTS] for part in _ORDER))


def planted_mark(
    pictures: Sequence[Image.Image], texts: Sequence[str], word: str | None = None
) -> tuple[list[Image.Image], list[Image.Image], str]:
    """Every second picture as reference and the others as new, some of them marked, and the word.

    The drawing is of `word`, or the first of `marks`.

    Raises `ValueError` for fewer than four pictures, `KeyError` for a word that there is no drawing
    of, and `FileNotFoundError` without pictograms.
    """
    if len(pictures) < 4:
        raise ValueError("This bundle has too few pictures for an example: send your own.")
    pack = load_pictograms()
    word = marks(texts)[0] if word is None else word
    styles = pack.styles_of(word)
    if not styles:
        raise KeyError(f"no drawing of {word!r}")
    mark = Image.fromarray(np.array(pack.lookup(word, styles[0])))
    new = list(pictures[1::2])
    count = round(SHARE * len(new))
    return list(pictures[::2]), [marked(one, mark) for one in new[:count]] + new[count:], word


def marked(picture: Image.Image, mark: Image.Image) -> Image.Image:
    """The picture with a drawing in its lower right corner."""
    side = round(_SIDE * min(picture.size))
    drawn = mark.resize((side, side), Image.Resampling.LANCZOS)
    picture = picture.copy()
    picture.paste(drawn, (picture.width - side - _MARGIN, picture.height - side - _MARGIN), drawn)
    return picture
