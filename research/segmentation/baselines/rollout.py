"""Attention rollout (Abnar and Zuidema, 2005.00928): attention followed through all blocks."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import run_with_cache
from research.segmentation.baselines.baseline import LAST_BLOCKS, Baseline, last_blocks, to_grid
from research.segmentation.baselines.raw_attention import pooled_share


def rollout_matrix(
    attention: list[Float[Tensor, "image token token"]],
) -> Float[Tensor, "image token token"]:
    """Product over blocks of ``(attention + identity) / 2``, each row still summing to 1."""
    identity = torch.eye(attention[0].shape[-1], device=attention[0].device)
    joint = identity.expand_as(attention[0])
    for matrix in attention:
        joint = (matrix + identity) / 2 @ joint
    return joint


def rollout(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    last: float = 1.0,
) -> Float[Tensor, "image class row column"]:
    """Share of each patch in what is pooled after the last block; same for all classes.

    ``last``: the share of blocks that are followed, from the last.
    """
    run = run_with_cache(clip, images)
    blocks = run.blocks[-last_blocks(clip, last) :]
    joint = rollout_matrix([block.attention.float().mean(1) for block in blocks])
    shares = (pooled_share(clip, run)[:, None] @ joint)[:, 0]
    return to_grid(clip, shares[:, clip.prefix :])[:, None].repeat(1, len(texts), 1, 1)


BASELINE = Baseline("rollout", vit=rollout, settings=LAST_BLOCKS, reads_text=False)
