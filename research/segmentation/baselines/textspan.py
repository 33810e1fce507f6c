"""TextSpan's token decomposition (Gandelsman, Efros, Steinhardt, 2310.05916, section 5)."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations
from research.segmentation.baselines.baseline import LAST_BLOCKS, Baseline, last_blocks, to_grid


@torch.no_grad()
def textspan(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    last: float = 1.0,
) -> Float[Tensor, "image class row column"]:
    """What all heads write from each patch to what is pooled, along each class.

    ``last``: the share of layers that is used, from the last. The published evaluation uses the
    last four, subtracts the mean over all classes, which is to pass ``texts`` centred on the
    other classes, and clips below zero, as is done here.
    """
    lens = FirstOrderLens(clip)
    with record_activations(clip.visual, lens.recorded) as tensors:
        clip.encode_image(images)
    layers = range(clip.layers - last_blocks(clip, last), clip.layers)
    scores = lens.token_scores(tensors, texts, layers)[:, clip.prefix :]
    return to_grid(clip, scores.mT.clamp_min(0))


BASELINE = Baseline("TextSpan", vit=textspan, settings=LAST_BLOCKS, contrast=True)
