"""Raw attention: what is attended to last, by the class token or the probe, for any class."""

from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import pooled_share, run_with_cache, to_grid


def raw_attention(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Attention averaged over heads, of the last block's class token or of the tokens that are
    averaged; where a probe pools, the probe's. Same for all classes.
    """
    run = run_with_cache(clip, images)
    share = pooled_share(clip, run)
    if clip.anatomy.pooling.kind != "probe":
        share = (share[:, None] @ run.blocks[-1].attention.mean(1))[:, 0]
    return to_grid(clip, share[:, clip.prefix :])[:, None].repeat(1, len(texts), 1, 1)
