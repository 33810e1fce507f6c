"""Labels that others would write from the same recordings, and controls that mean nothing.

All have as many texts as ours.
"""

from __future__ import annotations

from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.labels.evidence import SCALE
from clipneurons.labels.simulation import Labels, standardised

# CLIP-Dissect's published settings: images behind a label, weight of a text's own frequency, and
# how sure it is of the first and of the last image.
_TOP_IMAGES, _FREQUENCY, _FIRST, _LAST = 100, 1.0, 0.998, 0.97
# Of standardised scores; and units and texts taken at once.
_RIDGE, _UNITS, _TEXTS = 0.1, 256, 1024


def nearest_texts(
    directions: Float[Tensor, "unit embed"], texts: Float[Tensor, "text embed"], size: int
) -> Labels:
    """The texts with the largest cosines to the direction, weighted by them."""
    parts = [(part @ texts.T).topk(size, dim=1) for part in directions.split(_UNITS)]
    return Labels(
        torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
    )


def clip_dissect(
    effects: Float[Tensor, "image unit"],
    embeddings: Float[Tensor, "image embed"],
    texts: Float[Tensor, "text embed"],
    size: int,
) -> Labels:
    """CLIP-Dissect's concepts by soft-WPMI (2204.10965, section 3.2) over a unit's top images.

    argmax_t Σ_I log(1 + s_n(I) (p(t | I) − 1)) − λ log p(t), where p(t | I) is the model's softmax
    over the texts, s_n(I) falls from 0.998 to 0.97 over the images in the order of the effect, and
    p(t) is the mean of the first term's exponential over the units. The best texts count the same.
    """
    probabilities = (SCALE * embeddings @ texts.T).softmax(1)
    count = min(_TOP_IMAGES, len(effects))
    top = effects.topk(count, dim=0).indices.T  # [unit, rank]
    scores = torch.empty(len(top), len(texts))
    # Texts in parts: a table of all units, texts and ranks would not fit for large models.
    for start in range(0, len(texts), _TEXTS):
        given = probabilities[:, start : start + _TEXTS]
        total = given.new_zeros(len(top), given.shape[1])
        for rank in range(count):
            sure = _FIRST - rank / count * (_FIRST - _LAST)
            total += torch.log1p(sure * (given - 1))[top[:, rank]]
        frequency = torch.logsumexp(total, 0) - log(len(total))
        scores[:, start : start + _TEXTS] = total - _FREQUENCY * frequency
    best = scores.topk(size, dim=1).indices
    return Labels(best, torch.ones_like(best, dtype=torch.float32))


def linear_explanation(
    effects: Float[Tensor, "image unit"], scores: Float[Tensor, "image text"], size: int
) -> Labels:
    """Sparse regression of the effects on the judge's scores alone (Linear Explanations, 2024).

    The texts of largest covariance, refitted together by ridge regression.
    """
    e, s = standardised(effects), standardised(scores)
    spread, size = scores.std(0), min(size, scores.shape[1])
    parts = []
    for part in e.split(_UNITS, dim=1):
        correlation = part.T @ s
        chosen = (correlation.abs() * spread).topk(size, dim=1).indices
        columns = s.T[chosen]  # [unit, text, image]
        gram = columns @ columns.mT + _RIDGE * torch.eye(size)
        betas = torch.linalg.solve(gram, correlation.gather(1, chosen)[..., None])[..., 0]
        parts.append((chosen, betas / spread.clamp_min(1e-12)[chosen]))
    indices, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    return Labels(indices, weights)


def of_other_units(labels: Labels, seed: int = 1) -> Labels:
    """Every unit gets the label of another one."""
    turned = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return labels.of(torch.empty_like(turned).scatter_(0, turned, turned.roll(1)))


def random_texts(units: int, texts: int, size: int, seed: int = 0) -> Labels:
    """As many texts as a label has, drawn at random, with random signed weights."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.rand(units, texts, generator=generator).topk(min(size, texts), dim=1).indices
    return Labels(indices, torch.randn(indices.shape, generator=generator))
