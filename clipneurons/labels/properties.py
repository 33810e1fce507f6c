"""Properties of units that need no label: what their top images have in common.

Image embeddings here are the judge's, centred on the mean image and of norm 1: images that have
nothing in common have similarity 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def top_weights(effects: Float[Tensor, "image unit"], count: int) -> Float[Tensor, "image unit"]:
    """The positive effects on each unit's `count` strongest images, 0 on the others."""
    value, place = effects.topk(min(count, len(effects)), dim=0)
    return torch.zeros_like(effects).scatter_(0, place, value.clamp_min(0))


def monosemanticity(
    weights: Float[Tensor, "image unit"], embeddings: Float[Tensor, "image embed"]
) -> Float[Tensor, " unit"]:
    """Mean similarity of pairs of images, weighted by both effects (2504.02821).

    Σ_{i≠j} a_i a_j ⟨x_i, x_j⟩ / Σ_{i≠j} a_i a_j through the norm of Σ_i a_i x_i; 0 for a unit with
    fewer than two images.
    """
    squares = (weights**2 * embeddings.square().sum(1)[:, None]).sum(0)
    pairs = weights.sum(0) ** 2 - (weights**2).sum(0)
    total = (weights.T @ embeddings).square().sum(1) - squares
    enough = (weights > 0).sum(0) > 1
    return torch.where(enough, total / pairs.clamp_min(1e-30), 0.0)
