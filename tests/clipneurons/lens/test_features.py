"""Effects of latents against float64 loops, and parts that add up to the embedding."""

import math
from dataclasses import replace

import pytest
import torch

from clipneurons.bundle.sparse_features import FeatureError, SparseFeatures
from clipneurons.lens.features import FeatureEffects
from clipneurons.lens.lens import Lens
from tests.helpers.models import images, tiny_resnet, tiny_vit

LATENTS = 7
SITES = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "mlp_in")


def dictionary(width, **settings):
    """Random weights of every kind, so that no term vanishes."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) / 3

    features = SparseFeatures(
        draw(width, LATENTS), draw(LATENTS), draw(LATENTS, width), draw(width),
        **{"block": 1, "site": "resid_post"} | settings,
    )  # fmt: skip
    return features


def width_of(clip):
    return clip.neurons if clip.kind == "resnet" else clip.visual.conv1.out_channels


def encoded(features, x):
    """Latents of one token, its sigma and mu: the module's formulas, a number at a time."""
    w_enc, b_enc, b_dec = (t.double() for t in (features.w_enc, features.b_enc, features.b_dec))
    mu, sigma = 0.0, 1.0
    if features.normalisation == "layer_norm":
        mu = sum(x.tolist()) / len(x)
        sigma = math.sqrt(sum((v - mu) ** 2 for v in x.tolist()) / (len(x) - 1)) + 1e-5
    if features.normalisation == "unit_norm":
        sigma = math.sqrt(sum(v * v for v in x.tolist())) / math.sqrt(len(x))
    inputs = (x - mu) / sigma - (b_dec if features.centred else 0)
    pre = [float(inputs @ w_enc[:, k] + b_enc[k]) for k in range(features.latents)]
    latents = [max(p, 0.0) for p in pre]
    if features.activation == "topk":
        kept = sorted(range(len(pre)), key=lambda k: -pre[k])[: features.k]
        latents = [f if k in kept else 0.0 for k, f in enumerate(latents)]
    if features.activation == "jumprelu":
        limits = features.threshold.tolist()
        latents = [f if p > t else 0.0 for f, p, t in zip(latents, pre, limits, strict=True)]
    return latents, sigma, mu


class NaiveVit:
    """One image through open_clip's ViT in float64, keeping what heads and MLPs read."""

    def __init__(self, visual, image):
        self.visual = visual
        self.sites, self.attention, self.sigma = {}, [], []
        x = visual._embeds(image[None]) if hasattr(visual, "_embeds") else None
        for index, block in enumerate(visual.transformer.resblocks):
            normed = block.ln_1(x)
            heads = block.attn.num_heads
            q, k, _ = (normed @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, -1)
            rank = q.shape[-1] // heads
            row = [
                torch.softmax(
                    q[0, 0, h * rank : (h + 1) * rank]
                    @ k[0, :, h * rank : (h + 1) * rank].T / math.sqrt(rank), -1
                )
                for h in range(heads)
            ]  # fmt: skip
            self.attention.append(row)
            self.sigma.append((x[0].var(-1, unbiased=False) + block.ln_1.eps).sqrt())
            mid = x + block.attn(normed, normed, normed, need_weights=False)[0]
            read = block.ln_2(mid)
            written = block.mlp(read)
            self.sites[index] = {
                "resid_pre": x[0], "resid_mid": mid[0], "mlp_in": read[0], "mlp_out": written[0],
                "resid_post": (mid + written)[0],
            }  # fmt: skip
            x = mid + written
        self.sigma_post = float((x[0, 0].var(unbiased=False) + visual.ln_post.eps).sqrt())
        self.embedding = (visual.ln_post(x)[:, 0] @ visual.proj)[0]

    def carried(self, vectors, first):
        """What a vector in each token brings to the embedding, through blocks from ``first`` on."""
        total = torch.zeros_like(self.embedding)
        blocks = list(self.visual.transformer.resblocks)
        for index in range(first, len(blocks)):
            block = blocks[index]
            value = block.attn.in_proj_weight.chunk(3)[2]
            rank = len(value) // block.attn.num_heads
            for h in range(block.attn.num_heads):
                part = slice(h * rank, (h + 1) * rank)
                read = torch.zeros_like(vectors[0])
                for token, vector in enumerate(vectors):
                    weight = self.attention[index][h][token] / self.sigma[index][token]
                    read = read + weight * block.ln_1.weight * vector
                written = block.attn.out_proj.weight[:, part] @ (value[part] @ read)
                total += self.visual.proj.T @ (self.visual.ln_post.weight * written)
        scale = 100 / self.embedding.norm() / self.sigma_post
        return scale * total


@pytest.fixture(scope="module")
def vit():
    return tiny_vit(layers=3, image_size=24)


SETTINGS = (
    {},
    {"activation": "topk", "k": 3, "centred": True},
    {"activation": "jumprelu", "threshold": torch.full((LATENTS,), 0.2)},
    {"normalisation": "layer_norm"},
    {"normalisation": "unit_norm", "tokens": "patches"},
    {"tokens": "class"},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s)) or "relu")
@pytest.mark.parametrize("site", SITES)
def test_effects_and_parts_are_the_loops_of_the_formula(vit, site, settings):
    if site == "mlp_in":
        settings = {name: value for name, value in settings.items() if name != "centred"}
    features = dictionary(width_of(vit), site=site, **settings)
    lens, batch = Lens(vit, features=features), images(2, vit)
    representation, effects = lens(batch)
    parts = lens.method.parts(batch)
    whole = parts.features + parts.decoder_bias + parts.error + parts.rest
    scaled = 100 * representation / representation.norm(dim=1, keepdim=True)
    assert torch.allclose(whole, scaled, atol=1e-3, rtol=1e-5)
    double = replace(vit, model=tiny_vit(layers=3, image_size=24).model.double())
    first = 1 + (site != "resid_pre")
    for number in range(2):
        naive = NaiveVit(double.visual, batch[number].double())
        reads = naive.sites[1][site]
        target = naive.sites[1]["mlp_out"] if site == "mlp_in" else reads
        described = {"all": lambda t: True, "patches": lambda t: t > 0, "class": lambda t: t == 0}
        mine = [described[features.tokens](t) for t in range(len(reads))]
        latents, bias = [], []
        for token, use in zip(reads, mine, strict=True):
            f, sigma, mu = encoded(features, token)
            latents.append([use * sigma * value for value in f])
            bias.append(use * (sigma * features.b_dec.double() + mu))
        for unit in range(LATENTS):
            row = features.w_dec[unit].double()
            expected = naive.carried([f[unit] * row for f in latents], first)
            found = effects[1].dense(torch.tensor([unit]))[number, 0]
            assert torch.allclose(found.double(), expected, atol=1e-4, rtol=1e-4)
        expected = naive.carried(bias, first)
        assert torch.allclose(parts.decoder_bias[number].double(), expected, atol=1e-3, rtol=1e-4)
        rest = 100 * naive.embedding / naive.embedding.norm() - naive.carried(list(target), first)
        assert torch.allclose(parts.rest[number].double(), rest, atol=1e-3, rtol=1e-4)


def test_parts_of_a_resnet_add_up_and_pairs_are_its_units():
    clip = tiny_resnet()
    features = dictionary(clip.neurons, site="last_stage", block=4)
    lens, batch = Lens(clip, features=features), images(2, clip)
    representation, effects = lens(batch)
    parts = lens.method.parts(batch)
    scaled = 100 * representation / representation.norm(dim=1, keepdim=True)
    whole = parts.features + parts.decoder_bias + parts.error + parts.rest
    assert torch.allclose(whole, scaled, atol=1e-3, rtol=1e-5)
    assert effects[4].scores.shape == (2, LATENTS * clip.heads, 1)
    # A dictionary of each channel itself is the neurons' own contributions.
    same = torch.eye(clip.neurons)
    zero = torch.zeros(clip.neurons)
    identity = SparseFeatures(same, zero, same, zero, block=4, site="last_stage")
    parts = FeatureEffects(clip, identity).parts(batch)
    assert parts.explained_variance == pytest.approx(1)
    assert torch.allclose(parts.error, torch.zeros(()), atol=1e-3)


def test_a_dictionary_of_the_neurons_gives_their_effects(vit):
    """A transcoder made of the MLP's own weights has the neurons as latents, but for GELU."""
    mlp = vit.anatomy.blocks[1].mlp
    weight = mlp.output.weight.float()
    features = SparseFeatures(
        torch.randn(width_of(vit), weight.shape[1]), torch.zeros(weight.shape[1]), weight.T,
        torch.zeros(len(weight)), block=1, site="mlp_in",
    )  # fmt: skip
    neurons, latents = Lens(vit, (1,)), FeatureEffects(vit, features)
    assert torch.allclose(
        neurons.directions[1].dense(), latents.directions[1].dense(), atol=1e-5
    ), "decoder rows are read as output weights are"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": 2, "site": "resid_post"}, "expected blocks 0 to 1"),
        ({"site": "last_stage"}, "does not fit tiny, a vit"),
        ({"activation": "topk"}, "topk needs k from 1 to 7, not None"),
        ({"activation": "magic"}, "activation 'magic': expected one of relu"),
        ({"activation": "jumprelu"}, "needs a threshold"),
        ({"site": "mlp_in", "centred": True}, "of its target, not of its site"),
    ],
)
def test_what_does_not_fit_is_named(vit, settings, message):
    with pytest.raises(FeatureError, match=message):
        FeatureEffects(vit, dictionary(width_of(vit), **settings))


def test_another_models_dictionary_and_bad_weights_are_named(vit):
    with pytest.raises(FeatureError, match=r"reads 5 numbers a token, tiny has 24.*of another"):
        FeatureEffects(vit, dictionary(5))
    good = dictionary(width_of(vit))
    with pytest.raises(FeatureError, match=r"w_dec is \[24, 7\], expected \[7, 24\]: transposed"):
        replace(good, w_dec=good.w_dec.T)
    with pytest.raises(FeatureError, match="w_enc holds values that are not finite"):
        replace(good, w_enc=good.w_enc * torch.nan)
