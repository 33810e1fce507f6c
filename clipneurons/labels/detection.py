"""Units as detectors of phrases and phrases as detectors of units, on the judge's yes and no."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# A judge that gives scores says yes to as many texts an image: a hundredth of the pool, but ...
_SHARE, _MOST = 0.01, 10


def listed(scores: Float[Tensor, "image text"]) -> Bool[Tensor, "image text"]:
    """Yes of a judge that only scores: the image's best texts, at most ten and 1 % of them."""
    count = scores.shape[1]
    best = scores.topk(min(_MOST, max(1, round(_SHARE * count)), count), dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)


def auc(
    values: Float[Tensor, "image unit"], positive: Bool[Tensor, "image unit"]
) -> Float[Tensor, " unit"]:
    """Area under the ROC curve of each column; ties count half; NaN without both classes."""
    rank = _mean_ranks(values)
    yes = positive.sum(0).double()
    no = len(values) - yes
    above = (rank * positive).sum(0) - yes * (yes + 1) / 2
    return torch.where((yes > 0) & (no > 0), above / (yes * no), torch.nan).float()


def average_precision(
    values: Float[Tensor, "image unit"], positive: Bool[Tensor, "image unit"]
) -> Float[Tensor, " unit"]:
    """Area under the precision-recall curve of each column (average precision).

    Images of the same value are taken together, as scikit-learn does. NaN without a positive.
    """
    ordered, order = values.sort(dim=0, descending=True)
    hits = positive.gather(0, order).double().cumsum(0)
    # Every image of a tie gets the precision and the recall at the tie's last one.
    count = len(values)
    place = torch.arange(count, device=values.device)[:, None].expand_as(order)
    ends = torch.ones_like(ordered, dtype=torch.bool)
    ends[:-1] = ordered[1:] != ordered[:-1]
    last = torch.where(ends, place, count - 1).flip(0).cummin(0).values.flip(0)
    precision = (hits / (place + 1)).gather(0, last)
    gained = hits - torch.cat([torch.zeros_like(hits[:1]), hits[:-1]])
    yes = hits[-1]
    return torch.where(yes > 0, (precision * gained).sum(0) / yes, torch.nan).float()


def iou(
    active: Bool[Tensor, "image unit"], present: Bool[Tensor, "image unit"]
) -> Float[Tensor, " unit"]:
    """Intersection over union of each column; 0 where nothing is active and nothing present."""
    both, either = (active & present).sum(0), (active | present).sum(0)
    return both / either.clamp_min(1)


@dataclass(frozen=True, eq=False)
class BestConcept:
    """The text that a unit detects best at its threshold, by intersection over union."""

    text: Int[Tensor, " unit"]
    iou: Float[Tensor, " unit"]


def best_concept(
    active: Bool[Tensor, "image unit"], present: Bool[Tensor, "image text"]
) -> BestConcept:
    """Network Dissection's concept of each unit: one product of what is active and what is there.

    A unit that is active nowhere has IoU 0.
    """
    both = active.float().T @ present.float()  # [unit, text]
    fired, shown = active.sum(0).float()[:, None], present.sum(0).float()[None]
    iou, text = (both / (fired + shown - both).clamp_min(1)).max(1)
    return BestConcept(text, iou)


def _mean_ranks(values: Float[Tensor, "image unit"]) -> Float[Tensor, "image unit"]:
    """Ranks from 1 down each column, the same for equal values (their mean)."""
    ordered = values.T.contiguous().sort(dim=1).values
    flat = values.T.contiguous()
    low = torch.searchsorted(ordered, flat, right=False)
    high = torch.searchsorted(ordered, flat, right=True)
    return ((low + high + 1).double() / 2).T
