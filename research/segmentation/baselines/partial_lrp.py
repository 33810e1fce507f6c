"""Partial LRP (Voita et al., 1905.09418): relevance of the last block's attention maps."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import run_with_cache
from research.segmentation.baselines.baseline import Baseline, to_grid
from research.segmentation.baselines.lrp import propagate


def partial_lrp(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Positive relevance of the class token's last attention, averaged over heads."""
    run = run_with_cache(clip, images)
    maps = [
        propagate(clip, run, text, blocks=1)
        .attention[0][:, :, 0, clip.prefix :]
        .clamp_min(0)
        .mean(1)
        for text in texts
    ]
    return to_grid(clip, torch.stack(maps, 1))


BASELINE = Baseline("Partial-LRP", vit=partial_lrp, class_token=True, plain_blocks=True)
