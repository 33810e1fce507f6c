"""An example of a shift: one drawing stuck on the corner of some of the new pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from clipneurons.synthetic.pictograms import load_pictograms

IMAGES = 80  # a side
SHARE = 0.4  # of the new pictures that carry the drawing
_SIDE, _MARGIN = 0.36, 2  # of the drawing, as a share of the short side; pixels


def planted_mark(
    pictures: Sequence[Image.Image], texts: Sequence[str]
) -> tuple[list[Image.Image], list[Image.Image], str]:
    """Every second picture as reference and the others as new, some of them marked, and the word.

    The drawing is of something that the texts name, if there is one.

    Raises `ValueError` for fewer than four pictures, and `FileNotFoundError` without pictograms.
    """
    if len(pictures) < 4:
        raise ValueError("This bundle has too few pictures for an example: send your own.")
    pack, known = load_pictograms(), set(texts)
    words = [c for c in pack.concepts if c in known] or list(pack.concepts)
    word = words[len(words) // 2]
    mark = Image.fromarray(np.array(pack.lookup(word, pack.styles_of(word)[0])))
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
