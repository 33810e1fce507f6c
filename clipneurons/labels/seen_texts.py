"""Labels of texts that the model sees in the images on which a unit is strong or weak.

A text counts by how its zero-shot probability goes along with the effect over the images, and by
how much it varies: a phrase that no image shows explains nothing. What an alike phrase has said
already ("animal", "an animal") is taken off, so that the places of a label go to different things.
Each text stands for itself: in a joint fit the model's misreadings of single texts, which share
directions with the effects, outweigh what the images show.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.labels.evidence import SIZES, Evidence, Family, same
from clipneurons.labels.simulation import Labels, standardised

# Texts of largest weight that a label is chosen from, and units written at once.
SCREENED, _UNITS = 160, 256


@dataclass(frozen=True)
class Reading:
    """How the model is asked what an image shows: a softmax over the texts.

    scale    of the softmax: a small one spreads over many texts, a large one names the likeliest
    centred  without what all images, and all texts, share
    pooled   the probability of a text includes that of the texts that say the same
    """

    scale: float
    centred: bool = False
    pooled: bool = False

    def __call__(self, evidence: Evidence) -> Float[Tensor, "image text"]:
        """The probability of every text on every image."""
        images, texts = evidence.embeddings, evidence.texts
        if self.centred:
            images, texts = evidence.centred_images, evidence.centred_texts
        given = (self.scale * images @ texts.T).softmax(1)
        if not self.pooled:
            return given
        pairs, count = evidence.alike, len(texts)
        ones = given.new_ones(pairs.shape[1])
        together = torch.sparse_coo_tensor(pairs, ones, (count, count), check_invariants=True)
        return torch.sparse.mm(together, given.T).T


def seen_texts(evidence: Evidence, reading: Reading) -> Family:
    """Texts one after the other by |correlation with the effect| · √spread of the probability.

    After each, its correlation is subtracted from those of the texts that say the same. The weight
    of a text is its remaining correlation times √spread.
    """
    given = reading(evidence)
    spread, standard = given.std(0).sqrt(), standardised(given)
    parts = [
        _distinct((some.T @ standard) * spread, spread, evidence.centred_texts)
        for some in standardised(evidence.effects).split(_UNITS, dim=1)
    ]
    indices, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    return {m: Labels(indices[:, :m], weights[:, :m]) for m in SIZES if m <= indices.shape[1]}


def _distinct(
    weights: Float[Tensor, "unit text"],
    spread: Float[Tensor, " text"],
    texts: Float[Tensor, "text embed"],
) -> tuple[Int[Tensor, "unit phrase"], Float[Tensor, "unit phrase"]]:
    """Texts of largest weight, where what an alike text has said already is taken off."""
    places = weights.abs().topk(min(SCREENED, len(texts)), dim=1).indices
    left, scale, rows = weights.gather(1, places), spread[places], texts[places]
    unit, used = torch.arange(len(weights)), torch.zeros_like(left, dtype=torch.bool)
    indices, found = [], []
    for _ in range(min(max(SIZES), places.shape[1])):
        best = left.abs().masked_fill(used, -1).argmax(1)
        weight, used[unit, best] = left[unit, best], True
        indices.append(places[unit, best])
        found.append(weight)
        alike = same((rows @ rows[unit, best, :, None])[..., 0])
        said = weight / scale[unit, best].clamp_min(1e-30)  # the correlation
        left = torch.where(alike, left - said[:, None] * scale, left)
    return torch.stack(indices, dim=1), torch.stack(found, dim=1)
