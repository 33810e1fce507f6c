"""Whether images differ at one place, whatever stands elsewhere.

A small object on a few images hardly moves their embeddings. What the neurons write from the place
where it stands moves a lot, and is much the same on all images that have it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.contributions import Contributions
from clipneurons.lens.token_contributions import effects_by_patch
from clipneurons.stats.two_sample import without_rounding

# Places a side: more cost without use.
_MOST = 8
# Numbers kept of a place: of larger embeddings, along as many random directions.
_FEATURES = 128


class PlaceReader:
    """What the units of all layers write from each place of images whose patches form a grid.

    Of embeddings of more than 128 numbers as many are kept, along random directions.
    """

    def __init__(self, grid: tuple[int, int], embed: int) -> None:
        self.grid = grid
        self._onto = _few_axes(embed) if embed > _FEATURES else None

    def __call__(
        self, contributions: Mapping[int, Contributions]
    ) -> Float[Tensor, "image place feature"]:
        """Effects by place, row by row; none where no layer's effects can be traced to places."""
        effects = effects_by_patch(contributions.values(), self._onto)
        if not effects.shape[1]:
            return effects
        return by_place(effects, self.grid).flatten(1, 2)


def _few_axes(embed: int) -> Float[Tensor, "embed feature"]:
    """Orthonormal directions, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(embed, _FEATURES, generator=generator))[0]


def by_place(
    effects: Float[Tensor, "image patch embed"], grid: tuple[int, int]
) -> Float[Tensor, "image row column embed"]:
    """What each part of the image contributes to the embedding, at most 8 × 8 parts."""
    maps = effects.unflatten(1, grid).permute(0, 3, 1, 2)
    size = tuple(min(side, _MOST) for side in grid)
    return F.adaptive_avg_pool2d(maps, size).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class PlaceTest:
    """How much images changed at the place where they changed most.

    Attributes:
        largest: by permutation, the change at that place, in standard deviations of what chance
            makes of it.
        along: how far each image lies along the true labelling's change.
    """

    largest: Float[Tensor, " permutation"]
    along: Float[Tensor, " image"]


def place_test(
    values: Float[Tensor, "image place feature"], labels: Float[Tensor, "permutation image"]
) -> PlaceTest:
    """Test every place for a change of the mean; without places nothing changes.

    What a place is apart from its mean counts by its direction. The change is measured by
    Hotelling's T², with a covariance that is shrunk half-way to a multiple of the identity.
    """
    largest = labels.new_full(labels.shape[:1], -torch.inf if values.shape[1] else 0.0)
    along = labels.new_zeros(len(values))
    for place in range(values.shape[1]):
        told = _whitened(values[:, place])
        moved = labels @ told
        size = moved.square().sum(1)
        score = (size - size.mean()) / size.std().clamp_min(1e-12)
        if score[0] > largest[0]:
            along = told @ moved[0]
        largest = torch.maximum(largest, score)
    return PlaceTest(largest, along)


def _whitened(values: Float[Tensor, "image feature"]) -> Float[Tensor, "image feature"]:
    """Directions from the mean, in coordinates in which all of them vary about as much."""
    values = without_rounding(values)
    told = F.normalize(values - values.mean(0), dim=1)
    told = told - told.mean(0)
    covariance = told.T @ told / len(told)
    ridge = covariance.diagonal().mean()
    if not ridge > 0:
        return torch.zeros_like(told)
    covariance.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(covariance)
    return torch.linalg.solve_triangular(factor, told.T, upper=False).T
