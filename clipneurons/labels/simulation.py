"""Simulation score: the correlation of a unit's effect with what its label predicts.

A label is a few texts with signed weights. On an image, a judge scores every text; the weighted
sum predicts the unit's effect ⟨φ_n(I) − b_n, r_n⟩ (Linear Explanations, ICML 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.statistics.omp import reconstruct


@dataclass(frozen=True, eq=False)
class Labels:
    """A label a unit: texts by index with signed coefficients; unused places have zero."""

    indices: Int[Tensor, "unit text"]
    coefficients: Float[Tensor, "unit text"]

    def __len__(self) -> int:
        return len(self.indices)

    def of(self, units: Int[Tensor, " chosen"]) -> Labels:
        """The labels of other units, in the order given."""
        return Labels(self.indices[units], self.coefficients[units])


def simulate(labels: Labels, scores: Float[Tensor, "image text"]) -> Float[Tensor, "image unit"]:
    """Σ_j γ_j · score_j(I): the direction's decomposition with scores in place of embeddings."""
    return reconstruct(labels.indices.long(), labels.coefficients, scores.T.contiguous()).T


def standardised(values: Float[Tensor, "image unit"]) -> Float[Tensor, "image unit"]:
    """Columns of mean 0 and norm 1; a column that does not vary is zero."""
    centred = values - values.mean(0)
    norm = centred.norm(dim=0)
    varies = norm > 1e-6 * values.abs().amax(0) * len(values) ** 0.5
    return torch.where(varies, centred / norm.clamp_min(1e-30), 0.0)


def pearson(
    effects: Float[Tensor, "image unit"], predictions: Float[Tensor, "image unit"]
) -> Float[Tensor, " unit"]:
    """Correlation of each unit's effect with its prediction; 0 where one of them is constant."""
    return (standardised(effects) * standardised(predictions)).sum(0)


def correlations(
    effects: Float[Tensor, "image unit"], predictions: Float[Tensor, "image label"]
) -> Float[Tensor, "unit label"]:
    """Correlation of every unit's effect with every label's prediction."""
    return standardised(effects).T @ standardised(predictions)


def bootstrap(
    effects: Float[Tensor, "image unit"],
    predictions: Float[Tensor, "image unit"],
    draws: int = 200,
    seed: int = 0,
) -> Float[Tensor, "draw unit"]:
    """`pearson` on images drawn with replacement, the same draws for every label and method."""
    e, p = standardised(effects), standardised(predictions)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(e), (draws, len(e)), generator=generator)
    weights = torch.zeros(draws, len(e)).scatter_add_(1, drawn, torch.ones(drawn.shape))
    weights = (weights / len(e)).to(e)
    moments = {"e": e, "p": p, "ee": e * e, "pp": p * p, "ep": e * p}
    mean = {name: weights @ values for name, values in moments.items()}
    covariance = mean["ep"] - mean["e"] * mean["p"]
    spread = (mean["ee"] - mean["e"] ** 2).clamp_min(0) * (mean["pp"] - mean["p"] ** 2).clamp_min(0)
    return torch.where(spread > 0, covariance / spread.sqrt().clamp_min(1e-30), 0.0)
