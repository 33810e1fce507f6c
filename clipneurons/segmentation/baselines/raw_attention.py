"""Raw attention: what the class token of the last block attends to, whatever the class."""

from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import run_with_cache, to_grid


def raw_attention(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Attention of the last block's class token, averaged over heads; same for all classes."""
    attention = run_with_cache(clip, images).blocks[-1].attention[:, :, 0, 1:].mean(1)
    return to_grid(clip, attention)[:, None].repeat(1, len(texts), 1, 1)
