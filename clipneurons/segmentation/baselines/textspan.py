"""TextSpan's token decomposition (Gandelsman, Efros, Steinhardt, 2310.05916, section 5)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations
from clipneurons.models.trace import to_grid


@torch.no_grad()
def textspan(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "image class row column"]:
    """What all heads write from each patch to what is pooled, along each class.

    The published evaluation uses all heads of its last four layers (``layers``, all by
    default), subtracts the mean over all classes, which is to pass ``texts`` centred on the
    other classes, and clips below zero, as is done here.
    """
    lens = FirstOrderLens(clip)
    with record_activations(clip.visual, lens.recorded) as tensors:
        clip.encode_image(images)
    scores = lens.token_scores(tensors, texts, layers)[:, clip.prefix :]
    return to_grid(clip, scores.mT.clamp_min(0))
