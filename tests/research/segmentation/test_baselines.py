"""Baselines: each is held to the property that defines it, gradients to finite differences."""

import math
from dataclasses import replace

import pytest
import torch

from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.lens import Lens
from clipneurons.lens.second_order import class_attention
from clipneurons.models.hooks import record_activations
from clipneurons.models.trace import run_with_cache
from clipneurons.segmentation.neuron_head_pairs import last_stage
from research.segmentation.baselines.baseline import read_out
from research.segmentation.baselines.chefer import chefer
from research.segmentation.baselines.clearclip import clearclip
from research.segmentation.baselines.gradcam import gradcam, gradcam_resnet
from research.segmentation.baselines.legrad import legrad
from research.segmentation.baselines.lrp import (
    linear_rule,
    lrp,
    product_rule,
    propagate,
    sum_rule,
)
from research.segmentation.baselines.maskclip import maskclip, maskclip_resnet
from research.segmentation.baselines.naclip import naclip
from research.segmentation.baselines.partial_lrp import partial_lrp
from research.segmentation.baselines.pooling_attention import pooling_attention
from research.segmentation.baselines.raw_attention import raw_attention
from research.segmentation.baselines.registry import BASELINES
from research.segmentation.baselines.resclip import resclip
from research.segmentation.baselines.rollout import rollout, rollout_matrix
from research.segmentation.baselines.sclip import sclip
from research.segmentation.baselines.textspan import textspan
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.naive import NaiveViT, gelu, layer_norm

SMALL = dict(image_size=16, layers=3, width=16, embed_dim=8)


@pytest.fixture(scope="module")
def clip():
    return tiny_vit(**SMALL)


@pytest.fixture(scope="module")
def double():
    clip = tiny_vit(**SMALL)
    return replace(clip, model=clip.model.double(), dtype=torch.float64)


def texts(clip, count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(
        torch.randn(count, clip.embed_dim, generator=generator), dim=-1
    )


class Bumped(NaiveViT):
    """A float64 forward pass with something added to the attention maps ``{block: [h, t, t]}``.

    Gives the class token of each block, read out as if the block were the last.
    """

    def __init__(self, clip, image, bumps):
        self.bumps, self.class_tokens = bumps, []
        super().__init__(clip, image)

    def _block(self, index, tokens):
        x, block = torch.stack(tokens), self.visual.transformer.resblocks[index]
        rank = x.shape[1] // self.heads

        def norm(x, name):
            w, b = self.block(index, f"{name}.weight"), self.block(index, f"{name}.bias")
            return torch.stack([layer_norm(t, w, b, block.ln_1.eps)[0] for t in x])

        def linear(x, name):
            return x @ self.block(index, f"{name}weight").T + self.block(index, f"{name}bias")

        q, k, v = linear(norm(x, "ln_1"), "attn.in_proj_").split(x.shape[1], 1)
        mixed = []
        for head in range(self.heads):
            part = slice(head * rank, (head + 1) * rank)
            attention = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(rank), 1)
            mixed.append((attention + self.bumps.get(index, 0 * x[0, 0] + torch.zeros(
                self.heads, len(x), len(x)))[head]) @ v[:, part])  # fmt: skip
        x = x + linear(torch.cat(mixed, 1), "attn.out_proj.")
        hidden = linear(norm(x, "ln_2"), "mlp.c_fc.")
        x = x + linear(gelu(hidden, self.clip.activation == "quick_gelu"), "mlp.c_proj.")
        self.class_tokens.append(x[0])
        return list(x)

    def score(self, text, after=None):
        w = self.weights
        token = self.class_tokens[-1 if after is None else after]
        out, _, _ = layer_norm(
            token, w["ln_post.weight"], w["ln_post.bias"], self.visual.ln_post.eps
        )
        out = out @ w["proj"]
        return float(out @ text.double() / out.norm())


def gradient(clip, image, text, block, after=None, step=1e-5):
    """d score / d attention of one block, by central differences."""
    tokens = math.prod(clip.grid) + 1
    result = torch.zeros(clip.heads, tokens, tokens, dtype=torch.float64)
    for index in range(result.numel()):
        bump = torch.zeros_like(result).flatten()
        bump[index] = step
        bump = bump.reshape(result.shape)
        up, down = (
            Bumped(clip, image, {block: sign * bump}).score(text, after) for sign in (1, -1)
        )
        result.view(-1)[index] = (up - down) / (2 * step)
    return result


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name, baseline in BASELINES.items()
        for kind in ("vit", "resnet")
        if getattr(baseline, kind)
    ],
)
def test_the_one_interface(name, kind, clip):
    clip = clip if kind == "vit" else tiny_resnet()
    method, batch, some = BASELINES[name].maps(clip), images(2, clip), texts(clip)
    maps = method(batch, some)
    assert maps.shape == (2, 3, *clip.grid)
    assert maps.isfinite().all()
    assert not maps.requires_grad
    assert maps.std() > 0
    torch.testing.assert_close(method(batch[1:], some)[0], maps[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(method(batch, some[1:2])[:, 0], maps[:, 1])
    for setting, values in BASELINES[name].settings.items():
        assert (method(batch, some, **{setting: values[0]}) != maps).any(), setting


def test_a_method_for_another_kind_of_model_says_so(clip):
    with pytest.raises(ValueError, match="LRP is not a method for a resnet"):
        BASELINES["LRP"].maps(tiny_resnet())
    with pytest.raises(ValueError, match="attention is not a method for a vit"):
        BASELINES["attention"].maps(clip)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_the_open_forward_pass_is_the_closed_one(quick_gelu):
    clip = tiny_vit(quick_gelu=quick_gelu)
    batch = images(2, clip)
    run = run_with_cache(clip, batch)
    torch.testing.assert_close(run.embedding, clip.encode_image(batch), rtol=1e-4, atol=1e-5)
    for block, traced in zip(clip.anatomy.blocks, run.blocks, strict=True):
        mine = traced.attention[:, :, 0]
        torch.testing.assert_close(class_attention(block.attention, traced.normed), mine)


def test_raw_attention_is_the_last_blocks(clip):
    batch = images(2, clip)
    naive = NaiveViT(clip, batch[1])
    expected = torch.stack(naive.blocks[-1]["attention"]).mean(0)[1:].reshape(clip.grid)
    maps = raw_attention(clip, batch, texts(clip))
    torch.testing.assert_close(maps[1, 0].double(), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(maps[:, 0], maps[:, 2])


def test_rollout_keeps_rows_that_sum_to_one(clip):
    batch = images(2, clip)
    attention = [block.attention.mean(1) for block in run_with_cache(clip, batch).blocks]
    joint = rollout_matrix(attention)
    torch.testing.assert_close(joint.sum(-1), torch.ones(2, joint.shape[1]))
    product = torch.eye(joint.shape[1])
    for matrix in attention:
        mixed = 0.5 * matrix[0] + 0.5 * torch.eye(len(product))
        product = (mixed / mixed.sum(1, keepdim=True)) @ product
    torch.testing.assert_close(joint[0], product)
    maps = rollout(clip, batch, texts(clip))
    torch.testing.assert_close(maps[0, 0].flatten(), product[0, 1:])
    # With attention to itself alone, nothing reaches the class token.
    still = rollout_matrix([torch.eye(4)[None]] * 3)[0]
    torch.testing.assert_close(still, torch.eye(4))


def test_lrp_rules_conserve():
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, weight, relevance = noise(2, 5, 7), noise(4, 7), noise(2, 5, 4)
    back = linear_rule(inputs, weight, relevance)
    torch.testing.assert_close(back.sum(-1), relevance.sum(-1))
    # The rule, one connection at a time: only positive contributions count.
    z = (inputs[0, 0] * weight).clamp_min(0)
    expected = (z / z.sum(1, keepdim=True) * relevance[0, 0][:, None]).sum(0)
    torch.testing.assert_close(back[0, 0], expected)
    left, right, relevance = noise(2, 3, 5), noise(2, 5, 4), noise(2, 3, 4)
    for part in product_rule(left, right, relevance):
        torch.testing.assert_close(part.sum((1, 2)), relevance.sum((1, 2)) / 2)
    left, right, relevance = noise(2, 3, 4), noise(2, 3, 4), noise(2, 3, 4)
    first, second = sum_rule(left, right, relevance)
    torch.testing.assert_close((first + second).sum((1, 2)), relevance.sum((1, 2)))
    assert (first.sum((1, 2)) * relevance.sum((1, 2)) >= 0).all()


def test_lrp_conserves_through_the_whole_tower(double):
    batch = images(2, double)
    run, text = run_with_cache(double, batch), texts(double)[0]
    for blocks in (1, 2, None):
        relevance = propagate(double, run, text, blocks)
        assert len(relevance.attention) == (blocks or double.layers)
        sums = relevance.start.sum((1, 2))
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-6, atol=1e-6)
    maps = lrp(double, batch, text[None])
    kept = relevance.start[:, 1:].sum((1, 2)).float()
    torch.testing.assert_close(maps.sum((1, 2, 3)), kept)


def test_partial_lrp_reads_only_the_last_block(clip):
    batch = images(2, clip)
    maps = partial_lrp(clip, batch, texts(clip))
    whole = propagate(clip, run_with_cache(clip, batch), texts(clip)[1]).attention[-1]
    expected = whole[:, :, 0, 1:].clamp_min(0).mean(1)
    torch.testing.assert_close(maps[:, 1].flatten(1), expected)


def test_gradcam_by_finite_differences(clip):
    batch, some = images(1, clip), texts(clip)
    last = clip.layers - 1
    run = run_with_cache(clip, batch).blocks[-1].attention[0].double()
    slope = gradient(clip, batch[0], some[1], last)[:, 0, 1:].mean(1)
    expected = (run[:, 0, 1:] * slope[:, None]).mean(0).clamp_min(0)
    found = gradcam(clip, batch, some)[0, 1].flatten().double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert torch.cat([gradcam(clip, images(3, clip), some).flatten()]).max() > 0


def test_legrad_by_finite_differences(clip):
    batch, some = images(1, clip), texts(clip)
    expected = 0.0
    for block in range(clip.layers):
        slope = gradient(clip, batch[0], some[2], block, after=block)
        expected = expected + slope.clamp_min(0).mean((0, 1))[1:] / clip.layers
    found = legrad(clip, batch, some)[0, 2].flatten().double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_chefer_by_finite_differences(clip):
    batch, some = images(1, clip), texts(clip)
    relevance = propagate(clip, run_with_cache(clip, batch), some[0]).attention
    product = torch.eye(relevance[0].shape[-1], dtype=torch.float64)
    for block in range(clip.layers):
        slope = gradient(clip, batch[0], some[0], block)
        step = (slope * relevance[block][0]).clamp_min(0).mean(0)
        product = (torch.eye(len(step)) + step) @ product
    found = chefer(clip, batch, some)[0, 0].flatten().double()
    torch.testing.assert_close(found, product[0, 1:], rtol=1e-3, atol=1e-7)


def test_textspan_adds_up_to_the_heads(clip):
    batch, some = images(2, clip), texts(clip)
    lens = FirstOrderLens(clip)
    _, effects = lens(batch)
    with record_activations(clip.visual, lens.recorded) as tensors:
        clip.encode_image(batch)
    for last, layers in ((1.0, [0, 1, 2]), (1 / 3, [2])):
        shares = lens.token_scores(tensors, some, layers)
        heads = effects.heads[:, layers]
        torch.testing.assert_close(shares.sum(1), heads.sum((1, 2)) @ some.T, rtol=1e-4, atol=1e-5)
        maps = textspan(clip, batch, some, last)
        torch.testing.assert_close(maps.flatten(2), shares[:, 1:].mT.clamp_min(0))


def last_block(clip, run, attention, keep_residual):
    """The last block of one image, with each token's attention given by ``attention(q, k)``."""
    block, traced = clip.visual.transformer.resblocks[-1], run.blocks[-1]
    out = []
    for head in range(clip.heads):
        q, k, v = (t[0, head] for t in (traced.queries, traced.keys, traced.values))
        rows = []
        for i in range(len(q)):
            weights = attention(q, k, i)
            rows.append(sum(w * value for w, value in zip(weights, v, strict=True)))
        out.append(torch.stack(rows))
    x = block.attn.out_proj(torch.cat(out, 1))
    if keep_residual:
        x = x + traced.inputs[0]
        x = x + block.mlp(block.ln_2(x))
    features = read_out(clip, x[1:])
    return features / features.norm(dim=1, keepdim=True)


def similar(x, i):
    return torch.softmax(torch.stack([x[i] @ y / len(x[i]) ** 0.5 for y in x]), 0)


def near(k, i):
    """NACLIP's row of token ``i``, on the 2 x 2 patches of the small model."""
    side, logits = math.isqrt(len(k) - 1), []
    for j in range(len(k)):
        drawn = 0.0
        if i and j:
            one, other = divmod(i - 1, side), divmod(j - 1, side)
            square = sum(((a - b) / side) ** 2 for a, b in zip(one, other, strict=True))
            drawn = math.exp(-square / (2 * (5 / 14) ** 2))
        logits.append(k[i] @ k[j] / len(k[i]) ** 0.5 + drawn)
    return torch.softmax(torch.stack(logits), 0)


@pytest.mark.parametrize(
    ("method", "attention", "keep_residual"),
    [
        (maskclip, lambda q, k, i: torch.eye(len(q))[i], True),
        (sclip, lambda q, k, i: similar(q, i) + similar(k, i), True),
        (clearclip, lambda q, k, i: similar(q, i), False),
        (naclip, lambda q, k, i: near(k, i), False),
    ],
)
def test_dense_methods_against_loops(method, attention, keep_residual, clip):
    batch, some = images(1, clip), texts(clip)
    features = last_block(clip, run_with_cache(clip, batch), attention, keep_residual)
    expected = (features @ some.T).T.reshape(len(some), *clip.grid)
    torch.testing.assert_close(method(clip, batch, some)[0], expected, rtol=1e-4, atol=1e-5)


def test_resclip_mixes_in_the_attention_of_middle_blocks():
    clip = tiny_vit(**{**SMALL, "layers": 6})
    batch, some = images(1, clip), texts(clip)
    run = run_with_cache(clip, batch)
    middle = sum(run.blocks[b].attention[0] for b in (2, 3)) / 2  # of 6, as 6 to 9 of 12
    rows = iter(middle.flatten(0, 1))  # by head, then query: the order of the loop

    def attention(q, k, i):
        return 2 * (0.7 * near(k, i) + 0.3 * next(rows))

    features = last_block(clip, run, attention, keep_residual=False)
    expected = (features @ some.T).T.reshape(len(some), *clip.grid)
    torch.testing.assert_close(resclip(clip, batch, some)[0], expected, rtol=1e-4, atol=1e-5)


def test_maskclip_of_a_resnet_keeps_the_value_of_each_position():
    clip = tiny_resnet()
    batch, some, pool = images(2, clip), texts(clip), clip.visual.attnpool
    tokens = last_stage(clip, batch).flatten(2).mT + pool.positional_embedding[1:]
    values = torch.nn.functional.normalize(pool.c_proj(pool.v_proj(tokens)), dim=-1)
    expected = (values @ some.T).mT.unflatten(-1, clip.grid)
    maps = maskclip_resnet(Lens(clip), batch, some)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)
    large = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    assert maskclip_resnet(Lens(clip), large, some).shape == (1, 3, 3, 5)


def test_pooling_attention_adds_up_to_the_similarity():
    clip = tiny_resnet()
    lens, some = Lens(clip), texts(clip)
    batch = images(2, clip)
    representation, contributions = lens(batch)
    maps = pooling_attention(lens, batch, some)
    mine = contributions[4]
    said = lens.method.neurons.project(some)
    first = torch.einsum("bh,bn,nhc->bc", mine.weights[..., 0], mine.activations[:, 0], said)
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    total = maps.sum((2, 3)) + first + scale * (some @ lens.method.bias)
    torch.testing.assert_close(total, scale * representation @ some.T, rtol=1e-4, atol=1e-4)


def test_gradcam_of_a_resnet_is_the_gradient_of_the_similarity():
    clip = tiny_resnet()
    lens, batch = Lens(clip), images(1, clip)
    some = torch.cat([texts(clip), -texts(clip)])
    got = gradcam_resnet(lens, batch, some)
    stage = last_stage(clip, batch).double()
    pool = tiny_resnet().visual.attnpool.double()

    def similarity(values):
        return some.double() @ torch.nn.functional.normalize(pool(values), dim=-1)[0]

    gradient = torch.autograd.functional.jacobian(similarity, stage)[:, 0]
    expected = (gradient.mean((2, 3), keepdim=True) * stage).sum(1).clamp_min(0)
    assert expected.max() > 0
    torch.testing.assert_close(got[0].double(), expected, rtol=1e-3, atol=1e-6)
    assert not lens.clip.visual.attnpool.v_proj.weight.requires_grad
