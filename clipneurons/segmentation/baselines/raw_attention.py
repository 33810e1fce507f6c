"""Raw attention: what the class token of the last block attends to, whatever the class."""

from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import Tower
from clipneurons.models.trace import to_grid, trace


def raw_attention(
    tower: Tower,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Attention of the last block's class token, averaged over heads; same for all classes."""
    attention = trace(tower, images).blocks[-1].attention[:, :, 0, 1:].mean(1)
    return to_grid(tower, attention)[:, None].repeat(1, len(texts), 1, 1)
