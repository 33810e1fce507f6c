"""Properties of units that need no label: the text detected best, and how alike images are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# The share of images that counts as strongest.
TOP_SHARE = 0.02


# A judge that gives scores says yes to as many texts an image: a hundredth of the pool, but ...
_SHARE, _MOST = 0.01, 10


def listed(scores: Float[Tensor, "image text"]) -> Bool[Tensor, "image text"]:
    """Yes of a judge that only scores: the image's best texts, at most ten and 1 % of them."""
    count = scores.shape[1]
    best = scores.topk(min(_MOST, max(1, round(_SHARE * count)), count), dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)


@dataclass(frozen=True, eq=False)
class BestConcept:
    """The text that a unit detects best at its threshold, by intersection over union."""

    text: Int[Tensor, " unit"]
    iou: Float[Tensor, " unit"]


def best_concept(
    active: Bool[Tensor, "image unit"], present: Bool[Tensor, "image text"]
) -> BestConcept:
    """Network Dissection's concept of each unit: one product of what is active and what is there.

    A unit that is active nowhere has IoU 0.
    """
    both = active.float().T @ present.float()  # [unit, text]
    fired, shown = active.sum(0).float()[:, None], present.sum(0).float()[None]
    iou, text = (both / (fired + shown - both).clamp_min(1)).max(1)
    return BestConcept(text, iou)


def top_weights(effects: Float[Tensor, "image unit"], count: int) -> Float[Tensor, "image unit"]:
    """The positive effects on each unit's `count` strongest images, 0 on the others."""
    value, place = effects.topk(min(count, len(effects)), dim=0)
    return torch.zeros_like(effects).scatter_(0, place, value.clamp_min(0))


def monosemanticity(
    weights: Float[Tensor, "image unit"], embeddings: Float[Tensor, "image embed"]
) -> Float[Tensor, " unit"]:
    """Mean similarity of pairs of images, weighted by both effects (2504.02821).

    Σ_{i≠j} a_i a_j ⟨x_i, x_j⟩ / Σ_{i≠j} a_i a_j through the norm of Σ_i a_i x_i; 0 for a unit with
    fewer than two images. `embeddings` are centred unit rows, so that images that have nothing in
    common have similarity 0.
    """
    squares = (weights**2 * embeddings.square().sum(1)[:, None]).sum(0)
    pairs = weights.sum(0) ** 2 - (weights**2).sum(0)
    total = (weights.T @ embeddings).square().sum(1) - squares
    enough = (weights > 0).sum(0) > 1
    return torch.where(enough, total / pairs.clamp_min(1e-30), 0.0)
