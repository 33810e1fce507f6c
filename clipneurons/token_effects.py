"""What each patch of the image contributes to the embedding, and how well that fits a class.

The embedding is a sum over heads and MLPs, and each head's output a sum over the tokens it
attends to (2310.05916, section 5); these terms hold what the neurons wrote into each token
before, their second-order effects among it. A token of a late block is itself a mixture of
patches, so its terms are followed back to the patches by attention rollout (2005.00928), whose
rows sum to 1. Nothing is lost on the way: over all patches and the class token the effects add up
to the embedding without its biases.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.baselines.explicit import trace
from clipneurons.contributions import Contributions, SplitDirections
from clipneurons.masks import upsample
from clipneurons.refine import guided_upsample
from clipneurons.towers import Tower
from clipneurons.vit import moments

# Sharpness of the fit, in logits a unit of cosine; chosen on the validation style.
SHARPNESS = 5.0
# Points a patch and side at which the edges are fitted; likewise.
_CELLS = 2


@dataclass(frozen=True)
class PatchEffects:
    """Effect of each input token of a ViT on the embedding, in one pass.

    Call it with preprocessed images for effects ``[image, token, embed]``, the class token
    first. Summed over tokens: the first-order effects of all heads and MLPs and of the input.
    """

    tower: Tower

    @cached_property
    def _readout(self) -> Float[Tensor, "width embed"]:
        """From the class token to the embedding, but for the final norm's 1/σ."""
        readout = self.tower.visual.ln_post.weight[:, None] * self.tower.visual.proj
        return readout - readout.mean(0)

    @cached_property
    def _written(self) -> list[Float[Tensor, "width embed"]]:
        """What the heads of each block write to the embedding: weights only, made once."""
        blocks = self.tower.visual.transformer.resblocks
        return [block.attn.out_proj.weight.T @ self._readout for block in blocks]

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token embed"]:
        """Effects of all tokens."""
        run = trace(self.tower, images)
        count, tokens = run.start.shape[:2]
        identity = torch.eye(tokens, device=run.start.device, dtype=run.start.dtype)
        origin = identity.expand(count, -1, -1)  # [image, token of the block, input token]
        total = run.start.new_zeros(count, tokens, self.tower.embed_dim)
        total[:, 0] = run.start[:, 0] @ self._readout
        for written, block in zip(self._written, run.blocks, strict=True):
            carried = block.values * block.attention[:, :, 0, :, None]
            total = total + origin.mT @ (carried.transpose(1, 2).flatten(2) @ written)
            origin = (origin + block.attention.mean(1) @ origin) / 2
            total = total + origin[:, 0, :, None] * (block.mlp[:, :1] @ self._readout)
        sigma = moments(self.tower.visual.ln_post, run.blocks[-1].outputs[:, 0])[1]
        return total.float() / sigma[:, None, None]


def unit_token_effects(mine: Contributions) -> Float[Tensor, "image token embed"]:
    """What all units of a layer write from each token: their effects, kept by token.

    Of a ResNet, whose pairs write the whole embedding but its bias, or of one MLP layer.
    """
    directions = mine.directions
    if isinstance(directions, SplitDirections):
        directions = directions.whole
    total = 0.0
    for pair in range(directions.pairs):
        read = mine.activations @ directions.inner[pair]
        total = total + mine.weights[:, pair, :, None] * (read @ directions.outer[pair])
    return total


def fit_maps(
    effects: Float[Tensor, "image token embed"],
    texts: Float[Tensor, "class embed"],
    sharpness: float = SHARPNESS,
) -> Float[Tensor, "image class patch"]:
    """How much each patch contributes, times how well it fits: ``‖v‖ · exp(s · cos(v, class))``.

    The plain inner product, which TextSpan takes, says nothing where the model is not sure what
    an object is; this keeps objects apart from the ground even then, and classes apart where it
    is sure. Token 0 is left out.
    """
    patches = effects[:, 1:]
    size = patches.norm(dim=-1, keepdim=True)
    cosine = patches @ F.normalize(texts, dim=-1).T / size.clamp_min(1e-12)
    return (size * (sharpness * cosine).exp()).mT


def follow_edges(
    tower: Tower,
    images: Float[Tensor, "image 3 height width"],
    maps: Float[Tensor, "image class row column"],
) -> Float[Tensor, "image class height width"]:
    """Maps of preprocessed images at full size, along the images' edges.

    The guided map times the root of the plain one: the first gives the edges, the second keeps
    what lies far from any evidence, but has the same colour, from lighting up. Maps that fall
    below zero are raised to it.
    """
    mean, std = (
        torch.tensor(value, device=maps.device)[:, None, None]
        for value in (tower.image_mean, tower.image_std)
    )
    maps = maps - maps.amin((-2, -1), keepdim=True).clamp_max(0)
    guided = guided_upsample(images.to(maps) * std + mean, maps, cells=_CELLS)
    return guided.clamp_min(0) * upsample(maps, images.shape[-2:]).sqrt()
