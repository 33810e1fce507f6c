"""LeGrad (Bousselham et al., 2404.03214): how the class score answers to each attention."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import run_with_cache
from research.segmentation.baselines.baseline import (
    LAST_BLOCKS,
    Baseline,
    class_gradients,
    last_blocks,
    read_out,
    similarities,
    to_grid,
)


def legrad(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    last: float = 1.0,
) -> Float[Tensor, "image class row column"]:
    """Positive gradients of each block's class score by its attention map (equations 5 to 9).

    The score of a block is the cosine of its class token, read out as if it were the last,
    with the class; gradients are averaged over heads and queries, then over the
    ``last`` share of the blocks.
    """
    run = run_with_cache(clip, images, gradients=True)
    blocks = run.blocks[-last_blocks(clip, last) :]
    with torch.enable_grad():
        scores = [similarities(read_out(clip, block.outputs[:, 0]), texts) for block in blocks]
    maps = []
    for index in range(len(texts)):
        total = 0.0
        for block, score in zip(blocks, scores, strict=True):
            (gradient,) = class_gradients(score[:, index], [block.attention])
            total = total + gradient.clamp_min(0).mean((1, 2))[:, clip.prefix :]
        maps.append(total / len(blocks))
    return to_grid(clip, torch.stack(maps, 1))


BASELINE = Baseline("LeGrad", vit=legrad, settings=LAST_BLOCKS, class_token=True)
