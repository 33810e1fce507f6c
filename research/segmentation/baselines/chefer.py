"""Transformer attribution (Chefer, Gur, Wolf, 2012.09838): gradients times relevance, rolled out.

The attention relevance comes from :mod:`research.segmentation.baselines.lrp`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import run_with_cache
from research.segmentation.baselines.baseline import (
    Baseline,
    class_gradients,
    last_blocks,
    similarities,
    to_grid,
)
from research.segmentation.baselines.lrp import propagate


def chefer(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    last: float = 1.0,
) -> Float[Tensor, "image class row column"]:
    """``Π_b (1 + mean over heads of (∇A ⊙ R)⁺)`` at the class token's row (equations 13, 14).

    ``last``: the share of blocks in the product, from the last.
    """
    run = run_with_cache(clip, images, gradients=True)
    blocks = last_blocks(clip, last)
    attention = [block.attention for block in run.blocks[-blocks:]]
    scores = similarities(run.embedding, texts)
    maps = []
    for text, score in zip(texts, scores.unbind(1), strict=True):
        gradients = class_gradients(score, attention)
        relevance = propagate(clip, run, text, blocks).attention
        row = None  # the class token's row of the product, from the last block backwards
        for gradient, mine in zip(reversed(gradients), reversed(relevance), strict=True):
            step = (gradient * mine).clamp_min(0).mean(1)
            if row is None:
                row = torch.zeros_like(step[:, :1])
                row[..., 0] = 1
            row = row + row @ step
        maps.append(row[:, 0, clip.prefix :])
    return to_grid(clip, torch.stack(maps, 1).detach())


BASELINE = Baseline(
    "Chefer 2021", vit=chefer, settings={"last": (1 / 2, 1.0)}, class_token=True, plain_blocks=True
)
