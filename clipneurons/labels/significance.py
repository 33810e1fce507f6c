"""Whether a label belongs to its unit: against other units' labels, and on other units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.labels.simulation import standardised

# Of the other units' labels, the share that stays below the line.
LINE = 0.95
# Other units' labels that each unit is compared with, other units that each label is tried on,
# and units compared at once.
_LABELS, _UNITS_TRIED, _UNITS = 4096, 4096, 512


@dataclass(frozen=True, eq=False)
class Shuffled:
    """How other units' labels do on each unit: correlation that 95 % of them stay below, mean
    correlation, and the p-value of the unit's own label among them (permutation test)."""

    line: Float[Tensor, " unit"]
    mean: Float[Tensor, " unit"]
    p_value: Float[Tensor, " unit"]


def shuffled(
    effects: Float[Tensor, "image unit"],
    predictions: Float[Tensor, "image unit"],
    seed: int = 0,
) -> Shuffled:
    """Every unit's effect against the predictions of other units' labels, at most 4,096 of them.

    Raises:
        ValueError: fewer than two units, which leaves no other label.
    """
    units = effects.shape[1]
    if units < 2 or predictions.shape != effects.shape:
        raise ValueError(
            f"expected effects and predictions of at least two units, got {tuple(effects.shape)} "
            f"and {tuple(predictions.shape)}"
        )
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
    drawn = order[:_LABELS].sort().values
    e, p = standardised(effects), standardised(predictions)
    labels, own = p[:, drawn], (e * p).sum(0)
    lines, means, values = [], [], []
    for start in range(0, units, _UNITS):
        part = torch.arange(start, min(start + _UNITS, units))
        found = e[:, part].T @ labels  # [unit, label]
        other = drawn[None] != part[:, None]
        count = other.sum(1)
        as_good = ((found >= own[part, None]) & other).sum(1)
        values.append((1 + as_good) / (1 + count))
        means.append(found.masked_fill(~other, 0).sum(1) / count)
        # An own label sorts last, where no line below 100 % reads.
        ordered = found.masked_fill(~other, torch.inf).sort(dim=1).values
        place = (LINE * (count - 1)).ceil().long()
        lines.append(ordered.gather(1, place[:, None])[:, 0])
    return Shuffled(torch.cat(lines), torch.cat(means), torch.cat(values))


def specificity(
    effects: Float[Tensor, "image unit"],
    predictions: Float[Tensor, "image unit"],
    seed: int = 0,
) -> Float[Tensor, " unit"]:
    """Share of the layer's other units, at most 4,096 of them, that a label predicts worse.

    A label that predicts many units as well as its own says what the layer has in common.
    """
    units = effects.shape[1]
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
    drawn = order[:_UNITS_TRIED].sort().values
    e, p = standardised(effects), standardised(predictions)
    own, tried = (e * p).sum(0), e[:, drawn]
    shares = []
    for part in torch.arange(units).split(_UNITS):
        other = drawn[:, None] != part[None]
        worse = (tried.T @ p[:, part] < own[None, part]) & other
        shares.append(worse.sum(0) / other.sum(0).clamp_min(1))
    return torch.cat(shares)
