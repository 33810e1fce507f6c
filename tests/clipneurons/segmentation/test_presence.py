"""Whether a name is in an image, against loops in float64."""

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.models.preprocess import whole
from clipneurons.segmentation.presence import Line, line_of, presences
from clipneurons.segmentation.sliding_window import cut_windows
from tests.helpers.models import tiny_vit

NAMES = ["cat", "a red car", "sky"]


@pytest.mark.parametrize("size", [(40, 40), (96, 30)])
def test_fit_is_a_loop_over_windows_and_texts(size):
    clip = tiny_vit(embed_dim=24)
    data = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(data)
    texts = torch.nn.functional.normalize(
        torch.randn(50, 24, generator=torch.Generator().manual_seed(0)), dim=1
    )
    found = presences(clip, image, NAMES, texts, Line(1.0))
    views = [whole(clip, image)[0], *cut_windows(clip, image, 2.0)]
    assert len(views) == {40: 10, 96: 1 + 3 * 12}[size[0]]
    words = clip.encode_text(NAMES).double()
    for number, one in enumerate(found):
        word, scores, best = words[number], [], (-1.0, "")
        for view in views:
            embedding = clip.encode_image(view[None])[0].double()
            embedding /= embedding.norm()
            mine = sum(float(a * b) for a, b in zip(embedding, word, strict=True))
            others = np.array([float(text.double() @ embedding) for text in texts])
            said = [float(other @ embedding) for other in words]
            best = max(best, (mine, NAMES[said.index(max(said))]))
            scores.append((mine - others.mean()) / others.std(ddof=1))
            if len(scores) == 1:
                assert one.cosine == pytest.approx(mine, abs=1e-5)
        assert one.score == pytest.approx(max(scores), abs=1e-4)
        assert one.rival == (None if best[1] == NAMES[number] else best[1])
        assert one.found == (max(scores) >= 1.0 and one.rival is None)
    assert any(one.rival for one in found)


def test_the_line_is_the_bundles():
    entry = {"line": 3.2, "false_finds": 0.05, "recall": 0.6}
    assert line_of({"presence": entry}) == Line(3.2, 0.05, 0.6)
    assert line_of({}) == Line()
    for broken in (
        [], {}, entry | {"line": "3"}, entry | {"line": float("nan")}, entry | {"recall": 1.5},
        entry | {"line": True}, entry | {"false_finds": None},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected numbers line, false_finds, recall"):
            line_of({"presence": broken})
