"""Segmentation by the neurons that agree most with a class: arXiv 2406.04341, section 5.3.

map_c(i) = 1/k Σ_{n ∈ N_c} p_i^n          N_c: the k = 200 neurons with the largest |⟨r_n, t_c⟩|

p_i^n     activation of neuron n at patch i
r_n, t_c  [D]   direction of the neuron, embedding of class c
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.lens import Lens

NEURONS = 200


@dataclass(frozen=True)
class Votes:
    """The units that vote for each class, most aligned first.

    ``layers`` and ``units`` name a unit of the bundle. ``alignments`` are ``⟨r_n, class⟩``,
    negative for a neuron that speaks against the class; the paper counts those too.
    """

    layers: Int[Tensor, "class count"]
    units: Int[Tensor, "class count"]
    alignments: Float[Tensor, "class count"]


def choose_neurons(
    directions: Mapping[int, Float[Tensor, "unit embed"]],
    texts: Float[Tensor, "class embed"],
    count: int = NEURONS,
) -> Votes:
    """The ``count`` units of all layers with the largest ``|⟨r_n, class⟩|``.

    Raises:
        ValueError: no layer, or a count below 1.
    """
    if not directions:
        raise ValueError("expected directions of at least one layer, got none")
    if count < 1:
        raise ValueError(f"expected a count of at least 1, not {count}")
    by_layer = [texts @ rows.to(texts).T for rows in directions.values()]  # [class, unit] each
    layers = torch.cat(
        [torch.full((a.shape[1],), layer) for layer, a in zip(directions, by_layer, strict=True)]
    )
    units = torch.cat([torch.arange(a.shape[1]) for a in by_layer])
    alignments = torch.cat(by_layer, 1)
    top = alignments.abs().topk(min(count, alignments.shape[1]), dim=1).indices
    return Votes(
        layers=layers.to(top.device)[top],
        units=units.to(top.device)[top],
        alignments=alignments.gather(1, top),
    )


def vote_maps(
    lens: Lens,
    directions: Mapping[int, Float[Tensor, "unit embed"]],
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    count: int = NEURONS,
) -> Float[Tensor, "image class row column"]:
    """The equation above on the patch grid; of a ResNet, whose units are neuron-head pairs, too.

    ``lens`` reads the layers of ``directions``, none of which is the pooling's own MLP.
    """
    _, contributions = lens(images)
    votes = choose_neurons({k: v.to(texts) for k, v in directions.items()}, texts, count)
    total = 0.0
    for layer, mine in contributions.items():
        activations = mine.activations[:, lens.clip.prefix :].float()  # [image, patch, neuron]
        units_per_neuron = mine.directions.units // activations.shape[2]
        weights = torch.zeros(len(texts), activations.shape[2], device=activations.device)
        in_layer = (votes.layers == layer).to(weights)
        weights.scatter_add_(1, votes.units // units_per_neuron, in_layer)
        total = total + weights @ activations.mT  # [image, class, patch]
    return (total / votes.units.shape[1]).unflatten(-1, lens.clip.grid)
