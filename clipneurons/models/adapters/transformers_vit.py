"""transformers' CLIP, SigLIP and SigLIP 2 image towers."""

from functools import partial

import torch
from torch import Tensor, nn

from clipneurons.models.adapters.common import Refused, activation_of, norm_of, torch_attention
from clipneurons.models.anatomy import Affine, Anatomy, Attention, Block, Mlp, Norm, Pooling
from clipneurons.models.transformers_clip import TransformersVision


def transformers_vit(visual: TransformersVision) -> Anatomy:
    """The anatomy of a checkpoint's image tower."""
    layers, class_token = visual.vision.encoder.layers, visual.projection is not None
    return Anatomy(
        blocks=tuple(
            _block(layer, f"vision.encoder.layers.{index}") for index, layer in enumerate(layers)
        ),
        pooling=_pooling(visual),
        prefix=int(class_token),
        grid=visual.grid,
        activation=activation_of(layers[0].mlp.activation_fn, "layer 0"),
        embed=partial(_embed, visual),
        read_out=partial(_read_out, visual),
    )


def _embed(visual: TransformersVision, images: Tensor) -> Tensor:
    tokens = visual.vision.embeddings(**visual.inputs(images))
    return tokens if visual.projection is None else visual.vision.pre_layrnorm(tokens)


def _read_out(visual: TransformersVision, tokens: Tensor) -> Tensor:
    if visual.projection is None:
        return visual.vision.head(visual.vision.post_layernorm(tokens))
    return visual.projection(visual.vision.post_layernorm(tokens[:, 0]))


def _block(layer: nn.Module, path: str) -> Block:
    attn = layer.self_attn
    projections = (Affine.of(part) for part in (attn.q_proj, attn.k_proj, attn.v_proj))
    return Block(
        path=path,
        norm=norm_of(layer.layer_norm1, f"{path}.layer_norm1"),
        attention=Attention(attn.num_heads, *projections, output=Affine.of(attn.out_proj)),
        mlp=_mlp(layer.mlp, norm_of(layer.layer_norm2, f"{path}.layer_norm2"), f"{path}.mlp"),
        run=partial(layer, attention_mask=None),
    )


def _mlp(mlp: nn.Module, norm: Norm, path: str) -> Mlp:
    activation_of(mlp.activation_fn, path)
    return Mlp(
        norm, partial(_hidden, mlp), f"{path}.fc2:input", Affine.of(mlp.fc2), Affine.of(mlp.fc1)
    )


def _hidden(mlp: nn.Module, tokens: Tensor) -> Tensor:
    return mlp.activation_fn(mlp.fc1(tokens))


def _pooling(visual: TransformersVision) -> Pooling:
    norm = norm_of(visual.vision.post_layernorm, "vision.post_layernorm")
    if visual.projection is not None:  # CLIP normalises the class token alone
        return Pooling("token", None, post=norm, projection=Affine.of(visual.projection))
    if not visual.vision.use_head:
        raise Refused("it has no pooling head")
    head = visual.vision.head
    attention = torch_attention(head.attention)
    with torch.no_grad():
        query = attention.query(head.probe[0])[0]
    mlp_norm = norm_of(head.layernorm, "vision.head.layernorm")
    return Pooling(
        "probe", norm, attention=attention, query=query,
        mlp=_mlp(head.mlp, mlp_norm, "vision.head.mlp"),
    )  # fmt: skip
