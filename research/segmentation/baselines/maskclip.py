"""MaskCLIP (Zhou, Loy, Dai, 2112.01071): the last block's values, without its attention."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.neuron_head_pairs import last_stage, position_values
from research.segmentation.baselines.baseline import Baseline
from research.segmentation.baselines.dense import dense_maps


def maskclip(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Cosine of each patch with each class, every token keeping its own value (section 3.2)."""
    return dense_maps(clip, images, texts, mixing=None)


def maskclip_resnet(
    lens: Lens,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """The same of a ResNet: each position of the last stage keeps its own value."""
    stage = last_stage(lens.clip, images)
    values = F.normalize(position_values(lens.method, stage), dim=-1)
    return (values @ texts.T).mT.unflatten(-1, stage.shape[2:])


BASELINE = Baseline("MaskCLIP", vit=maskclip, resnet=maskclip_resnet)
