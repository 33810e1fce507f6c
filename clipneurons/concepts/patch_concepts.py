"""Concepts of some patches of an image, in the texts of the units' decompositions.

    s_n = ⟨Σ_{p ∈ P} φ_n^p(I) − |P| / |all| · Σ_p φ_n^p(I), r_n⟩
    w_j = Σ_n γ_j^n s_n

    P         the chosen patches
    φ_n^p(I)  part of unit n's effect on image I that comes from patch p
    r_n       its direction, decomposed as Σ_j γ_j^n t_j over the texts t_j

So a unit that acts the same everywhere counts for nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.lens.contributions import Contributions, ScoredContributions, SpatialContributions
from clipneurons.lens.token_contributions import at_patches


@dataclass(frozen=True)
class PatchUnit:
    """A unit and the projection s_n of its effect at the patches on its direction."""

    layer: int
    unit: int
    strength: float


@dataclass(frozen=True)
class PatchConcepts:
    """Texts with their weights w_j, and the units behind them, strongest first."""

    phrases: list[tuple[str, float]]
    units: list[PatchUnit]


def patch_at(point: tuple[int, int], size: tuple[int, int], grid: tuple[int, int]) -> int:
    """The patch that holds pixel ``(x, y)`` of an image of ``(width, height)`` pixels."""
    column, row = (
        min(max(at * cells // side, 0), cells - 1)
        for at, side, cells in zip(point, size, grid[::-1], strict=True)
    )
    return row * grid[1] + column


def patch_concepts(
    bundle: Bundle,
    contributions: Mapping[int, Contributions],
    patches: Sequence[int],
    count: int = 10,
) -> PatchConcepts:
    """The ``count`` texts of the largest weights at some patches of the first image.

    Layers without spatial tokens are left out.
    """
    weights = torch.zeros(len(bundle.texts))
    units = []
    for layer, effects in contributions.items():
        if not isinstance(effects, SpatialContributions):
            continue
        arrays = bundle.layers[layer]
        strength = _strength(effects, patches, arrays.directions.to(effects.weights)).cpu()
        weights.index_add_(
            0, arrays.indices.long().flatten(), (arrays.coefficients * strength[:, None]).flatten()
        )
        top = strength.abs().topk(min(count, len(strength))).indices.tolist()
        units += [PatchUnit(layer, unit, float(strength[unit])) for unit in top]
    order = weights.topk(min(count, len(weights))).indices.tolist()
    phrases = [(bundle.texts[i], float(weights[i])) for i in order if weights[i] > 0]
    units.sort(key=lambda unit: -abs(unit.strength))
    return PatchConcepts(phrases, units[:count])


def _strength(
    effects: SpatialContributions, patches: Sequence[int], directions: Float[Tensor, "unit embed"]
) -> Float[Tensor, " unit"]:
    all_patches = range(effects.activations.shape[1] - effects.prefix)
    here, everywhere = at_patches(effects, patches), at_patches(effects, all_patches)
    share = len(patches) / len(all_patches)
    scores = here.scores - share * everywhere.scores  # [image, unit, head]
    return ScoredContributions(scores, here.directions).project(directions)[0]
