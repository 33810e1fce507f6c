"""timm's VisionTransformer and Eva inside open_clip: SigLIP, MobileCLIP-L and -B, PE-Core, EVA."""

from dataclasses import replace
from functools import partial

import torch
from open_clip.timm_model import TimmModel
from timm.layers import (
    Attention as TimmAttention,
)
from timm.layers import (
    AttentionPoolLatent,
    AttentionRope,
    GluMlp,
    SwiGLU,
    apply_rot_embed_cat,
)
from timm.layers import (
    Mlp as TimmMlp,
)
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clipneurons.models.adapters.common import Refused, activation_of, norm_of, optional_norm
from clipneurons.models.anatomy import Affine, Anatomy, Attention, Block, Mlp, Norm, Pooling


def timm_vit(visual: TimmModel) -> Anatomy:
    """The anatomy of a timm ViT that open_clip wraps, projection included."""
    trunk = visual.trunk
    if type(trunk) not in (VisionTransformer, Eva):
        raise Refused(f"its image tower is timm's {type(trunk).__name__}, no plain ViT")
    rope = None
    if getattr(trunk, "rope", None) is not None:
        if trunk.rope_mixed:
            raise Refused("its rotary embeddings differ from block to block")
        rope = trunk.rope.get_embed()
    blocks = tuple(
        _block(block, f"trunk.blocks.{index}", rope) for index, block in enumerate(trunk.blocks)
    )
    act = trunk.blocks[0].mlp.act
    return Anatomy(
        blocks=blocks,
        pooling=_pooling(visual),
        prefix=trunk.num_prefix_tokens,
        grid=tuple(trunk.patch_embed.grid_size),
        activation=activation_of(act, "block 0"),
        embed=partial(_embed, trunk),
        read_out=partial(_read_out, visual),
    )


def _embed(trunk: nn.Module, images: Tensor) -> Tensor:
    tokens = trunk._pos_embed(trunk.patch_embed(images))
    return trunk.norm_pre(tokens[0] if isinstance(trunk, Eva) else tokens)


def _read_out(visual: TimmModel, tokens: Tensor) -> Tensor:
    return visual.head(visual.trunk.forward_head(visual.trunk.norm(tokens)))


def _block(block: nn.Module, path: str, rope: Tensor | None) -> Block:
    if type(block) not in (TimmBlock, EvaBlock, EvaBlockPostNorm):
        raise Refused(f"{path} is a {type(block).__name__}, not a plain residual block")
    run = block if type(block) is TimmBlock else partial(block, rope=rope)
    norms = [norm_of(getattr(block, name), f"{path}.{name}") for name in ("norm1", "norm2")]
    outer: list[Norm | None] = [None, None]
    if type(block) is EvaBlockPostNorm:
        norms, outer = outer, norms
    scales = _layer_scales(block)
    attention = _attention(block.attn, f"{path}.attn", scales[0], rope)
    mlp = _mlp(block.mlp, norms[1], f"{path}.mlp", scales[1])
    return Block(
        path=path,
        norm=norms[0],
        attention=replace(attention, outer=outer[0]),
        mlp=replace(mlp, outer=outer[1]),
        run=run,
    )


def _layer_scales(block: nn.Module) -> list[Tensor | None]:
    """LayerScale of attention and MLP, whichever way it is kept."""
    if type(block) is TimmBlock:
        return [getattr(module, "gamma", None) for module in (block.ls1, block.ls2)]
    return [getattr(block, name, None) for name in ("gamma_1", "gamma_2")]


def _attention(attn: nn.Module, path: str, scale: Tensor | None, rope: Tensor | None) -> Attention:
    if type(attn) not in (TimmAttention, EvaAttention, AttentionRope) or attn.gate is not None:
        raise Refused(f"{path} is a {type(attn).__name__}, not plain attention")
    if getattr(attn, "num_kv_groups", 1) > 1:
        raise Refused(f"{path} shares its values among heads")
    rotate = None
    if rope is not None:
        rotate = partial(_rotate, rope, attn.num_prefix_tokens, attn.rotate_half)
    return Attention(
        attn.num_heads,
        *_projections(attn),
        output=Affine.of(attn.proj, scale),
        rotate=rotate,
        query_norm=_head_norm(attn.q_norm),
        key_norm=_head_norm(attn.k_norm),
        inner=optional_norm(attn.norm, f"{path}.norm"),
    )


def _projections(attn: nn.Module) -> list[Affine]:
    """Query, key and value, whichever way they are kept."""
    if attn.qkv is None:
        return [Affine.of(part) for part in (attn.q_proj, attn.k_proj, attn.v_proj)]
    if getattr(attn, "q_bias", None) is not None:
        biases = (attn.q_bias, None, attn.v_bias)
    else:
        biases = (None,) * 3 if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
    return list(map(Affine, attn.qkv.weight.chunk(3), biases))


def _head_norm(module: nn.Module) -> nn.Module | None:
    return None if isinstance(module, nn.Identity) else module


def _rotate(rope: Tensor, prefix: int, half: bool, heads: Tensor) -> Tensor:
    turned = apply_rot_embed_cat(heads[:, :, prefix:], rope.to(heads.device), half=half)
    return torch.cat([heads[:, :, :prefix], turned.type_as(heads)], 2)


def _mlp(mlp: nn.Module, norm: Norm | None, path: str, scale: Tensor | None) -> Mlp:
    if type(mlp) is TimmMlp:
        hidden = partial(_plain, mlp)
    elif type(mlp) is SwiGLU:
        hidden = partial(_gated, mlp)
    elif type(mlp) is GluMlp and not mlp.gate_last:
        hidden = partial(_packed, mlp)
    else:
        raise Refused(f"{path} is a {type(mlp).__name__}, neither an MLP nor SwiGLU")
    activation_of(mlp.act, path)
    return Mlp(
        norm, hidden, f"{path}.norm:input", Affine.of(mlp.fc2, scale),
        Affine.of(mlp.fc1) if type(mlp) is TimmMlp else None,
        optional_norm(mlp.norm, f"{path}.norm"),
    )  # fmt: skip


def _plain(mlp: TimmMlp, tokens: Tensor) -> Tensor:
    return mlp.act(mlp.fc1(tokens))


def _gated(mlp: SwiGLU, tokens: Tensor) -> Tensor:
    return mlp.act(mlp.fc1_g(tokens)) * mlp.fc1_x(tokens)


def _packed(mlp: GluMlp, tokens: Tensor) -> Tensor:
    gate, value = mlp.fc1(tokens).chunk(2, -1)
    return mlp.act(gate) * value


def _pooling(visual: TimmModel) -> Pooling:
    trunk, projection = visual.trunk, _projection(visual)
    norm = optional_norm(trunk.norm, "trunk.norm")
    post = optional_norm(trunk.fc_norm, "trunk.fc_norm")
    if trunk.attn_pool is not None:
        whole = isinstance(trunk, Eva) or trunk.pool_include_prefix
        start = 0 if whole else trunk.num_prefix_tokens
        return _probe(trunk.attn_pool, norm, start, post, projection)
    if trunk.global_pool == "token":
        return Pooling("token", norm, post=post, projection=projection)
    if trunk.global_pool == "avg":
        start = 0 if getattr(trunk, "pool_include_prefix", False) else trunk.num_prefix_tokens
        return Pooling("mean", norm, start, post=post, projection=projection)
    raise Refused(f"it pools by {trunk.global_pool!r}, not by class token, average or probe")


def _probe(
    pool: nn.Module, norm: Norm | None, start: int, post: Norm | None, projection: Affine | None
) -> Pooling:
    plain = type(pool) is AttentionPoolLatent and pool.pos_embed is None and pool.latent_len == 1
    if not plain or post is not None or (pool.mlp is None) != isinstance(pool.proj, nn.Identity):
        raise Refused(f"its {type(pool).__name__} is not attention of a single probe")
    if pool.mlp is None:
        raise Refused("its pooling has no output projection")
    biases = (None, None) if pool.kv.bias is None else pool.kv.bias.chunk(2)
    key, value = map(Affine, pool.kv.weight.chunk(2), biases)
    with torch.no_grad():
        heads = pool.q(pool.latent[0]).unflatten(-1, (pool.num_heads, -1))
        query = pool.q_norm(heads).flatten()
    attention = Attention(
        pool.num_heads, None, key, value, Affine.of(pool.proj),
        key_norm=_head_norm(pool.k_norm),
    )  # fmt: skip
    return Pooling(
        "probe", norm, start, attention, query, projection=projection,
        mlp=_mlp(pool.mlp, norm_of(pool.norm, "trunk.attn_pool.norm"), "trunk.attn_pool.mlp", None),
    )  # fmt: skip


def _projection(visual: TimmModel) -> Affine | None:
    """The trunk's linear head or open_clip's own; None where the pooled vector is the embedding."""
    if len(visual.head) and not hasattr(visual.head, "proj"):
        raise Refused("its projection into the joint space is an MLP")
    layers = [
        layer
        for layer in (visual.trunk.head, getattr(visual.head, "proj", None))
        if layer is not None and not isinstance(layer, nn.Identity)
    ]
    if len(layers) > 1 or not all(isinstance(layer, nn.Linear) for layer in layers):
        raise Refused("its projection into the joint space is not one linear layer")
    return Affine.of(layers[0]) if layers else None
