"""open_clip's own VisionTransformer: class token, average, or CoCa's attentional pooler."""

from functools import partial

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from clipneurons.models.adapters.common import (
    Refused,
    activation_of,
    norm_of,
    torch_attention,
)
from clipneurons.models.anatomy import Affine, Anatomy, Block, Mlp, Pooling


def open_clip_vit(visual: VisionTransformer) -> Anatomy:
    """The anatomy of open_clip's own ViT."""
    blocks = tuple(
        _block(block, f"transformer.resblocks.{index}")
        for index, block in enumerate(visual.transformer.resblocks)
    )
    return Anatomy(
        blocks=blocks,
        pooling=_pooling(visual),
        prefix=1,
        grid=visual.grid_size,
        activation=activation_of(visual.transformer.resblocks[0].mlp.gelu, "block 0"),
        embed=visual._embeds,
        read_out=partial(_read_out, visual),
    )


def _read_out(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    return visual._pool(tokens)[0] @ visual.proj


def _block(block: nn.Module, path: str) -> Block:
    # Exact type: the custom block adds norms and scales to the residual branches.
    if type(block) is not ResidualAttentionBlock:
        raise Refused(f"{path} is a {type(block).__name__}, not a plain pre-norm block")
    activation_of(block.mlp.gelu, path)
    return Block(
        path=path,
        norm=norm_of(block.ln_1, f"{path}.ln_1"),
        attention=torch_attention(block.attn, getattr(block.ls_1, "gamma", None)),
        mlp=Mlp(
            norm=norm_of(block.ln_2, f"{path}.ln_2"),
            hidden=block.mlp[:2],
            path=f"{path}.mlp.gelu",
            output=Affine.of(block.mlp.c_proj, getattr(block.ls_2, "gamma", None)),
            input=Affine.of(block.mlp.c_fc),
        ),
        run=block,
    )


def _pooling(visual: VisionTransformer) -> Pooling:
    if visual.proj is None:
        raise Refused("it has no projection into the joint space")
    projection = Affine(visual.proj.T)
    final = norm_of(visual.ln_post, "ln_post")
    if visual.attn_pool is not None:
        if visual.attn_pool_contrastive is not None or visual.pool_type != "tok":
            raise Refused("it pools by two attentions (CoCa's parallel or cascade)")
        pool = visual.attn_pool
        attention = torch_attention(pool.attn)
        with torch.no_grad():  # the first query is the one for contrast, the others describe
            query = attention.query(pool.ln_q(pool.query[:1]))[0]
        return Pooling(
            "probe", norm_of(pool.ln_k, "attn_pool.ln_k"), attention=attention, query=query,
            post=final, projection=projection,
        )  # fmt: skip
    if visual.pool_type not in ("tok", "avg"):
        raise Refused(f"it pools by {visual.pool_type!r}, not by class token or average")
    before, after = (None, final) if visual.final_ln_after_pool else (final, None)
    kind = "token" if visual.pool_type == "tok" else "mean"
    return Pooling(kind, before, start=1, post=after, projection=projection)
