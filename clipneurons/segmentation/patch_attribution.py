"""Patch attribution: where in the image the model finds what a text says.

    map_c(i) = ‖v_i‖^p · exp(s · cos(v_i, t_c))

    v_i [D]   what patch i contributes to the embedding (`token_effects_of`); Σ_i v_i is the
              embedding without its biases and the tokens of no place
    t_c [D]   embedding of class c
    p, s      how much a patch's size counts, and how sharp the fit is

TextSpan takes the plain inner product ⟨v_i, t_c⟩ (arXiv 2310.05916), which fades where the model
is not sure what an object is. The sizes keep objects apart from the ground even there, and the
fit keeps classes apart where the model is sure. Maps then follow the image's
edges (`follow_edges`).
"""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.token_contributions import token_effects_of
from clipneurons.models.clip import ClipModel
from clipneurons.segmentation.edges import follow_edges

# Chosen on scenes of the validation style and on photographs that are for choosing.
POWER, SHARPNESS = 0.5, 5.0

# From preprocessed images and unit rows of texts to maps [image, class, row, column].
MapMaker = Callable[[Tensor, Tensor], Tensor]


def patch_attribution(clip: ClipModel, edges: bool = True) -> MapMaker:
    """The map maker of a model. What depends on the weights alone is computed once.

    With ``edges`` maps have the size of the images, else that of the patch grid.
    """
    effects = token_effects_of(clip)
    if not edges:
        return partial(patch_maps, clip, effects)

    def maps(
        images: Float[Tensor, "image 3 height width"], texts: Float[Tensor, "class embed"]
    ) -> Float[Tensor, "image class height width"]:
        return follow_edges(clip, images, patch_maps(clip, effects, images, texts))

    return maps


def patch_maps(
    clip: ClipModel,
    effects: Callable[[Tensor], Float[Tensor, "image token embed"]],
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    power: float = POWER,
    sharpness: float = SHARPNESS,
) -> Float[Tensor, "image class row column"]:
    """The equation above on the patch grid; ``effects`` as `token_effects_of` makes them."""
    patches = effects(images)[:, clip.prefix :]  # [image, patch, embed]
    return fit_maps(patches, texts, sharpness, power).unflatten(-1, clip.grid)


def fit_maps(
    patches: Float[Tensor, "image patch embed"],
    texts: Float[Tensor, "class embed"],
    sharpness: float = SHARPNESS,
    power: float = POWER,
) -> Float[Tensor, "image class patch"]:
    """``‖v‖^p · exp(s · cos(v, class))`` of each patch and class."""
    size = patches.norm(dim=-1, keepdim=True)
    cosine = patches @ F.normalize(texts, dim=-1).T / size.clamp_min(1e-12)
    return (size**power * (sharpness * cosine).exp()).mT
