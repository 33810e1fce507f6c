"""MaskCLIP (Zhou, Loy, Dai, 2112.01071): the last block's values, without its attention."""

from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.baselines.dense import dense_maps


def maskclip(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Cosine of each patch with each class, every token keeping its own value (section 3.2)."""
    return dense_maps(clip, images, texts, mixing=None)
