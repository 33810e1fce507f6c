"""One small model of random weights for each family of image towers, built by its own library."""

from functools import partial
from unittest.mock import patch

import open_clip
import timm
import torch
import transformers
from open_clip.timm_model import TimmModel

from clipneurons.models.clip import ClipModel
from clipneurons.models.transformers_clip import TransformersClip, TransformersVision
from tests.helpers.models import as_clip, randomise, tiny_vit
from tests.helpers.naive_tower import NaiveTower, Normed, Weights

WIDTH = 24
_SMALL = dict(depth=3, embed_dim=WIDTH, img_size=32, patch_size=8)
_HEADS = dict(num_heads=3)


def tiny_timm(name: str, pool: str, proj: str | None, embed: int, seed=0, **changes) -> ClipModel:
    """A named configuration of timm, made small, inside open_clip's wrapper."""
    torch.manual_seed(seed)
    options = {**_SMALL, **_HEADS, **changes}
    with patch.object(timm, "create_model", partial(timm.create_model, **options)):
        visual = TimmModel(name, embed, image_size=32, pool=pool, proj=proj)
    model = open_clip.CLIP(
        embed_dim=embed,
        vision_cfg=dict(image_size=32, layers=1, width=8, head_width=8, patch_size=32),
        text_cfg=dict(context_length=16, vocab_size=49408, width=16, heads=2, layers=1),
    )
    model.visual = visual
    for parameter in visual.parameters():  # timm's small initial weights attend to all alike
        if parameter.ndim == 2:
            parameter.data.normal_(std=parameter.shape[1] ** -0.5)
    randomise(model)
    return as_clip(model)


FAMILIES = {
    "CLIP": partial(tiny_vit, layers=3),
    "ViT-M-16-alt (LayerScale)": partial(tiny_vit, layers=3, ls_init_value=0.5),
    "CLIPA": partial(
        tiny_vit, layers=3, pool_type="avg", no_ln_pre=True, final_ln_after_pool=True
    ),
    "average after the norm": partial(tiny_vit, layers=3, pool_type="avg"),
    "CoCa": partial(
        tiny_vit, layers=3, attentional_pool=True, attn_pooler_heads=3, attn_pooler_queries=5,
        output_tokens=True
    ),
    "SigLIP": partial(tiny_timm, "vit_base_patch16_siglip_224", "map", "none", WIDTH),
    "MobileCLIP-L": partial(tiny_timm, "vit_large_patch14_clip_224", "token", None, 12),
    "vit_medium_patch16_gap": partial(
        tiny_timm, "vit_medium_patch16_gap_256", "", "linear", 12
    ),
    "registers": partial(
        tiny_timm, "vit_base_patch16_siglip_224", "map", "linear", 12, reg_tokens=2,
        class_token=True, init_values=0.5,
    ),
    "PE-Core": partial(tiny_timm, "vit_pe_core_base_patch16_224", "map", None, 12),
    "EVA-01": partial(tiny_timm, "eva_giant_patch14_224", "token", None, 12),
    "EVA-02": partial(tiny_timm, "eva02_base_patch16_clip_224", "token", None, 12),
    "EVA-02-E": partial(tiny_timm, "eva02_enormous_patch14_clip_224", "token", None, 12),
    "EVA-02-E with a probe": partial(
        tiny_timm, "eva02_enormous_patch14_clip_224", "map", None, 12
    ),
}  # fmt: skip


def naive(clip: ClipModel, image: torch.Tensor) -> NaiveTower:
    """The float64 loops for one image, given the tokens that enter the first block."""
    visual = clip.visual
    if isinstance(visual, TimmModel):
        return _naive_timm(clip, image)
    if isinstance(visual, TransformersVision):
        return _naive_transformers(clip, image)
    blocks, post = visual.transformer.resblocks, visual.ln_post
    start = _first_input(visual, blocks[0], image)
    projection = Weights(visual.proj.T)
    if visual.attn_pool is not None:
        pool = visual.attn_pool
        query, key, value = _mha(pool.attn)
        pool = (
            "probe", 0, Normed(pool.ln_k), query(Normed(pool.ln_q)(pool.query[0].double())), key,
            value, Weights(pool.attn.out_proj.weight, pool.attn.out_proj.bias),
            pool.attn.num_heads, Normed(post), None, None, None,
        )  # fmt: skip
    else:
        norms = (
            (Normed(None), Normed(post))
            if visual.final_ln_after_pool
            else (Normed(post), Normed(None))
        )
        pool = ("token", *norms) if visual.pool_type == "tok" else ("mean", 1, *norms)
    return NaiveTower(blocks, start, pool, projection)


def _first_input(visual, block, image):
    kept = []
    handle = block.register_forward_pre_hook(lambda _module, args: kept.append(args[0][0]))
    visual(image[None])
    handle.remove()
    return kept[0]


def _mha(attention):
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    weights = (
        (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        if weight is None
        else weight.chunk(3)
    )
    return [Weights(w, b) for w, b in zip(weights, bias.chunk(3), strict=True)]


def _naive_timm(clip, image):
    visual, trunk = clip.visual, clip.visual.trunk
    last = visual.head.proj if len(visual.head) else trunk.head
    projection = (
        Weights(torch.eye(trunk.embed_dim)) if isinstance(last, torch.nn.Identity)
        else Weights(last.weight, last.bias)
    )  # fmt: skip
    norm, post = Normed(trunk.norm), Normed(trunk.fc_norm)
    prefix = trunk.num_prefix_tokens
    if trunk.attn_pool is not None:
        pool = trunk.attn_pool
        first = 0 if getattr(trunk, "pool_include_prefix", True) else prefix
        key, value = (
            Weights(w, b)
            for w, b in zip(pool.kv.weight.chunk(2), pool.kv.bias.chunk(2), strict=True)
        )
        fc1, fc2 = (Weights(part.weight, part.bias) for part in (pool.mlp.fc1, pool.mlp.fc2))
        query = Weights(pool.q.weight, pool.q.bias)(pool.latent[0, 0].double())
        pool = (
            "probe", first, norm, query, key, value, Weights(pool.proj.weight, pool.proj.bias),
            pool.num_heads, post, Normed(pool.norm), fc1, fc2,
        )  # fmt: skip
    elif trunk.global_pool == "token":
        pool = ("token", norm, post)
    else:
        pool = ("mean", prefix, norm, post)
    rope = trunk.rope.get_embed() if getattr(trunk, "rope", None) is not None else None
    start = _first_input(visual, trunk.blocks[0], image)
    return NaiveTower(trunk.blocks, start, pool, projection, rope=rope, prefix=prefix)


def transformers_model(kind: str, seed: int = 0):
    """A small CLIP, SigLIP or SigLIP 2 of transformers with random weights."""
    torch.manual_seed(seed)
    sizes = dict(
        hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3,
        patch_size=8,
    )  # fmt: skip
    text = dict(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=64, max_position_embeddings=16,
    )  # fmt: skip
    if kind == "CLIP":
        config = transformers.CLIPConfig(
            vision_config=dict(sizes, image_size=32), projection_dim=12,
            text_config=dict(text, eos_token_id=1, bos_token_id=0, pad_token_id=1),
        )  # fmt: skip
        model = transformers.CLIPModel(config)
    elif kind == "SigLIP":
        config = transformers.SiglipConfig(
            vision_config=dict(sizes, image_size=32), text_config=dict(text, projection_size=WIDTH)
        )
        model = transformers.SiglipModel(config)
    else:
        config = transformers.Siglip2Config(
            vision_config=dict(sizes, num_patches=16), text_config=dict(text, projection_size=WIDTH)
        )
        model = transformers.Siglip2Model(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
        elif "vision" in name and "embedding" not in name:
            parameter.data.normal_(std=parameter.shape[-1] ** -0.5)
    return model.eval()


def tiny_transformers(kind: str) -> ClipModel:
    """The small model of transformers as the library reads it."""
    network = TransformersClip(transformers_model(kind))
    network.context_length = 16
    return as_clip(network)


FAMILIES |= {
    f"transformers {kind}": partial(tiny_transformers, kind)
    for kind in ("CLIP", "SigLIP", "SigLIP 2")
}


def _naive_transformers(clip, image):
    visual, vision = clip.visual, clip.visual.vision
    blocks, norm = vision.encoder.layers, Normed(vision.post_layernorm)
    start = _first_input(visual, blocks[0], image)
    activation = clip.activation
    if visual.projection is not None:
        pool = ("token", Normed(None), norm)
        return NaiveTower(blocks, start, pool, Weights(visual.projection.weight), activation)
    head = vision.head
    query, key, value = _mha(head.attention)
    fc1, fc2 = (Weights(part.weight, part.bias) for part in (head.mlp.fc1, head.mlp.fc2))
    pool = (
        "probe", 0, norm, query(head.probe[0, 0].double()), key, value,
        Weights(head.attention.out_proj.weight, head.attention.out_proj.bias),
        head.attention.num_heads, Normed(None), Normed(head.layernorm), fc1, fc2,
    )  # fmt: skip
    projection = Weights(torch.eye(len(fc2.weight)))
    return NaiveTower(blocks, start, pool, projection, activation, prefix=0)
