"""A model for images of other sizes than it was trained on."""

import math
from copy import deepcopy
from dataclasses import replace

import torch
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from clipneurons.models.clip import ClipModel, with_visual
from clipneurons.models.transformers_clip import TransformersVision


@torch.no_grad()
def enlarge(clip: ClipModel, factor: float) -> ClipModel:
    """The model for larger images: the same weights, positional embeddings stretched to the grid.

    ``factor`` is that of the image's sides, rounded to whole patches or positions. The image
    model is copied. Raises `ValueError` where less than one patch would be left, or the factor is
    no finite number.
    """
    if not math.isfinite(factor):
        raise ValueError(f"factor must be a finite number, not {factor}")
    old = clip.grid
    new = tuple(round(side * factor) for side in old)
    if min(new) < 1:
        raise ValueError(f"a grid of {old} times {factor} leaves no patch")
    if new == old:
        return clip
    visual = deepcopy(clip.visual)
    size = tuple(side // o * n for side, o, n in zip(clip.image_size, old, new, strict=True))
    if isinstance(visual, TimmModel):
        visual.trunk.set_input_size(img_size=size)
    elif not isinstance(visual, TransformersVision):  # which stretches them as it reads
        holder = visual if clip.kind == "vit" else visual.attnpool
        table = holder.positional_embedding  # the class token or the mean first, then rows
        places = stretch_positions(table[1:].float(), old, new).to(table)
        stretched = torch.cat([table[:1], places])
        holder.positional_embedding = nn.Parameter(stretched, requires_grad=False)
        if clip.kind == "vit":
            visual.grid_size = new
    visual.image_size = size
    config = replace(PreprocessCfg(**visual.preprocess_cfg), size=visual.image_size)
    return replace(
        with_visual(clip, visual),
        image_size=visual.image_size,
        preprocess=image_transform_v2(config, is_train=False),
    )


def stretch_positions(
    table: Float[Tensor, "position width"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "stretched width"]:
    """Positional embeddings of one grid for another, as open_clip stretches those of ViTs."""
    places = table.T.unflatten(-1, old)[None]
    stretched = nn.functional.interpolate(places, new, mode="bicubic", antialias=True)
    return stretched[0].flatten(1).T
