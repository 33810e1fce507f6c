"""Zero-shot segmentation from neurons: which patches speak for a class (2406.04341, section 5.3).

The paper averages the activation maps of the neurons whose direction agrees most with the class.
Because a neuron's effect is a sum over patches, it can also be traced exactly: `additive_maps`
gives each patch's share of what all neurons of the chosen layers say about the class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.contributions import Contributions, SplitDirections

Weighting = Literal["mean", "signed", "weighted"]
NEURONS = 200

# Classes whose [image, token, pair, class] shares are held at once.
_CLASSES = 16


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
) -> Float[Tensor, "image class patch"]:
    """Activation maps of the voting neurons, averaged for each class; token 0 is left out.

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
        total = total + weights @ mine[:, 1:].float().mT
    return total / votes.units.shape[1]


def additive_maps(
    contributions: Mapping[int, Contributions] | Sequence[Contributions],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class token"]:
    """Each token's exact share of ``⟨Σ_n φ_n, class⟩`` over all neurons of the layers.

    Summed over tokens it is that number (which is the first-order part of later heads that
    reads these neurons). The class token, token 0, has a share as well.

    Raises:
        ValueError: contributions with a shared bias, which belongs to no token.
    """
    layers = contributions.values() if isinstance(contributions, Mapping) else contributions
    return sum(_shares(mine, texts) for mine in layers)


def _shares(
    mine: Contributions, texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image class token"]:
    if mine.bias is not None:
        raise ValueError("expected contributions without the shared bias, which is of no token")
    chunks = texts.split(_CLASSES)
    return torch.cat(
        [
            # Σ_k weights[k, i] · (Σ_n activations[i, n] · ⟨direction[n, k], class⟩)
            torch.einsum("bki,bikc->bci", mine.weights, said_by_tokens(mine, chunk))
            for chunk in chunks
        ],
        dim=1,
    )


def said_by_tokens(
    mine: Contributions, texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image token pair class"]:
    """What each token's neurons would say about each class if a pair read that token alone."""
    directions = mine.directions
    if isinstance(directions, SplitDirections):
        directions = directions.whole
    along = directions.project(texts)  # [neuron, pair, class]
    said = mine.activations @ along.flatten(1)
    return said.unflatten(-1, along.shape[1:])


def at_patches(mine: Contributions, patches: Sequence[int]) -> Contributions:
    """The part of every unit's effect that comes from some patches (0 is the first, top left).

    Over all patches and the class token these parts add up to the whole effects, so everything
    that reads contributions can be asked what the neurons say *here*.

    Raises:
        ValueError: a patch outside the image.
    """
    count = mine.activations.shape[1] - 1
    outside = [patch for patch in patches if not 0 <= patch < count]
    if outside:
        raise ValueError(f"patch {outside[0]} is outside the image: expected 0 to {count - 1}")
    tokens = torch.tensor(patches, dtype=torch.long, device=mine.scores.device) + 1
    activations, weights = mine.activations[:, tokens], mine.weights[..., tokens]
    scores = torch.bmm(activations.mT, weights.mT)  # [image, neuron, pair]
    scores = scores.reshape(mine.scores.shape)
    return Contributions(scores, mine.directions, None, activations, weights)
