import math

import pytest
import torch
from open_clip.model import resize_pos_embed
from PIL import Image

from clipneurons.lens.lens import Lens
from clipneurons.models.larger_images import enlarge
from tests.helpers.models import images, tiny_resnet, tiny_vit


def test_an_enlarged_vit_is_the_one_that_open_clip_makes_of_its_weights():
    clip = tiny_vit()
    larger = enlarge(clip, 1.5)
    assert larger.grid == tuple(3 * side // 2 for side in clip.grid)
    assert larger.image_size == tuple(3 * side // 2 for side in clip.image_size)
    weights = dict(clip.model.state_dict())
    resize_pos_embed(weights, larger.model)
    found = larger.visual.positional_embedding
    torch.testing.assert_close(found, weights["visual.positional_embedding"], rtol=0, atol=1e-5)
    assert larger.encode_image(images(2, larger)).shape == (2, clip.embed_dim)
    assert clip.grid == clip.visual.grid_size != larger.grid, "the first stays as it was"
    assert torch.equal(larger.encode_text(["a cat"]), clip.encode_text(["a cat"]))


def test_an_enlarged_resnet_is_still_the_sum_of_its_pairs():
    clip = enlarge(tiny_resnet(), 2)
    representation, contributions = Lens(clip)(images(2, clip))
    mine = contributions[4]
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    total = mine.dense(torch.arange(mine.directions.units)).sum(1) + scale * Lens(clip).method.bias
    torch.testing.assert_close(total, scale * representation, rtol=1e-4, atol=1e-4)
    assert clip.preprocess(Image.new("RGB", (50, 40))).shape[1:] == clip.image_size


def test_enlarging_by_nothing_is_the_same_tower_and_to_nothing_is_refused():
    clip = tiny_resnet()
    assert enlarge(clip, 1.0) is clip
    with pytest.raises(ValueError, match="leaves no patch"):
        enlarge(clip, 0.1)
    for factor in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"finite number, not {factor}"):
            enlarge(clip, factor)
