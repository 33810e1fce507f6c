"""Which neuron-head pairs matter, and what one neuron means through its heads (2509.19943, 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.analysis.clustering import linked
from clipneurons.lens.contributions import Contributions, MeanEffect
from clipneurons.lens.second_order import SCALE


def keep_largest(
    representation: Float[Tensor, "image embed"],
    contributions: Contributions,
    mean: MeanEffect,
    counts: Sequence[int],
    ranking: Float[Tensor, " unit"] | None = None,
) -> dict[int, Float[Tensor, "image embed"]]:
    """Embeddings of norm about 100 with all but ``count`` pairs at their mean over the data.

    Args:
        representation: image embeddings, not normalised.
        counts: how many pairs keep their own contribution.
        ranking: pairs that keep it on all images, largest first; by default each image keeps
            those whose contribution lies farthest from the mean.

    Raises:
        ValueError: a count below 0 or above the number of pairs.
    """
    units = contributions.directions.units
    if not counts or min(counts) < 0 or max(counts) > units:
        raise ValueError(f"expected counts of 0 to {units} pairs, got {list(counts)}")
    original = SCALE * representation / representation.norm(dim=-1, keepdim=True)
    centred = Contributions(contributions.scores - mean.scores, contributions.directions)
    everything = original - centred.sum()
    sizes = contributions.norms(mean) if ranking is None else ranking.expand(len(original), -1)
    order = sizes.argsort(dim=1, descending=True)
    result = {}
    for count in counts:
        keep = torch.zeros_like(sizes).scatter_(1, order[:, :count], 1.0)
        result[count] = everything + centred.sum(keep)
    return result


def accuracy(
    embeddings: Float[Tensor, "image embed"],
    classes: Float[Tensor, "class embed"],
    labels: Int[Tensor, " image"],
) -> float:
    """Share of images whose most similar class is the right one, in percent."""
    return 100 * ((embeddings @ classes.T).argmax(1) == labels).float().mean().item()


def explained_by_one_direction(
    scores: Float[Tensor, "image neuron head"], directions: Float[Tensor, "neuron head embed"]
) -> Float[Tensor, " neuron"]:
    """Share of the variance of each neuron's whole contribution along its best direction.

    A pair's contribution has one direction by construction, so its share is 1; a neuron writes
    through every head, and is of rank one only if all its heads write the same.
    """
    centred = scores - scores.mean(0)
    covariance = torch.einsum("bnh,bng->nhg", centred, centred) / len(scores)
    # Eigenvalues of Dᵀ C D are those of Rᵀ C R for D = Q R.
    triangle = torch.linalg.qr(directions.mT).R  # [neuron, rank, head]
    values = torch.linalg.eigvalsh(triangle @ covariance @ triangle.mT).clamp_min(0)
    total = values.sum(-1)
    return torch.where(total > 0, values[:, -1] / total.clamp_min(1e-30), 1.0)


@dataclass(frozen=True)
class SubConcept:
    """Heads through which a neuron says about the same thing.

    ``direction`` is the mean of the heads' signed directions, of unit norm; ``share`` is how much
    of the neuron's variance these heads carry; ``images`` are those where they say most.
    """

    heads: tuple[int, ...]
    direction: Float[Tensor, " embed"]
    share: float
    images: tuple[int, ...]


def sub_concepts(
    scores: Float[Tensor, "image head"],
    directions: Float[Tensor, "head embed"],
    similar: float = 0.5,
    images: int = 9,
) -> list[SubConcept]:
    """Group the heads of one neuron by the cosine of their directions, largest share first.

    A direction counts with the sign in which its contribution varies: the one of its mean score.
    For the groups of a bundle's neuron, where only the strongest images of each pair are known,
    see `Dictionary.sub_concepts`.

    Args:
        scores: the neuron's scores by head over a data set.
        directions: what the neuron writes through each head.
        similar: least mean cosine between groups that are joined (`linked`).
    """
    sign = torch.where(scores.mean(0) < 0, -1.0, 1.0)
    unit = torch.nn.functional.normalize(directions, dim=-1) * sign[:, None]
    variance = scores.var(0, unbiased=False) * directions.square().sum(-1)
    total = variance.sum().clamp_min(1e-30)
    strength = (scores - scores.mean(0)) * sign * directions.norm(dim=-1)
    found = [
        SubConcept(
            heads=tuple(sorted(group)),
            direction=torch.nn.functional.normalize(
                (unit * variance[:, None])[group].sum(0), dim=-1
            ),
            share=(variance[group].sum() / total).item(),
            images=tuple(strength[:, group].sum(1).topk(min(images, len(scores))).indices.tolist()),
        )
        for group in linked(unit, similar)
    ]
    return sorted(found, key=lambda concept: -concept.share)
