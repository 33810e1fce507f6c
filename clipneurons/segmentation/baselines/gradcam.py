"""GradCAM (Selvaraju et al., 1610.02391) on the attention of the last block.

As Chefer et al. (2012.09838) adapt it to a ViT: the class token's attention to the patches takes
the place of the feature maps, heads that of the channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import class_gradients, run_with_cache, similarities, to_grid
from clipneurons.segmentation.baselines.checks import check_method


def gradcam(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """``ReLU(mean over heads of attention · (gradient averaged over patches))``."""
    run = run_with_cache(clip, images, gradients=True)
    check_method("GradCAM", clip)
    attention = run.blocks[-1].attention
    scores = similarities(run.embedding, texts)
    maps = []
    for score in scores.unbind(1):
        (gradient,) = class_gradients(score, [attention])
        weights = gradient[:, :, 0, clip.prefix :].mean(-1, keepdim=True)
        maps.append((attention[:, :, 0, clip.prefix :] * weights).mean(1).clamp_min(0))
    return to_grid(clip, torch.stack(maps, 1).detach())
