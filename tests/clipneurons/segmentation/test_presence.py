"""Whether a name is in an image, against loops in float64."""

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.models.preprocess import whole
from clipneurons.segmentation.presence import PRESENT, Presence, presences
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
    found = presences(clip, image, NAMES, texts)
    views = [whole(clip, image)[0], *cut_windows(clip, image, 2.0)]
    assert len(views) == {40: 10, 96: 1 + 3 * 12}[size[0]]
    words = clip.encode_text(NAMES).double()
    for number, one in enumerate(found):
        word, fits, best = words[number], [], (-1.0, "")
        for view in views:
            embedding = clip.encode_image(view[None])[0].double()
            embedding /= embedding.norm()
            mine = sum(float(a * b) for a, b in zip(embedding, word, strict=True))
            others = [float(text.double() @ embedding) for text in texts]
            said = [float(other @ embedding) for other in words]
            best = max(best, (mine, NAMES[said.index(max(said))]))
            fits.append(sum(other < mine for other in others) / len(others))
            if len(fits) == 1:
                assert one.cosine == pytest.approx(mine, abs=1e-5)
                more = sum(other > mine for other in others) / len(others)
                assert one.above == pytest.approx(more, abs=1e-6)
        assert one.fit == pytest.approx(max(fits), abs=1e-6)
        assert one.rival == (None if best[1] == NAMES[number] else best[1])
    assert any(one.rival for one in found)


def test_the_line_is_at_a_share_of_texts():
    assert Presence(0.1, 0.5, PRESENT).present
    assert not Presence(0.9, 0.0, PRESENT - 1e-6).present
    assert not Presence(0.9, 0.0, 1.0, "dog").present
