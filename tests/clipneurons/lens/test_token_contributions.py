"""Patch effects add up to the embedding; the fit and the guided upsampling against loops."""

import pytest
import torch

from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.make import make_lens
from clipneurons.lens.token_contributions import PatchAttribution, unit_token_effects
from clipneurons.segmentation.guided_filter import guided_filter, guided_upsample
from clipneurons.segmentation.patch_similarity import fit_maps, follow_edges
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.naive import NaiveViT


@pytest.fixture(scope="module")
def clip():
    return tiny_vit(image_size=16, layers=3, width=16, embed_dim=8)


def test_patch_effects_add_up_to_the_embedding(clip):
    batch = images(3, clip)
    representation, first = FirstOrderLens(clip)(batch)
    effects = PatchAttribution(clip)(batch)
    # Biases belong to no token, those of the values are carried by the attention.
    torch.testing.assert_close(effects.sum(1), representation - first.bias, rtol=1e-4, atol=1e-4)


def test_patch_effects_against_loops(clip):
    image = images(1, clip)[0]
    naive, first = NaiveViT(clip, image), PatchAttribution(clip)(image[None])[0]
    w, tokens = naive.weights, len(first)
    rank = 16 // clip.heads

    def read(x):
        return ((x - x.mean()) / naive.post_sigma * w["ln_post.weight"]) @ w["proj"]

    expected = [torch.zeros(8, dtype=torch.float64) for _ in range(tokens)]
    expected[0] += read(naive.start)
    origin = [[float(i == j) for j in range(tokens)] for i in range(tokens)]
    for index, block in enumerate(naive.blocks):
        weight = naive.block(index, "attn.in_proj_weight")
        bias = naive.block(index, "attn.in_proj_bias")
        out = naive.block(index, "attn.out_proj.weight")
        mixing = [[0.0] * tokens for _ in range(tokens)]
        for head in range(clip.heads):
            part = slice(head * rank, (head + 1) * rank)
            q, k, v = (
                [weight[o * 16 :][part] @ x + bias[o * 16 :][part] for x in block["normed"]]
                for o in range(3)
            )
            for i in range(tokens):
                row = torch.softmax(torch.stack([q[i] @ y for y in k]) / rank**0.5, 0)
                for j in range(tokens):
                    mixing[i][j] += float(row[j]) / clip.heads
                if i == 0:
                    for at in range(tokens):
                        effect = read(out[:, part] @ v[at]) * row[at]
                        for j in range(tokens):
                            expected[j] += origin[at][j] * effect
        origin = [
            [
                (origin[i][j] + sum(mixing[i][m] * origin[m][j] for m in range(tokens))) / 2
                for j in range(tokens)
            ]
            for i in range(tokens)
        ]
        for j in range(tokens):
            expected[j] += origin[0][j] * read(block["class_mlp"])
    torch.testing.assert_close(first.double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_unit_token_effects_add_up():
    clip = tiny_resnet()
    batch = images(2, clip)
    lens = make_lens(clip)
    representation, contributions = lens(batch)
    effects = unit_token_effects(contributions[4])
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(
        effects.sum(1), scale * (representation - lens.bias), rtol=1e-4, atol=1e-4
    )
    vit = tiny_vit()
    mine = make_lens(vit, (1,))(images(2, vit))[1][1]
    torch.testing.assert_close(unit_token_effects(mine).sum(1), mine.sum(), rtol=1e-4, atol=1e-4)


def test_fit_by_hand():
    effects = torch.tensor([[[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]])
    maps = fit_maps(effects, torch.tensor([[2.0, 0.0], [0.0, -1.0]]), sharpness=2.0, power=1.0)
    expected = [
        [5 * torch.tensor(1.2).exp(), 2.0, 0.0],
        [5 * torch.tensor(-1.6).exp(), 2 * torch.tensor(-2.0).exp(), 0.0],
    ]
    torch.testing.assert_close(maps, torch.tensor([expected]))
    for power in (0.0, 0.5):
        mine = fit_maps(effects, torch.tensor([[2.0, 0.0]]), sharpness=2.0, power=power)
        sizes = [5**power, 2**power, 0.0**power]  # a patch that says nothing fits nothing
        logits = torch.tensor([1.2, 0.0, 0.0])
        torch.testing.assert_close(mine[0, 0], torch.tensor(sizes) * logits.exp())


def test_guided_upsampling_is_the_filter_when_nothing_is_left_out():
    generator = torch.Generator().manual_seed(0)
    guide = torch.rand(2, 3, 12, 16, generator=generator)
    maps = torch.rand(2, 5, 3, 4, generator=generator)
    stretched = torch.nn.functional.interpolate(maps, (12, 16), mode="bilinear")
    torch.testing.assert_close(
        guided_upsample(guide, maps, cells=4, epsilon=0.01),
        guided_filter(guide, stretched, radius=4, epsilon=0.01),
    )
    large = torch.nn.functional.interpolate(guide, (24, 32), mode="nearest")
    coarse = guided_upsample(large, maps, cells=4, epsilon=0.01)
    assert coarse.shape == (2, 5, 24, 32)


def test_edges_come_from_the_image_before_normalisation(clip):
    batch = images(1, clip)
    maps = torch.rand(1, 2, *clip.grid)
    mean = torch.tensor(clip.image_mean)[:, None, None]
    std = torch.tensor(clip.image_std)[:, None, None]
    plain = torch.nn.functional.interpolate(maps, clip.image_size, mode="bilinear")
    guided = guided_upsample(batch * std + mean, maps, cells=2).clamp_min(0)
    torch.testing.assert_close(follow_edges(clip, batch, maps), guided * plain.sqrt())
    lowered = maps - maps.amin((2, 3), keepdim=True)
    torch.testing.assert_close(
        follow_edges(clip, batch, lowered - 3), follow_edges(clip, batch, lowered),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
