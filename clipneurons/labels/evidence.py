"""What labels are written from: recordings of the model itself; the judge has no part in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.labels.simulation import Labels
from clipneurons.stats.centring import without_shared

# Phrases a label may have; the number is chosen per unit on images kept for it.
SIZES = (1, 2, 4, 8, 16, 32)
# Scale of the softmax over texts: CLIP-Dissect's.
SCALE = 10.0
# Directions in which image embeddings vary by less than this share of the largest are noise.
_RANK = 1e-3
# Texts this alike (cosine without what all texts share) say the same: "animal", "an animal".
_ALIKE = 0.85
# Texts compared with all others at once.
_TEXTS = 1024

Family = dict[int, Labels]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What labels are made from, on images that judge nothing later.

    directions   r_n, unit rows
    texts        unit rows, the pool's embeddings in the model's space
    embeddings   unit rows, the model's embedding of each image
    effects      ⟨φ_n(I) − b_n, r_n⟩ on these images
    """

    directions: Float[Tensor, "unit embed"]
    texts: Float[Tensor, "text embed"]
    embeddings: Float[Tensor, "image embed"]
    effects: Float[Tensor, "image unit"]

    @cached_property
    def probabilities(self) -> Float[Tensor, "image text"]:
        """The model's softmax over the texts on each image."""
        return (SCALE * self.embeddings @ self.texts.T).softmax(1)

    @cached_property
    def centred_images(self) -> Float[Tensor, "image embed"]:
        """Embeddings without what all images share, unit rows."""
        return normalize(self.embeddings - self.embeddings.mean(0), dim=1)

    @cached_property
    def centred_texts(self) -> Float[Tensor, "text embed"]:
        """Texts without what all of them share, unit rows."""
        return without_shared(self.texts)

    @cached_property
    def alike(self) -> Int[Tensor, "2 pair"]:
        """Pairs of texts that say the same, every text with itself among them."""
        return alike(self.centred_texts)

    @cached_property
    def root_covariance(self) -> tuple[Float[Tensor, "rank embed"], Float[Tensor, "rank image"]]:
        """B = C^½ of the centred embeddings X up to a constant, and U with X = Uᵀ B, U Uᵀ = 1."""
        u, s, vt = torch.linalg.svd(self.embeddings - self.embeddings.mean(0), full_matrices=False)
        kept = s > _RANK * s[0]
        return s[kept, None] * vt[kept], u[:, kept].T


def same(cosines: Float[Tensor, "*pair"]) -> Bool[Tensor, "*pair"]:
    """Whether texts with these cosines say the same."""
    return cosines > _ALIKE


def alike(texts: Float[Tensor, "text embed"]) -> Int[Tensor, "2 pair"]:
    """Pairs of unit rows that say the same; every row is a pair with itself."""
    pairs = []
    for start in range(0, len(texts), _TEXTS):
        found = same(texts[start : start + _TEXTS] @ texts.T)
        rows = torch.arange(start, start + len(found))
        found[rows - start, rows] = True  # also a row of zeros
        pairs.append(found.nonzero().T + torch.tensor([[start], [0]]))
    return torch.cat(pairs, dim=1)
