"""The adapter that belongs to an image tower."""

from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from clipneurons.models.adapters.common import Refused
from clipneurons.models.adapters.open_clip_vit import open_clip_vit
from clipneurons.models.adapters.timm_vit import timm_vit
from clipneurons.models.adapters.transformers_vit import transformers_vit
from clipneurons.models.anatomy import Anatomy
from clipneurons.models.transformers_clip import TransformersVision


def anatomy_of(visual: nn.Module) -> Anatomy:
    """The anatomy of an image tower.

    Raises:
        Refused: a tower that would be read wrongly; the message says why, not of which model.
    """
    if isinstance(visual, VisionTransformer):
        return open_clip_vit(visual)
    if isinstance(visual, TimmModel):
        return timm_vit(visual)
    if isinstance(visual, TransformersVision):
        return transformers_vit(visual)
    raise Refused(f"its image tower is a {type(visual).__name__}, no ViT or ModifiedResNet")
