"""Local concepts: what the neurons say at a place in the image, in the bundle's own phrases."""

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
    """A unit and how strongly it speaks along its direction at the place."""

    layer: int
    unit: int
    strength: float


@dataclass(frozen=True)
class PatchConcepts:
    """Phrases with their weights, and the units behind them, strongest first."""

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
    """What the neurons of the first image say at some patches and not in the rest of it.

    A unit's strength is the projection on its direction of its effect from these patches, less
    that from the average patches; a phrase weighs the sum of strength times coefficient.
    """
    weights = torch.zeros(len(bundle.texts))
    units = []
    for layer, mine in contributions.items():
        if not isinstance(mine, SpatialContributions):
            continue
        arrays = bundle.layers[layer]
        strength = _strength(mine, patches, arrays.directions.to(mine.weights)).cpu()
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
    mine: Contributions, patches: Sequence[int], directions: Float[Tensor, "unit embed"]
) -> Float[Tensor, " unit"]:
    every = range(mine.activations.shape[1] - mine.prefix)
    here, everywhere = at_patches(mine, patches), at_patches(mine, every)
    scores = here.scores - everywhere.scores * (len(patches) / len(every))
    return ScoredContributions(scores, here.directions).project(directions)[0]
