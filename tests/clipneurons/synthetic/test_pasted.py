import io

import numpy as np
import pytest
from PIL import Image

from clipneurons.synthetic.pasted import PastedPhotographs, half_of_styles
from clipneurons.synthetic.photographs import Photographs
from clipneurons.synthetic.pictograms import load_pictograms


def photographs(names, width=80, height=60):
    """Photographs whose red says their row."""
    files = []
    for row in range(len(names)):
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), (20 * row, 0, 0)).save(buffer, "WEBP", lossless=True)
        files.append(buffer.getvalue())
    known = sorted(set(names))
    return Photographs(
        classes=tuple({"source": "test", "key": name, "name": name} for name in known),
        label=np.array([known.index(name) for name in names], np.int32),
        split=np.ones(len(names), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        webp=np.frombuffer(b"".join(files), np.uint8),
    )


def test_halves_share_no_photograph():
    pack = photographs(["ant", "bee", "ant", "ant", "bee", "cat"])
    one, other = PastedPhotographs(pack, 0), PastedPhotographs(pack, 1)
    assert one.rows == {"ant": [0, 3], "bee": [1]}
    assert other.rows == {"ant": [2], "bee": [4]}
    drawn = one.lookup("ant", "photograph", 3)
    assert drawn.shape == (64, 64, 4)
    assert (drawn[..., 3] == 255).all()
    assert (drawn[..., 0] == 60).all()
    assert len(one.variants("ant", "photograph")) == 2
    assert one.styles_of("bee") == ["photograph"]
    with pytest.raises(KeyError, match="no photographs of 'cat' among 2"):
        one.styles_of("cat")


def test_halves_of_a_pack_share_no_style():
    pack = load_pictograms()
    one, other = half_of_styles(pack, 0), half_of_styles(pack, 1)
    assert {*one.styles, *other.styles} == set(pack.styles)
    assert not {*one.styles} & {*other.styles}
    assert {style for _, style in one.entries} <= set(one.styles)
    assert one.styles_of("dog") == [s for s in pack.styles_of("dog") if s in one.styles]
