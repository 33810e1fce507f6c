"""A label: the few texts that together predict a unit's effect best.

    ρ̂_nt  = (ρ(e_n, s_t) + a_t ρ(e_n, z_t)) / (1 + a_t²),    a_t = ρ(s_t, z_t)
    t_1   = argmax_t ρ̂_nt² − μ_t
    t_j   = argmax_t of the explained variance that t adds to t_1 … t_{j−1}, minus μ_t
    γ_n   = argmin_γ ‖e_n − Σ_j γ_j s_{t_j}‖² + ridge

    e_n   effect of unit n on the images            [image]
    s_t   a judge's score of text t                 [image]
    z_t   the model's zero-shot probability of t    [image]
    ρ     Pearson correlation over the images
    μ_t   tax on a text that many units carry       [text]

An effect that depends on what an image shows goes along with the model's own reading of a text as
far as that reading is right: ρ(e, z_t) = a_t ρ(e, s_t). So ρ̂ is the least-squares estimate of
ρ(e_n, s_t) from the judge and from the model, and a text that the judge and the model agree on
counts more than a coincidence of either. Texts with the same score, as synonyms have, are one text.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clipneurons.labels.simulation import Labels, standardised

# Texts of a label, unless another number is asked for.
LABEL_TEXTS = 3
# The largest share of a layer's units that may carry a text, and units that always may.
_COMMON, _FEW = 0.03, 3
# Steps of the tax, and its step as a share of what a text explains on average.
_STEPS, _STEP = 100, 0.05
# Texts whose scores correlate by more are one text; a text that those chosen explain to more than
# four fifths adds nothing; a text shown on fewer images than this is not known well enough.
_SAME, _LEFT, _SUPPORT = 0.99, 0.2, 4.0
# Of standardised scores; and units handled at once.
_RIDGE, _UNITS = 0.02, 1024


def write_labels(
    effects: Float[Tensor, "image unit"],
    scores: Float[Tensor, "image text"],
    readings: Float[Tensor, "image text"],
    size: int = LABEL_TEXTS,
) -> Labels:
    """Labels of at most `size` texts for the units of a layer, the most important text first.

    `scores` are the judge's, `readings` the model's (`zero_shot`). A unit has fewer texts where
    more would not explain more than chance does; weights are in standard deviations of the effect.
    """
    standard_scores, standard_readings = standardised(scores), standardised(readings)
    standard_effects = standardised(effects)
    agreement = (standard_scores * standard_readings).sum(0).clamp_min(0)  # [text]
    by_judge = standard_effects.T @ standard_scores  # [unit, text]
    by_model = standard_effects.T @ standard_readings  # [unit, text]
    estimate = (by_judge + agreement * by_model) / (1 + agreement**2)
    gram = standard_scores.T @ standard_scores  # [text, text]
    usable = _distinct(gram) & _supported(standard_scores)
    # What the best of so many texts would explain by chance.
    chance = 2 * math.log(max(2, int(usable.sum()))) / len(effects)
    indices, gains = _taxed(estimate, gram, usable, size, chance)
    return _weighted(indices, gains > 0, by_judge, gram, scores)


def _distinct(gram: Float[Tensor, "text text"]) -> Bool[Tensor, " text"]:
    """Of texts with the same score, the first: pools begin with the usual names of things."""
    return (gram > _SAME).int().argmax(1) == torch.arange(len(gram))


def _supported(standard: Float[Tensor, "image text"]) -> Bool[Tensor, " text"]:
    """Texts whose score varies over enough images (participation ratio of its square)."""
    squares = standard.square()
    return squares.sum(0) ** 2 >= _SUPPORT * squares.square().sum(0).clamp_min(1e-30)


def _taxed(
    estimate: Float[Tensor, "unit text"],
    gram: Float[Tensor, "text text"],
    usable: Bool[Tensor, " text"],
    size: int,
    chance: float,
) -> tuple[Int[Tensor, "unit place"], Float[Tensor, "unit place"]]:
    """Texts of each unit, and what each adds, under a tax that keeps texts from being common.

    Dual ascent on "at most 3 % of the units carry t": the tax grows where more do.
    """
    units, texts = estimate.shape
    most = max(_FEW, math.floor(_COMMON * units))
    tax = torch.full((texts,), chance)
    for _ in range(_STEPS):
        parts = [_forward(part, gram, usable, size, tax) for part in estimate.split(_UNITS)]
        indices, gains = (torch.cat(part) for part in zip(*parts, strict=True))
        carried = indices[gains > 0].bincount(minlength=texts)
        if int(carried.max()) <= most:
            break
        step = _STEP * float((gains.clamp_min(0)).mean())
        tax = torch.where(carried > most, tax + step * (carried / most).clamp_max(3), tax)
    return indices, gains


def _forward(
    estimate: Float[Tensor, "unit text"],
    gram: Float[Tensor, "text text"],
    usable: Bool[Tensor, " text"],
    size: int,
    tax: Float[Tensor, " text"],
) -> tuple[Int[Tensor, "unit place"], Float[Tensor, "unit place"]]:
    """Forward selection by explained variance minus tax (orthogonal least squares).

    `left` is each text's correlation with what the chosen texts do not explain of the effect,
    `norm` its squared norm without what they explain of it.
    """
    left, norm = estimate.clone(), torch.ones_like(estimate)
    open_texts = usable.expand_as(estimate).clone()
    chosen, gains, basis = [], [], []
    for _ in range(min(size, len(gram))):
        gain = left**2 / norm.clamp_min(1e-6) - tax
        gain = gain.masked_fill(~open_texts | (norm < _LEFT), -1.0)
        value, text = gain.max(1)
        place = text[:, None]
        open_texts.scatter_(1, place, False)
        length = norm.gather(1, place).clamp_min(1e-6).sqrt()
        column = gram[text]  # [unit, text]
        for earlier in basis:
            column = column - earlier.gather(1, place) * earlier
        column = column / length
        left = left - left.gather(1, place) / length * column
        norm = norm - column**2
        chosen.append(text)
        gains.append(value)
        basis.append(column)
    return torch.stack(chosen, dim=1), torch.stack(gains, dim=1)


def _weighted(
    indices: Int[Tensor, "unit place"],
    kept: Bool[Tensor, "unit place"],
    by_judge: Float[Tensor, "unit text"],
    gram: Float[Tensor, "text text"],
    scores: Float[Tensor, "image text"],
) -> Labels:
    """Ridge regression of the effects on the judge's scores of the chosen texts."""
    pairs = kept[:, :, None] & kept[:, None, :]
    size = indices.shape[1]
    matrix = torch.where(pairs, gram[indices[:, :, None], indices[:, None, :]], torch.eye(size))
    target = torch.where(kept, by_judge.gather(1, indices), 0.0)
    betas = torch.linalg.solve(matrix + _RIDGE * torch.eye(size), target[..., None])[..., 0]
    order = betas.abs().argsort(dim=1, descending=True, stable=True)
    indices, betas = indices.gather(1, order), betas.gather(1, order)
    weights = betas / scores.std(0).clamp_min(1e-12)[indices]
    return Labels(torch.where(weights != 0, indices, 0), weights)
