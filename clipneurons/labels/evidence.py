"""What labels are written from and tested on, and what a layer's units share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clipneurons.stats.centring import without_shared

# Scale of the softmax over texts: CLIP-Dissect's.
SCALE = 10.0
# More directions than are asked for, and steps, of the randomised singular value decomposition.
_MORE, _ITERATIONS = 8, 6


@dataclass(frozen=True, eq=False)
class Recordings:
    """One image a row: what the model did and what a judge saw, for all units and texts.

    effects      ⟨φ_n(I) − b_n, r_n⟩
    embeddings   unit rows, the model's embedding of each image
    scores       the judge's score of every text
    present      the judge's yes or no
    judged       image embeddings in the judge's space
    """

    effects: Float[Tensor, "image unit"]
    embeddings: Float[Tensor, "image embed"]
    scores: Float[Tensor, "image text"]
    present: Bool[Tensor, "image text"]
    judged: Float[Tensor, "image space"]

    def __len__(self) -> int:
        return len(self.effects)

    def rows(self, chosen: Tensor) -> Recordings:
        """Some of the images."""
        parts = {name: getattr(self, name)[chosen] for name in self.__dataclass_fields__}
        return replace(self, **parts)


def split(recordings: Recordings, share: float, seed: int = 0) -> tuple[Recordings, Recordings]:
    """Two parts that share no image, drawn at random; the first has this share of the images."""
    count = len(recordings)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first = round(share * count)
    parts = order[:first], order[first:]
    return recordings.rows(parts[0].sort().values), recordings.rows(parts[1].sort().values)


def zero_shot(
    images: Float[Tensor, "image embed"], texts: Float[Tensor, "text embed"]
) -> Float[Tensor, "image text"]:
    """The model's own softmax over the texts, without what all images and all texts share."""
    return (SCALE * without_shared(images) @ without_shared(texts).T).softmax(1)


@dataclass(frozen=True, eq=False)
class SharedComponents:
    """The first principal components of a layer's standardised effects: what its units share.

    A label says what is specific to its unit. Where one component holds half of the variance of
    all units, as in a late layer, the texts that predict it would be the label of every unit.

    mean, spread   of each unit's effect
    loadings       orthonormal columns
    variance       share of the variance that each component holds
    """

    mean: Float[Tensor, " unit"]
    spread: Float[Tensor, " unit"]
    loadings: Float[Tensor, "unit component"]
    variance: Float[Tensor, " component"]

    @classmethod
    def of(cls, effects: Float[Tensor, "image unit"], count: int) -> SharedComponents:
        """The first `count` components of these effects."""
        mean, spread = effects.mean(0), effects.std(0)
        spread = torch.where(spread > 1e-6 * spread.max(), spread, torch.inf)
        if not count:
            empty = effects.new_zeros(effects.shape[1], 0)
            return cls(mean, spread, empty, effects.new_zeros(0))
        standard = (effects - mean) / spread
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            rank = min(count + _MORE, *standard.shape)
            _, values, vectors = torch.svd_lowrank(standard, q=rank, niter=_ITERATIONS)
        share = values[:count].square() / standard.square().sum().clamp_min(1e-30)
        return cls(mean, spread, vectors[:, :count], share)

    def scores(self, effects: Float[Tensor, "image unit"]) -> Float[Tensor, "image component"]:
        """How strong each component is on each image."""
        return (effects - self.mean) / self.spread @ self.loadings

    def specific(self, effects: Float[Tensor, "image unit"]) -> Float[Tensor, "image unit"]:
        """Standardised effects without the components: what is specific to each unit."""
        standard = (effects - self.mean) / self.spread
        return standard - standard @ self.loadings @ self.loadings.T
