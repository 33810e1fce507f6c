"""Patch features of the last block in the joint space, as training-free segmenters read them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import embed_patches
from research.segmentation.baselines.baseline import read_out, to_grid

Mixing = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def dense_maps(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    mixing: Mixing | None,
    keep_residual: bool = True,
) -> Float[Tensor, "image class row column"]:
    """Cosine of each patch with each class, with the last block's attention replaced.

    ``mixing(queries, keys)``, both ``[image, head, token, rank]``, gives the attention that
    takes its place; None lets every token keep its own value. Without ``keep_residual`` the
    block's skip connection and MLP are dropped too.
    """
    if clip.kind != "vit":
        raise ValueError(f"this baseline reads a ViT's attention, {clip.name} is a {clip.kind}")
    *earlier, last = clip.anatomy.blocks
    tokens = embed_patches(clip, images)
    for block in earlier:
        tokens = block.run(tokens)
    attend, normed = last.attention, tokens if last.norm is None else last.norm(tokens)
    mixed = attend.split(attend.value(normed))
    if mixing is not None:
        mixed = mixing(*attend.queries_keys(normed)) @ mixed
    out = attend(mixed.transpose(1, 2).flatten(2))
    if keep_residual:
        out = out + tokens
        out = out + last.mlp(last.mlp.activations(out))
    features = F.normalize(read_out(clip, out[:, clip.prefix :]).float(), dim=-1)
    return to_grid(clip, (features @ texts.T).mT)


def self_attention(tokens: Float[Tensor, "image head token rank"]) -> Tensor:
    """Softmax of the tokens' scaled inner products with each other."""
    return torch.softmax(tokens @ tokens.mT / tokens.shape[-1] ** 0.5, dim=-1)
