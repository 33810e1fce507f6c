"""How well what each patch contributes fits a class, and its maps along the image's edges."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.guided_filter import guided_upsample
from clipneurons.segmentation.masks import upsample

# How much a patch's size counts beside its fit, and how sharp the fit is, in logits a unit of
# cosine; chosen on scenes of the validation style and on cut photographs that are for choosing.
POWER, SHARPNESS = 0.5, 5.0
# What may suit a data set better: sizes tell things from grounds, but nothing between two things.
CHOICES = {"power": (1.0, POWER, 0.0), "sharpness": (SHARPNESS, 14.0)}

# Points a patch and side at which the edges are fitted; likewise.
_CELLS = 2


def fit_maps(
    patches: Float[Tensor, "image patch embed"],
    texts: Float[Tensor, "class embed"],
    sharpness: float = SHARPNESS,
    power: float = POWER,
) -> Float[Tensor, "image class patch"]:
    """How much each patch contributes, and how well it fits: ``‖v‖^p · exp(s · cos(v, class))``.

    The plain inner product, which TextSpan takes, says nothing where the model is not sure what
    an object is; this keeps objects apart from the ground even then, and classes apart where it
    is sure.
    """
    size = patches.norm(dim=-1, keepdim=True)
    cosine = patches @ F.normalize(texts, dim=-1).T / size.clamp_min(1e-12)
    return (size**power * (sharpness * cosine).exp()).mT


def follow_edges(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    maps: Float[Tensor, "image class row column"],
) -> Float[Tensor, "image class height width"]:
    """Maps of preprocessed images at full size, along the images' edges.

    The guided map times the root of the plain one: the first gives the edges, the second keeps
    what lies far from any evidence, but has the same colour, from lighting up. Maps that fall
    below zero are raised to it.
    """
    mean, std = (
        torch.tensor(value, device=maps.device)[:, None, None]
        for value in (clip.image_mean, clip.image_std)
    )
    maps = maps - maps.amin((-2, -1), keepdim=True).clamp_max(0)
    guided = guided_upsample(images.to(maps) * std + mean, maps, cells=_CELLS)
    return guided.clamp_min(0) * upsample(maps, images.shape[-2:]).sqrt()
