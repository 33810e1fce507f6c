"""Metrics of detection: ROC, precision and recall, intersection over union."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


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


def _mean_ranks(values: Float[Tensor, "image unit"]) -> Float[Tensor, "image unit"]:
    """Ranks from 1 down each column, the same for equal values (their mean)."""
    ordered = values.T.contiguous().sort(dim=1).values
    flat = values.T.contiguous()
    low = torch.searchsorted(ordered, flat, right=False)
    high = torch.searchsorted(ordered, flat, right=True)
    return ((low + high + 1).double() / 2).T
