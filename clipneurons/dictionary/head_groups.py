"""What a ResNet's neuron says through its heads: its pairs, grouped by direction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.bundle.bundle import Bundle


@dataclass(frozen=True)
class HeadGroup:
    """Pairs through which a ResNet's neuron says about the same thing, the strongest first.

    `units` are the pairs and `heads` theirs; `share` is the part of the squared top norms of all
    the neuron's pairs that they have. `phrases` are the strongest pair's with their coefficients,
    `images` those on which the pairs' centred effects have the largest summed norms.
    """

    units: tuple[int, ...]
    heads: tuple[int, ...]
    share: float
    phrases: list[tuple[str, float]]
    images: list[tuple[int, float]]


def head_groups(
    bundle: Bundle, layer: int, neuron: int, similar: float, phrases: int
) -> list[HeadGroup]:
    """A neuron's pairs by average linkage of their directions; the largest share comes first.

    Groups are joined from a mean cosine of ``similar``; dead pairs are left out.
    """
    arrays, heads = bundle.layers[layer], bundle.config.units_per_neuron
    first = neuron * heads
    rows = arrays.directions[first : first + heads]
    alive = rows.any(1).nonzero().flatten()
    images = arrays.top_activating_images[first : first + heads]
    norms = arrays.top_norms[first : first + heads]
    strength = (norms.square() * (images >= 0)).sum(1)
    found = []
    for group in linked(rows[alive], similar):
        mine = sorted(alive[group].tolist(), key=lambda head: -float(strength[head]))
        found.append(
            HeadGroup(
                units=tuple(first + head for head in mine),
                heads=tuple(mine),
                share=float(strength[mine].sum() / strength.sum()),
                phrases=bundle.phrases(layer, first + mine[0], phrases),
                images=_strongest_images(images[mine], norms[mine]),
            )
        )
    return sorted(found, key=lambda concept: -concept.share)


def linked(directions: Float[Tensor, "unit embed"], similar: float) -> list[list[int]]:
    """Group unit rows by average linkage; each group in ascending order.

    The two most similar groups are joined as long as the mean cosine between their members is at
    least ``similar``.
    """
    cosine = directions @ directions.T
    groups = [[unit] for unit in range(len(directions))]
    while len(groups) > 1:
        best, (one, other) = max(
            (float(cosine[groups[i]][:, groups[j]].mean()), (i, j))
            for i, j in combinations(range(len(groups)), 2)
        )
        if best < similar:
            break
        groups[one] = sorted(groups[one] + groups.pop(other))
    return groups


def _strongest_images(
    images: Int[Tensor, "pair top"], norms: Float[Tensor, "pair top"]
) -> list[tuple[int, float]]:
    """Images of several pairs with their summed norms, the largest sums first; −1 pads."""
    total: dict[int, float] = {}
    for image, norm in zip(images.flatten().tolist(), norms.flatten().tolist(), strict=True):
        if image >= 0:
            total[image] = total.get(image, 0.0) + norm
    return sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))
