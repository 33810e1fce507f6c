import pytest
import torch
import torch.nn.functional as F

from clipneurons.lens.neuron_head import NeuronHeadEffects
from clipneurons.segmentation.neuron_head_pairs import class_weights, last_stage, pair_maps
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.models import images, tiny_resnet

CLIP = tiny_resnet()
LENS = NeuronHeadEffects(CLIP)
TEXTS = F.normalize(
    torch.randn(5, CLIP.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1
)


def test_weights_are_sums_over_the_chosen_pairs_one_by_one():
    got = class_weights(LENS, TEXTS, 30)
    directions = LENS.directions[4].dense()[:, 0].double()
    for index, text in enumerate(TEXTS.double()):
        cosines = F.cosine_similarity(directions, text[None])
        chosen = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:30]
        expected = torch.zeros(CLIP.neurons).double()
        whole = torch.zeros(CLIP.neurons).double()
        for unit, direction in enumerate(directions):
            whole[unit // CLIP.heads] += direction @ text
            if unit in chosen:
                expected[unit // CLIP.heads] += direction @ text
        expected *= whole.norm() / expected.norm()
        assert relative(got[index].double(), expected) < 1e-5


def test_all_pairs_give_the_value_of_each_position():
    batch = images(2, CLIP)
    every = LENS.directions[4].units
    pool = LENS.clip.visual.attnpool
    stage = last_stage(CLIP, batch)
    tokens = stage.flatten(2).mT + pool.positional_embedding.float()[1:]
    values = pool.c_proj(pool.v_proj(tokens))
    expected = ((values - LENS.bias) @ TEXTS.T / values.norm(dim=-1, keepdim=True)).mT
    maps = pair_maps(LENS, batch, TEXTS, every)
    assert relative(maps, expected.unflatten(-1, CLIP.grid)) < 1e-4


def test_images_may_have_other_sizes():
    large = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    assert pair_maps(LENS, large, TEXTS).shape == (1, 5, 3, 5)


def test_no_pair_is_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        class_weights(LENS, TEXTS, 0)
