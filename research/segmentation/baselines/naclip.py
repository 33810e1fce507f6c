"""NACLIP (Hajimiri, Ben Ayed, Dolz, 2404.08181): key-key attention, drawn to neighbours."""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.clip import ClipModel
from research.segmentation.baselines.baseline import Baseline
from research.segmentation.baselines.dense import dense_maps

# Standard deviation of the neighbourhood, of the grid's side: 5 of the 14 patches of a ViT-B/16.
_REACH = 5 / 14


def naclip(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    reach: float = _REACH,
) -> Float[Tensor, "image class row column"]:
    """Cosine of each patch with each class, attention = softmax(kkᵀ/√d + ω), no residual, no MLP
    (section 3)."""
    near = neighbourhood(clip, reach).to(clip.device)
    return dense_maps(
        clip, images, texts, lambda _, keys: near_attention(keys, near), keep_residual=False
    )


def near_attention(
    keys: Float[Tensor, "image head token rank"], near: Float[Tensor, "token token"]
) -> Float[Tensor, "image head token token"]:
    """Softmax of the keys' scaled inner products plus what draws neighbours together."""
    return torch.softmax(keys @ keys.mT / keys.shape[-1] ** 0.5 + near.to(keys), dim=-1)


def neighbourhood(clip: ClipModel, reach: float = _REACH) -> Float[Tensor, "token token"]:
    """A Gaussian of the patches' distance, 1 at the patch itself; 0 for tokens of no place."""
    rows, columns = clip.grid
    y, x = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], 1)
    squares = (places[:, None] - places[None]).square().sum(-1)
    near = torch.exp(-squares / (2 * reach**2))
    return torch.nn.functional.pad(near, (clip.prefix, 0, clip.prefix, 0))


BASELINE = Baseline(
    "NACLIP", vit=naclip, settings={"reach": (1 / 14, 2.5 / 14, _REACH, 7 / 14, 10 / 14, 1.0)}
)
