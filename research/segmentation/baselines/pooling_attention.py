"""Attention of a ResNet's pooling: each position's exact share of the similarity with a class."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import additive_maps
from research.segmentation.baselines.baseline import Baseline


@torch.no_grad()
def pooling_attention(
    lens: Lens,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """What a position says times the pooling's attention to it, head by head.

    The images must be of the size that the model was made for.
    """
    _, contributions = lens(images)
    return additive_maps(contributions, texts)[..., 1:].unflatten(-1, lens.clip.grid)


BASELINE = Baseline("attention", resnet=pooling_attention)
