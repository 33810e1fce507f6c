"""Effects of tokens add up to the embedding, and are those of loops."""

import pytest
import torch

from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import PatchAttribution, unit_token_effects
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
    lens = Lens(clip)
    representation, contributions = lens(batch)
    effects = unit_token_effects(contributions[4])
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(
        effects.sum(1), scale * (representation - lens.method.bias), rtol=1e-4, atol=1e-4
    )
    vit = tiny_vit()
    mine = Lens(vit, (1,))(images(2, vit))[1][1]
    torch.testing.assert_close(unit_token_effects(mine).sum(1), mine.sum(), rtol=1e-4, atol=1e-4)
