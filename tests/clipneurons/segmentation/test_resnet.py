import pytest
import torch
import torch.nn.functional as F

from clipneurons.lens.neuron_head import NeuronHeadLens
from clipneurons.segmentation.resnet import (
    attention_maps,
    class_weights,
    gradcam_maps,
    last_stage,
    maskclip_maps,
    pair_maps,
    position_tokens,
    resnet_segmenters,
)
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.models import images, tiny_resnet

CLIP = tiny_resnet()
LENS = NeuronHeadLens(CLIP)
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


def test_maps_of_all_pairs_are_maskclips_without_the_bias():
    batch = images(2, CLIP)
    every = LENS.directions[4].units
    stage = last_stage(CLIP, batch)
    values = LENS.clip.visual.attnpool.v_proj(position_tokens(CLIP, stage))
    values = LENS.clip.visual.attnpool.c_proj(values)
    expected = (F.normalize(values, dim=-1) @ TEXTS.T).mT.unflatten(-1, CLIP.grid)
    assert relative(maskclip_maps(LENS, batch, TEXTS), expected) < 1e-5
    bias = (TEXTS @ LENS.bias)[None, :, None] / values.norm(dim=-1)[:, None]
    without = expected - bias.unflatten(-1, CLIP.grid)
    assert relative(pair_maps(LENS, batch, TEXTS, every), without) < 1e-4


def test_attention_maps_add_up_to_the_similarity():
    batch = images(2, CLIP)
    representation, contributions = LENS(batch)
    maps = attention_maps(LENS, batch, TEXTS)
    mine = contributions[4]
    said = LENS.neurons.project(TEXTS)
    first = torch.einsum("bh,bn,nhc->bc", mine.weights[..., 0], mine.activations[:, 0], said)
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    total = maps.sum((2, 3)) + first + scale * (TEXTS @ LENS.bias)
    assert relative(total, scale * representation @ TEXTS.T) < 1e-5


def test_gradcam_is_the_gradient_of_the_similarity():
    batch = images(1, CLIP)
    texts = torch.cat([TEXTS, -TEXTS])
    got = gradcam_maps(LENS, batch, texts)
    stage = last_stage(CLIP, batch).double()
    pool = tiny_resnet().visual.attnpool.double()

    def similarity(values):
        return texts.double() @ F.normalize(pool(values), dim=-1)[0]

    gradient = torch.autograd.functional.jacobian(similarity, stage)[:, 0]
    expected = (gradient.mean((2, 3), keepdim=True) * stage).sum(1).clamp_min(0)
    assert expected.max() > 0
    assert relative(got[0].double(), expected) < 1e-3
    assert not LENS.clip.visual.attnpool.v_proj.weight.requires_grad


@pytest.mark.parametrize("name", ["neuron-head pairs", "MaskCLIP"])
def test_dense_methods_take_images_of_other_sizes(name):
    method = resnet_segmenters(CLIP)[name]
    large = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    assert method(large, TEXTS).shape == (1, 5, 3, 5)
    assert method(images(1, CLIP), TEXTS).shape == (1, 5, *CLIP.grid)


def test_no_pair_is_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        class_weights(LENS, TEXTS, 0)
