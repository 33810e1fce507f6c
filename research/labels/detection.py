"""Metrics of detection: area under the ROC curve, intersection over union."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor


def auc(
    values: Float[Tensor, "image unit"], positive: Bool[Tensor, "image unit"]
) -> Float[Tensor, " unit"]:
    """Area under the ROC curve of each column; ties count half; NaN without both classes."""
    rank = torch.from_numpy(rankdata(values.numpy(), axis=0))
    yes = positive.sum(0).double()
    no = len(values) - yes
    above = (rank * positive).sum(0) - yes * (yes + 1) / 2
    return torch.where((yes > 0) & (no > 0), above / (yes * no), torch.nan).float()


def iou(
    active: Bool[Tensor, "image unit"], present: Bool[Tensor, "image unit"]
) -> Float[Tensor, " unit"]:
    """Intersection over union of each column; 0 where nothing is active and nothing present."""
    both, either = (active & present).sum(0), (active | present).sum(0)
    return both / either.clamp_min(1)
