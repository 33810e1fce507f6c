"""The image tower's forward pass with every intermediate value at hand, differentiable."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clipneurons.models.clip import ClipModel


@dataclass(frozen=True)
class BlockActivations:
    """What one residual block computed."""

    inputs: Float[Tensor, "image token width"]
    normed: Float[Tensor, "image token width"]
    queries: Float[Tensor, "image head token rank"]
    keys: Float[Tensor, "image head token rank"]
    values: Float[Tensor, "image head token rank"]
    attention: Float[Tensor, "image head token token"]
    attended: Float[Tensor, "image token width"]
    middle: Float[Tensor, "image token width"]
    mlp_normed: Float[Tensor, "image token width"]
    hidden: Float[Tensor, "image token neuron"]
    activations: Float[Tensor, "image token neuron"]
    mlp: Float[Tensor, "image token width"]
    outputs: Float[Tensor, "image token width"]


@dataclass(frozen=True)
class ActivationCache:
    """A forward pass: the embedded patches, the blocks, and the embedding of the class token."""

    start: Float[Tensor, "image token width"]
    blocks: list[BlockActivations]
    embedding: Float[Tensor, "image embed"]


def run_with_cache(
    clip: ClipModel, images: Float[Tensor, "image 3 height width"], gradients: bool = False
) -> ActivationCache:
    """Run a ViT block by block; with ``gradients`` the attention maps can be differentiated by.

    Raises:
        ValueError: the model is no ViT.
    """
    if clip.kind != "vit":
        raise ValueError(f"this baseline reads a ViT's attention, {clip.name} is a {clip.kind}")
    visual = clip.visual
    with torch.set_grad_enabled(gradients):
        tokens = start = embed_patches(clip, images)
        # Weights have no gradients, so the graph starts here.
        tokens = tokens.requires_grad_(gradients)
        blocks = []
        for block in visual.transformer.resblocks:
            blocks.append(run_block(block, tokens))
            tokens = blocks[-1].outputs
        embedding = read_out(clip, tokens[:, 0])
    return ActivationCache(start, blocks, embedding)


@torch.no_grad()
def embed_patches(
    clip: ClipModel, images: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image token channel"]:
    """The input of the first block, class token first."""
    visual = clip.visual
    patches = visual.conv1(images.to(clip.device, clip.dtype)).flatten(2).mT
    first = visual.class_embedding.expand(len(patches), 1, -1)
    return visual.ln_pre(torch.cat([first, patches], 1) + visual.positional_embedding)


def read_out(
    clip: ClipModel, tokens: Float[Tensor, "*token width"]
) -> Float[Tensor, "*token embed"]:
    """Tokens after the last block, taken to the joint space as the class token is."""
    return clip.visual.ln_post(tokens) @ clip.visual.proj


def run_block(block: nn.Module, inputs: Float[Tensor, "image token width"]) -> BlockActivations:
    """One residual block, with its attention computed openly."""
    normed = block.ln_1(inputs)
    queries, keys, values = heads_of(block, normed)
    attention = torch.softmax(queries @ keys.mT / queries.shape[-1] ** 0.5, dim=-1)
    attended = block.attn.out_proj((attention @ values).transpose(1, 2).flatten(2))
    middle = inputs + attended
    mlp_normed = block.ln_2(middle)
    hidden = block.mlp.c_fc(mlp_normed)
    activations = block.mlp.gelu(hidden)
    mlp = block.mlp.c_proj(activations)
    return BlockActivations(
        inputs=inputs, normed=normed, queries=queries, keys=keys, values=values,
        attention=attention, attended=attended, middle=middle, mlp_normed=mlp_normed,
        hidden=hidden, activations=activations, mlp=mlp, outputs=middle + mlp,
    )  # fmt: skip


def heads_of(
    block: nn.Module, normed: Float[Tensor, "image token width"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values ``[image, head, token, rank]`` of a block's attention."""
    attn = block.attn
    projected = F.linear(normed, attn.in_proj_weight, attn.in_proj_bias)
    return tuple(
        part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
        for part in projected.chunk(3, dim=-1)
    )


def to_grid(
    clip: ClipModel, scores: Float[Tensor, "*map patch"]
) -> Float[Tensor, "*map row column"]:
    """Scores of the patches (without the class token), laid out as the image."""
    return scores.unflatten(-1, clip.grid).float()


def class_gradients(score: Float[Tensor, " image"], wanted: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of each image's score by tensors of its trace, keeping the graph."""
    return torch.autograd.grad(score.sum(), wanted, retain_graph=True)


def similarities(
    embedding: Float[Tensor, "image embed"], texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image class"]:
    """Cosine of each image embedding with each class's direction."""
    return F.normalize(embedding.float(), dim=-1) @ texts.T
