"""ClearCLIP (Lan et al., 2407.12442): no residual, no MLP, query-query attention at the end."""

from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from research.segmentation.baselines.baseline import Baseline
from research.segmentation.baselines.dense import dense_maps, self_attention


def clearclip(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Cosine of each patch with each class from the last attention's output alone (equation 6)."""
    return dense_maps(
        clip, images, texts, lambda queries, _: self_attention(queries), keep_residual=False
    )


BASELINE = Baseline("ClearCLIP", vit=clearclip)
