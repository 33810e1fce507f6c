"""What labels are written from and tested on, and what a layer's units share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.stats.centring import without_shared

# Scale of the softmax over texts: CLIP-Dissect's.
SCALE = 10.0
# Fewer images leave nothing to write on and to test on.
LEAST_IMAGES = 100


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
    """Two parts that share no image, drawn at random; the first has this share of the images.

    Raises:
        ValueError: fewer than 100 images.
    """
    count = len(recordings)
    if count < LEAST_IMAGES:
        raise ValueError(
            f"labels cannot be tested on {count} images: they are written on some and tested on"
            f" others; at least {LEAST_IMAGES} are needed, thousands are better"
        )
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
        standard = (effects - mean) / spread
        # The smaller of the two Gram matrices has the same eigenvalues.
        images, units = standard.shape
        if units <= images:
            values, vectors = torch.linalg.eigh(standard.T @ standard)
        else:
            values, rows = torch.linalg.eigh(standard @ standard.T)
            vectors = normalize(standard.T @ rows, dim=0)
        first = slice(len(values) - count, None)
        share = values[first] / values.clamp_min(0).sum().clamp_min(1e-30)
        return cls(mean, spread, vectors[:, first].flip(1), share.flip(0))

    def scores(self, effects: Float[Tensor, "image unit"]) -> Float[Tensor, "image component"]:
        """How strong each component is on each image."""
        return (effects - self.mean) / self.spread @ self.loadings

    def specific(self, effects: Float[Tensor, "image unit"]) -> Float[Tensor, "image unit"]:
        """Standardised effects without the components: what is specific to each unit."""
        standard = (effects - self.mean) / self.spread
        return standard - standard @ self.loadings @ self.loadings.T
