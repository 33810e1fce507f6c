"""The image tower's forward pass with every intermediate value at hand, differentiable."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.anatomy import Block, Norm
from clipneurons.models.clip import ClipModel


@dataclass(frozen=True)
class BlockActivations:
    """What one residual block computed; ``sigma`` is what norms divide the heads' parts by."""

    inputs: Float[Tensor, "image token width"]
    normed: Float[Tensor, "image token width"]
    queries: Float[Tensor, "image head token rank"]
    keys: Float[Tensor, "image head token rank"]
    values: Float[Tensor, "image head token rank"]
    attention: Float[Tensor, "image head token token"]
    sigma: Float[Tensor, "image token"]
    attended: Float[Tensor, "image token width"]
    middle: Float[Tensor, "image token width"]
    mlp_normed: Float[Tensor, "image token width"]
    activations: Float[Tensor, "image token neuron"]
    mlp: Float[Tensor, "image token width"]
    outputs: Float[Tensor, "image token width"]


@dataclass(frozen=True)
class ActivationCache:
    """A forward pass: the embedded patches, the blocks, and the embedding."""

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
        raise ValueError(f"expected a ViT, {clip.name} is a {clip.kind}")
    with torch.set_grad_enabled(gradients):
        tokens = start = embed_patches(clip, images)
        # Weights have no gradients, so the graph starts here.
        tokens = tokens.requires_grad_(gradients)
        blocks = []
        for block in clip.anatomy.blocks:
            blocks.append(run_block(block, tokens))
            tokens = blocks[-1].outputs
        embedding = clip.anatomy.read_out(tokens)
    return ActivationCache(start, blocks, embedding)


@torch.no_grad()
def embed_patches(
    clip: ClipModel, images: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image token channel"]:
    """The input of the first block, tokens before the patches first."""
    return clip.anatomy.embed(images.to(clip.device, clip.dtype))


def run_block(block: Block, inputs: Float[Tensor, "image token width"]) -> BlockActivations:
    """One residual block, with its attention computed openly."""
    attend, mlp = block.attention, block.mlp
    normed, _ = _normalise(block.norm, inputs)
    queries, keys = attend.queries_keys(normed)
    values = attend.split(attend.value(normed))
    attention = torch.softmax(queries @ keys.mT / queries.shape[-1] ** 0.5, dim=-1)
    mixed, inner = _normalise(attend.inner, (attention @ values).transpose(1, 2).flatten(2))
    attended, outer = _normalise(attend.outer, attend.output(mixed))
    middle = inputs + attended
    mlp_normed, _ = _normalise(mlp.norm, middle)
    activations = mlp.hidden(mlp_normed)
    written = mlp(activations)
    return BlockActivations(
        inputs=inputs, normed=normed, queries=queries, keys=keys, values=values,
        attention=attention, sigma=inner * outer, attended=attended, middle=middle,
        mlp_normed=mlp_normed, activations=activations, mlp=written, outputs=middle + written,
    )  # fmt: skip


def _normalise(
    norm: Norm | None, tokens: Float[Tensor, "image token width"]
) -> tuple[Float[Tensor, "image token width"], Float[Tensor, "image token"]]:
    """Normalised tokens and what they were divided by; the same tokens and 1 without a norm."""
    if norm is None:
        return tokens, tokens.new_ones(tokens.shape[:2])
    return norm(tokens), norm.sigma(tokens).to(tokens.dtype)
