"""GradCAM (Selvaraju et al., 1610.02391): a ViT's last attention, a ResNet's last stage.

As Chefer et al. (2012.09838) adapt it to a ViT: the class token's attention to the patches takes
the place of the feature maps, heads that of the channels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import run_with_cache
from clipneurons.segmentation.neuron_head_pairs import last_stage
from research.segmentation.baselines.baseline import (
    Baseline,
    class_gradients,
    similarities,
    to_grid,
)


def gradcam(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """``ReLU(mean over heads of attention · (gradient averaged over patches))``."""
    run = run_with_cache(clip, images, gradients=True)
    attention = run.blocks[-1].attention
    scores = similarities(run.embedding, texts)
    maps = []
    for score in scores.unbind(1):
        (gradient,) = class_gradients(score, [attention])
        weights = gradient[:, :, 0, clip.prefix :].mean(-1, keepdim=True)
        maps.append((attention[:, :, 0, clip.prefix :] * weights).mean(1).clamp_min(0))
    return to_grid(clip, torch.stack(maps, 1).detach())


def gradcam_resnet(
    lens: Lens,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Gradients averaged over the positions of the last stage weigh its channels.

    The images must be of the size that the model was made for.
    """
    stage = last_stage(lens.clip, images)
    maps = []
    with torch.enable_grad():
        stage.requires_grad_()
        pooled = lens.clip.visual.attnpool(stage.to(lens.clip.dtype))
        embedded = F.normalize(pooled.float(), dim=-1)
        for text in texts:
            (gradient,) = torch.autograd.grad((embedded @ text).sum(), stage, retain_graph=True)
            weights = gradient.mean((2, 3), keepdim=True)
            maps.append((weights * stage).sum(1).clamp_min(0).detach())
    return torch.stack(maps, 1)


BASELINE = Baseline("GradCAM", vit=gradcam, resnet=gradcam_resnet, class_token=True)
