"""Zero-shot segmentation from neurons: which patches speak for a class (2406.04341, section 5.3).

The paper averages the activation maps of the neurons whose direction agrees most with the class.
Because a neuron's effect is a sum over patches, it can also be traced exactly: `additive_maps`
gives each patch's share of what all neurons of the chosen layers say about the class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Weighting = Literal["mean", "signed", "weighted"]
NEURONS = 200


@dataclass(frozen=True)
class Votes:
    """The units that vote for each class, most aligned first, and how aligned they are.

    ``layers`` and ``units`` name a unit of the bundle; ``alignments`` are ``⟨r_n, class⟩``,
    negative for a neuron that speaks against the class.
    """

    layers: Int[Tensor, "class count"]
    units: Int[Tensor, "class count"]
    alignments: Float[Tensor, "class count"]


def choose_neurons(
    directions: Mapping[int, Float[Tensor, "unit embed"]],
    texts: Float[Tensor, "class embed"],
    count: int = NEURONS,
) -> Votes:
    """The ``count`` units of all layers with the largest ``|⟨r_n, class⟩|`` (the paper's 200).

    Raises:
        ValueError: no layer, or a count below 1.
    """
    if not directions:
        raise ValueError("expected directions of at least one layer, got none")
    if count < 1:
        raise ValueError(f"expected a count of at least 1, not {count}")
    found = [texts @ rows.to(texts).T for rows in directions.values()]
    layers = torch.cat(
        [torch.full((a.shape[1],), layer) for layer, a in zip(directions, found, strict=True)]
    )
    units = torch.cat([torch.arange(a.shape[1]) for a in found])
    alignments = torch.cat(found, 1)
    top = alignments.abs().topk(min(count, alignments.shape[1]), dim=1).indices
    return Votes(
        layers=layers.to(top.device)[top],
        units=units.to(top.device)[top],
        alignments=alignments.gather(1, top),
    )


def vote_maps(
    activations: Mapping[int, Float[Tensor, "image token neuron"]],
    votes: Votes,
    weighting: Weighting = "mean",
    units_per_neuron: int = 1,
    prefix: int = 1,
) -> Float[Tensor, "image class patch"]:
    """Activation maps of the voting neurons, averaged for each class, ``prefix`` tokens left out.

    ``"mean"`` is the paper's: every neuron counts the same, also one that speaks against the
    class. ``"signed"`` subtracts those, ``"weighted"`` weighs each by its alignment.
    """
    values = {
        "mean": torch.ones_like(votes.alignments),
        "signed": votes.alignments.sign(),
        "weighted": votes.alignments,
    }[weighting]
    total = 0.0
    for layer, mine in activations.items():
        weights = torch.zeros(len(values), mine.shape[2], device=mine.device)
        weights.scatter_add_(
            1, votes.units // units_per_neuron, values.where(votes.layers == layer, 0.0)
        )
        total = total + weights @ mine[:, prefix:].float().mT
    return total / votes.units.shape[1]
