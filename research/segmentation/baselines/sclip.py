"""SCLIP (Wang, Mei, Yuille, 2312.01597): correlative self-attention in the last block."""

from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from research.segmentation.baselines.baseline import Baseline
from research.segmentation.baselines.dense import dense_maps, self_attention


def sclip(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Cosine of each patch with each class, attention = softmax(qqᵀ) + softmax(kkᵀ)."""
    return dense_maps(
        clip, images, texts, lambda queries, keys: self_attention(queries) + self_attention(keys)
    )


BASELINE = Baseline("SCLIP", vit=sclip)
