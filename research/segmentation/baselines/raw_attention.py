"""Raw attention: what is attended to last, by the class token or the probe, for any class."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.second_order import pooling_attention
from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import ActivationCache, run_with_cache
from research.segmentation.baselines.baseline import Baseline, to_grid


def raw_attention(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Attention averaged over heads, of the last block's class token or of the tokens that are
    averaged; where a probe pools, the probe's. Same for all classes.
    """
    run = run_with_cache(clip, images)
    share = pooled_share(clip, run).to(run.start.dtype)
    if clip.anatomy.pooling.kind != "probe":
        share = (share[:, None] @ run.blocks[-1].attention.mean(1))[:, 0]
    return to_grid(clip, share[:, clip.prefix :])[:, None].repeat(1, len(texts), 1, 1)


def pooled_share(clip: ClipModel, run: ActivationCache) -> Float[Tensor, "image token"]:
    """How much of each final token is read: the class token, all alike, or a probe's attention."""
    tokens = run.blocks[-1].outputs
    shares = pooling_attention(clip.anatomy, tokens).mean(1)  # [image, query]
    return F.pad(shares, (0, tokens.shape[1] - shares.shape[1]))


BASELINE = Baseline("raw attention", vit=raw_attention, reads_text=False)
