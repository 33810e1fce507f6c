"""Labels that others would write, from the same recordings, and controls that mean nothing."""

from __future__ import annotations

from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.labels.candidates import correlated
from clipneurons.labels.evidence import Evidence, Family
from clipneurons.labels.simulation import Labels, standardised

# CLIP-Dissect's published settings: images behind a label, weight of a text's own frequency, and
# how sure it is of the first and of the last image.
_TOP_IMAGES, _FREQUENCY, _FIRST, _LAST = 100, 1.0, 0.998, 0.97
# Of standardised scores; and units and texts taken at once.
_RIDGE, _UNITS, _TEXTS = 0.1, 256, 1024


def nearest_text(evidence: Evidence) -> Labels:
    """The text with the largest cosine to the direction."""
    parts = evidence.directions.split(_UNITS)
    best = torch.cat([(part @ evidence.texts.T).argmax(1, keepdim=True) for part in parts])
    return Labels(best, torch.ones_like(best, dtype=torch.float32))


def clip_dissect(evidence: Evidence) -> Labels:
    """CLIP-Dissect's concept by soft-WPMI (2204.10965, section 3.2) over a unit's top images.

    argmax_t Σ_I log(1 + s_n(I) (p(t | I) − 1)) − λ log p(t), where p(t | I) is the model's softmax
    over the texts, s_n(I) falls from 0.998 to 0.97 over the images in the order of the effect, and
    p(t) is the mean of the first term's exponential over the units.
    """
    count = min(_TOP_IMAGES, len(evidence.effects))
    top = evidence.effects.topk(count, dim=0).indices.T  # [unit, rank]
    best = torch.zeros(len(top), 1, dtype=torch.int64)
    most = torch.full((len(top), 1), -torch.inf)
    # Texts in parts: a table of all units and texts would not fit for large models.
    for start in range(0, len(evidence.texts), _TEXTS):
        given = evidence.probabilities[:, start : start + _TEXTS]
        total = given.new_zeros(len(top), given.shape[1])
        for rank in range(count):
            sure = _FIRST - rank / count * (_FIRST - _LAST)
            total += torch.log1p(sure * (given - 1))[top[:, rank]]
        frequency = torch.logsumexp(total, 0) - log(len(total))
        found, place = (total - _FREQUENCY * frequency).max(1, keepdim=True)
        best = torch.where(found > most, start + place, best)
        most = torch.maximum(found, most)
    return Labels(best, torch.ones_like(best, dtype=torch.float32))


def linear_explanation(
    effects: Float[Tensor, "image unit"], scores: Float[Tensor, "image text"]
) -> Family:
    """Sparse regression of the effects on the judge's own scores: an upper bound, not a rival.

    The texts of largest covariance, refitted together by ridge regression.
    """
    screened = correlated(effects, scores, scores.std(0))
    e, s = standardised(effects), standardised(scores)
    spread = (scores - scores.mean(0)).norm(dim=0)
    indices = max(screened.values(), key=lambda label: label.indices.shape[1]).indices
    found = {size: [] for size in screened}
    for start in range(0, len(indices), _UNITS):
        chosen = indices[start : start + _UNITS]
        columns = s.T[chosen]  # [unit, phrase, image]
        gram = columns @ columns.mT
        inner = (columns @ e.T[start : start + _UNITS, :, None])[..., 0]
        for size, parts in found.items():
            ridge = gram[:, :size, :size] + _RIDGE * torch.eye(size).to(gram)
            parts.append(torch.linalg.solve(ridge, inner[:, :size, None])[..., 0])
    return {
        size: Labels(
            indices[:, :size], torch.cat(parts) / spread[indices[:, :size]].clamp_min(1e-12)
        )
        for size, parts in found.items()
    }


def random_words(units: int, texts: int, count: int, seed: int = 0) -> Labels:
    """As many texts as a label has, drawn at random, with random signed weights."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.rand(units, texts, generator=generator).topk(min(count, texts), dim=1).indices
    return Labels(indices, torch.randn(indices.shape, generator=generator))
