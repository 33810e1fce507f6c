"""The two checks of metrics by NeuronEval (2506.05774, section 4): a metric of how well words fit
a unit must notice when half of what the words should name is not marked, and when twice as much is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Metric = Callable[[Tensor, Tensor], Tensor]
# A fall that rounding could not make, and the share of units on which it must be seen.
_FALL, _SHARE = 1e-3, 0.9


@dataclass(frozen=True)
class Checked:
    """Share of units on which a metric falls when labels are missing, and when they are extra."""

    missing: float
    extra: float

    @property
    def passed(self) -> bool:
        """Whether the metric can be trusted to compare labels."""
        return min(self.missing, self.extra) > _SHARE


def missing_labels(
    present: Bool[Tensor, "image unit"], generator: torch.Generator
) -> Bool[Tensor, "image unit"]:
    """Half of the images that show the concept, at random, are no longer marked."""
    return present & (torch.rand(present.shape, generator=generator) < 0.5)


def extra_labels(
    present: Bool[Tensor, "image unit"], generator: torch.Generator
) -> Bool[Tensor, "image unit"]:
    """As many images again, at random among those that do not show the concept, are marked."""
    yes = present.sum(0).double()
    share = (yes / (len(present) - yes).clamp_min(1)).clamp_max(1)
    return present | (torch.rand(present.shape, generator=generator) < share)


def sanity(
    metric: Metric,
    effects: Float[Tensor, "image unit"],
    present: Bool[Tensor, "image unit"],
    seed: int = 0,
) -> Checked:
    """Both checks of `metric(effects, present) -> [unit]`, larger being better."""
    generator = torch.Generator().manual_seed(seed)
    whole = metric(effects, present)
    found = [
        float((whole - metric(effects, change(present, generator)) > _FALL).float().mean())
        for change in (missing_labels, extra_labels)
    ]
    return Checked(*found)
