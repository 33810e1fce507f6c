"""Whether images differ at one place, or in something that stands anywhere.

A small object on a few images hardly changes their embeddings. The units' effects from the place
where it stands change a lot, and are much the same on all images that have it.

With v_is the effects of image i at place s, and w the labels of `stats.two_sample` (1):

    places    u_is = unit vector of v_is - mean_i v_is;  T²_s = Δᵀ C⁻¹ Δ,  Δ = Σ_i w_i u_is     (1)
              statistic: max_s (T²_s - mean) / sd over permutations
    objects   d_ib = unit vector of the mean of v_is - mean_i v_is over the places s of window b,
              a_ik = max_b ⟨d_ib, c_k⟩,  c_k some of the d_ib of both samples                   (2)
              statistic: max_k |z_k|, z (3) of the columns of a

(1) sees what changes at a fixed place, such as a watermark; C is the covariance of u_s, shrunk
half-way to a multiple of the identity (Hotelling). (2) sees what appears anywhere: a_ik is how
similar the most similar window of image i is to prototype k.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.contributions import Contributions
from clipneurons.lens.token_contributions import effects_by_patch
from clipneurons.stats.two_sample import unit_tests, without_rounding

# Places a side: more cost without use.
_MOST = 8
# Numbers kept of a place: of larger embeddings, along as many random directions.
_FEATURES = 128
# Of objects: prototypes, a window's share of the grid's side, and images compared at once.
_PROTOTYPES, _WINDOW, _BATCH = 1024, 1 / 3, 128


class PlaceReader:
    """Effects of all layers' units from each place of images whose patches form a grid.

    Of embeddings of more than 128 numbers as many are kept, along random directions.
    """

    def __init__(self, grid: tuple[int, int], embed: int) -> None:
        self.grid = grid
        self._onto = _few_axes(embed) if embed > _FEATURES else None

    def __call__(
        self, contributions: Mapping[int, Contributions]
    ) -> Float[Tensor, "image row column feature"]:
        """Effects by place; no places where no layer's effects can be traced to them."""
        effects = effects_by_patch(contributions.values(), self._onto)
        if not effects.shape[1]:
            return effects[:, None]
        return by_place(effects, self.grid)


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
    """A change at one place, or of an object that stands anywhere.

    Attributes:
        statistic: by permutation; equal for all where there are no places.
        along: how far each image lies along the true labelling's change.
    """

    statistic: Float[Tensor, " permutation"]
    along: Float[Tensor, " image"]


def place_test(
    values: Float[Tensor, "image row column feature"], labels: Float[Tensor, "permutation image"]
) -> PlaceTest:
    """Test every place for a change (1)."""
    values = values.flatten(1, 2)
    largest = labels.new_full(labels.shape[:1], -torch.inf if values.shape[1] else 0.0)
    along = labels.new_zeros(len(values))
    for place in range(values.shape[1]):
        whitened = _whitened(values[:, place])
        change = labels @ whitened  # [permutation, feature]
        size = change.square().sum(1)
        score = (size - size.mean()) / size.std().clamp_min(1e-12)
        if score[0] > largest[0]:
            along = whitened @ change[0]
        largest = torch.maximum(largest, score)
    return PlaceTest(largest, along)


def object_test(
    values: Float[Tensor, "image row column feature"],
    labels: Float[Tensor, "permutation image"],
    prototypes: int = _PROTOTYPES,
    seed: int = 0,
) -> PlaceTest:
    """Test whether something stands on more of the images, wherever it stands (2)."""
    if not values.numel():
        return PlaceTest(labels.new_zeros(len(labels)), labels.new_zeros(len(values)))
    windows = _windows(values)
    flat = windows.flatten(0, 1)
    generator = torch.Generator().manual_seed(seed)
    chosen = flat[torch.randperm(len(flat), generator=generator)[:prototypes]]
    similarity = torch.cat(
        [(batch @ chosen.T).amax(1) for batch in windows.split(_BATCH)]
    )  # [image, prototype]
    tests = unit_tests(without_rounding(similarity), labels)
    strongest = tests.score.abs().argmax()
    return PlaceTest(tests.peak, similarity[:, strongest] * tests.score[strongest].sign())


def _windows(
    values: Float[Tensor, "image row column feature"],
) -> Float[Tensor, "image window feature"]:
    """Directions of the mean effects of all windows of a third of the grid's sides."""
    centred = without_rounding(values.flatten(1)).view_as(values)
    centred = centred - centred.mean(0)
    size = [ceil(side * _WINDOW) for side in values.shape[1:3]]
    means = F.avg_pool2d(centred.permute(0, 3, 1, 2), size, stride=1)
    return F.normalize(means.flatten(2).transpose(1, 2), dim=2)


def _whitened(values: Float[Tensor, "image feature"]) -> Float[Tensor, "image feature"]:
    """Directions from the mean, in coordinates in which all of them vary about as much."""
    values = without_rounding(values)
    directions = F.normalize(values - values.mean(0), dim=1)
    directions = directions - directions.mean(0)
    covariance = directions.T @ directions / len(directions)
    ridge = covariance.diagonal().mean()
    if not ridge > 0:
        return torch.zeros_like(directions)
    covariance.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(covariance)
    return torch.linalg.solve_triangular(factor, directions.T, upper=False).T
