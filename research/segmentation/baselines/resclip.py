"""Half of ResCLIP (Yang, Deng, Li, Duan, 2411.15851): residual cross-correlation attention (RCS).

The other half, semantic feedback refinement (SFR), feeds the first map back into the attention. It
is not implemented.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import run_with_cache
from research.segmentation.baselines.baseline import Baseline
from research.segmentation.baselines.dense import dense_maps
from research.segmentation.baselines.naclip import near_attention, neighbourhood

# As published for PASCAL Context; layers 6 to 9 of a ViT-B's 12, counted from 1.
FACTOR, EARLIER = 2.0, 0.3
_LAYERS = (5 / 12, 9 / 12)


def resclip(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    factor: float = FACTOR,
    earlier: float = EARLIER,
) -> Float[Tensor, "image class row column"]:
    """Cosine of each patch with each class, the mean attention of middle blocks mixed into the
    last one's (section 3, "RCS")."""
    near = neighbourhood(clip).to(clip.device)
    blocks = run_with_cache(clip, images).blocks
    first, end = (round(share * len(blocks)) for share in _LAYERS)
    middle = torch.stack([block.attention for block in blocks[first:end]]).mean(0)

    def mixing(_: Tensor, keys: Tensor) -> Tensor:
        own = near_attention(keys, near)
        return factor * ((1 - earlier) * own + earlier * middle.to(own))

    return dense_maps(clip, images, texts, mixing, keep_residual=False)


BASELINE = Baseline(
    "ResCLIP (RCS half)",
    vit=resclip,
    settings={"factor": (1.0, FACTOR), "earlier": (0.1, EARLIER, 0.5)},
)
