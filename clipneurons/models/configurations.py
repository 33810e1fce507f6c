"""open_clip's configurations by name: is the image tower one that is read, before any weights."""

import open_clip
import torch
from open_clip.model import _build_vision_tower
from open_clip.modified_resnet import ModifiedResNet

from clipneurons.models.adapters.common import Refused
from clipneurons.models.adapters.registry import anatomy_of
from clipneurons.models.anatomy import Anatomy


def anatomy_of_configuration(name: str) -> Anatomy | None:
    """The anatomy of a named image tower, without memory for its weights; None for a ResNet.

    Raises:
        Refused: a tower that is not read; the message says why.
    """
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        try:
            visual = _build_vision_tower(
                config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)
            )
        except RuntimeError as error:  # timm lists what it cannot make on every installation
            raise Refused(f"timm cannot make its image tower ({error})") from None
        return None if isinstance(visual, ModifiedResNet) else anatomy_of(visual)
