"""Partial LRP (Voita et al., 1905.09418): relevance of the last block's attention maps."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import Tower
from clipneurons.models.trace import to_grid, trace
from clipneurons.segmentation.baselines.lrp import propagate


def partial_lrp(
    tower: Tower,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Positive relevance of the class token's last attention, averaged over heads."""
    run = trace(tower, images)
    maps = [
        propagate(tower, run, text, blocks=1).attention[0][:, :, 0, 1:].clamp_min(0).mean(1)
        for text in texts
    ]
    return to_grid(tower, torch.stack(maps, 1))
